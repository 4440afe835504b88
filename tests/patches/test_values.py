"""Labels that are values: onto the grid, into windows, through training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from shapely.geometry import box
from small_cube import grid, patchwork, small_cube
from toy_world import write_tiff

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.cube.grid import shards
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.journey.training import train
from mdico_cube.journey.windows import sample
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.export import export_samples
from mdico_cube.patches.labels import check_labels, label_cube, rasterize_labels
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.splits import TEST, TRAIN, VALIDATION
from mdico_cube.patches.values import known_values, part_of, range_edges, range_legend
from mdico_cube.recipe import LabelSection, Recipe, ValueSection, parse_recipe

SHAPE = (48, 64)


def field(seed: int = 0) -> npt.NDArray[np.float32]:
    """Values from 0 to about 100 with gaps, one of them infinite."""
    draw = np.random.default_rng(seed)
    values = (100 * draw.random(SHAPE) ** 2).astype(np.float32)
    values[draw.random(SHAPE) < 0.1] = np.nan
    values[0, 0] = np.inf
    return values


def section(path: Path, **values: Any) -> LabelSection:
    attribute = None if path.suffix == ".tif" else "moisture"
    return LabelSection(path=path, attribute=attribute, values=ValueSection(name="moisture", unit="%", **values))


def raster(folder: Path) -> tuple[Path, npt.NDArray[np.float32]]:
    values = field()
    write_tiff(folder / "moisture.tif", values, grid(SHAPE))
    return folder / "moisture.tif", values


def cells(folder: Path) -> tuple[Path, npt.NDArray[np.float32]]:
    """Squares of 4 x 4 pixels with a value each, some without."""
    affine, draw = grid(SHAPE).affine, np.random.default_rng(1)
    values = draw.normal(50, 20, (SHAPE[0] // 4, SHAPE[1] // 4)).astype(np.float32)
    values[draw.random(values.shape) < 0.2] = np.nan
    shapes = []
    for row, column in np.ndindex(values.shape):
        (x0, y0), (x1, y1) = affine * (4 * column, 4 * row + 4), affine * (4 * column + 4, 4 * row)
        shapes.append(box(x0, y0, x1, y1))
    site = np.arange(values.size) // 2
    frame = gpd.GeoDataFrame({"moisture": values.ravel(), "site": site}, geometry=shapes, crs="EPSG:32631")
    frame.to_file(folder / "cells.gpkg")
    return folder / "cells.gpkg", values.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("make", [raster, cells])
def test_pixels_take_the_value_at_their_centre_whatever_the_blocks(make: Any, tmp_path: Path) -> None:
    path, values = make(tmp_path)
    edges = (0.0, 20.0, 60.0, 100.0)
    whole = rasterize_labels(section(path), grid(SHAPE), edges=edges)
    assert whole.value is not None
    wanted = np.where(np.isfinite(values), values, np.nan)
    np.testing.assert_array_equal(whole.value, wanted)
    assert ((whole.label == 255) == np.isnan(wanted)).all()
    assert (whole.label[wanted >= 60] == 2).all()
    for shard in shards(SHAPE, 32):
        block = rasterize_labels(section(path), grid(SHAPE), shard.y, shard.x, edges)
        assert block.value is not None
        np.testing.assert_array_equal(block.value, whole.value[shard.y, shard.x])
        np.testing.assert_array_equal(block.label, whole.label[shard.y, shard.x])


def test_parts_hold_equally_many_values_or_equal_widths() -> None:
    values = field()
    known = known_values(ValueSection(name="v", high=90), values)
    assert np.nanmax(known) <= 90
    assert not np.isinf(known).any()
    for spread, even in (("quantiles", True), ("ranges", False)):
        options = ValueSection(name="v", bins=5, spread=spread)  # type: ignore[arg-type]
        edges = range_edges(options, known)
        part = part_of(known, edges)
        counts = np.bincount(part[part < 255], minlength=5)
        assert (np.ptp(counts) <= 2) == even
        assert even or np.allclose(np.diff(edges), np.diff(edges)[0], rtol=1e-4)
        assert [entry.value for entry in range_legend(edges)] == [1, 2, 3, 4, 5]
    same = np.where(np.isnan(values), np.nan, np.float32(0))
    same[:, :3] = 7
    assert len(range_edges(ValueSection(name="v"), same)) < 4, "equal borders fall together"


def recipe_of(folder: Path, labels: LabelSection, **samples: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "values",
            "output": str(folder),
            "area": {"bounds": [600000, 5600440 - 480, 600640, 5600440], "crs": "EPSG:32631"},
            "period": {"start": "2021-04-01", "end": "2021-06-30"},
            "catalog": "local",
            "modalities": {"sentinel1": {}, "sentinel2": {}},
            "labels": labels.model_dump(mode="json"),
            "samples": {"block": 8, "guard": 1, "min_valid": 0.1, "per_class": 40, "validation": 0.2, **samples},
            "colearn": {
                "modalities": ["sentinel1", "sentinel2"],
                "methods": ["mdico"],
                "task": {"kind": "regression"},
                "encoder": {"width": 8, "hidden": 8, "dense": 8, "pool": 3 if samples.get("target") == "patch" else 1},
                "train": {"epochs": 2, "batch": 32, "loggers": [], "accelerator": "cpu"},
            },
        }
    )


@pytest.fixture
def valued(tmp_path: Path) -> tuple[Path, LabelSection]:
    path, _ = cells(tmp_path)
    labels = LabelSection(path=path, attribute="moisture", group="site", values=ValueSection(name="moisture", unit="%"))
    small_cube(tmp_path / "cube.zarr", patchwork(SHAPE))
    label_cube(tmp_path / "cube.zarr", labels)
    return tmp_path, labels


@pytest.mark.parametrize("target", ["dense", "centre", "patch"])
def test_windows_carry_the_values_of_their_own_fold(target: str, valued: tuple[Path, LabelSection]) -> None:
    folder, labels = valued
    sample(recipe_of(folder, labels, patch=3, target=target))
    reader, store = open_reader(folder / "cube.zarr"), open_samples(folder / "samples.zarr")
    split = open_split(folder / "split.zarr")
    whole = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    values, folds = reader.values(*whole), split.folds(reader, *whole)
    rows = store.where(TRAIN, VALIDATION, TEST)
    found = store.target(rows)
    assert store.value == "moisture"
    assert [entry.name for entry in store.outputs] == ["moisture"]
    for row, got in zip(rows, found, strict=True):
        y, x = store.column("row")[row], store.column("column")[row]
        own = np.where(folds[y : y + 3, x : x + 3] == store.fold[row], values[y : y + 3, x : x + 3], np.nan)
        if target == "dense":
            np.testing.assert_array_equal(got, own)
            continue
        wanted = own[1, 1] if target == "centre" else np.nanmean(own, dtype=np.float64)
        assert got[1, 1] == pytest.approx(wanted, rel=1e-6)
        assert np.isnan(np.delete(got.ravel(), 4)).all()
    site = store.column("group")
    for fold in (TRAIN, VALIDATION, TEST):
        assert not set(site[store.fold == fold]) & set(site[store.fold != fold]), "no site stands in two folds"


def test_values_from_labels_to_scored_bundles(valued: tuple[Path, LabelSection]) -> None:
    folder, labels = valued
    recipe = recipe_of(folder, labels)
    sample(recipe)
    store = open_samples(folder / "samples.zarr")
    bundles = [load_bundle(path) for path in train(recipe)]
    for bundle in bundles:
        assert bundle.config.task.kind == "regression"
        assert bundle.config.task.unit == "%"
        assert [entry.name for entry in bundle.config.classes] == ["moisture"]
        learned = store.values(TRAIN).astype(np.float64)
        assert bundle.config.scale.mean == pytest.approx(learned.mean(), rel=1e-6)
        assert bundle.config.scale.std == pytest.approx(learned.std(), rel=1e-6)
        figures = bundle.config.scores["held_out"]
        assert set(figures) == {"r2", "rmse", "rrmse", "mae", "bias", "pixels"}
        assert figures["pixels"] == np.isfinite(store.target(store.where(TEST))).sum()
        assert figures["rmse"] < 3 * learned.std(), "the answer is in the value's unit"
        reach = bundle.reference
        assert reach is not None, "a map of values can tell how far a pixel lies from the training data"
        assert len(reach.centres) > 1
        assert np.isfinite(reach.centres.numpy()).all()
    assert train(recipe, resume=True) == [bundle.folder for bundle in bundles]
    table = pq.read_table(export_samples(folder / "samples.zarr", folder / "windows.parquet"))
    rows = store.where(TRAIN, VALIDATION, TEST)
    np.testing.assert_array_equal(table["label"].to_numpy(), store.target(rows)[:, 0, 0])


def test_values_that_cannot_be_learned_are_refused(tmp_path: Path) -> None:
    path, _ = cells(tmp_path)
    frame = gpd.read_file(path)
    with pytest.raises(MdicoError, match=r"no pixel in the area has a value of moisture"):
        check_labels(section(path, low=1000), grid(SHAPE))
    frame["moisture"] = 3.0
    frame.to_file(tmp_path / "same.gpkg")
    with pytest.raises(MdicoError, match=r"every value of moisture in the area is 3: there is nothing to learn"):
        check_labels(section(tmp_path / "same.gpkg"), grid(SHAPE))
    frame["moisture"] = "wet"
    frame.to_file(tmp_path / "text.gpkg")
    with pytest.raises(MdicoError, match=r"column moisture holds 'wet', but values are numbers"):
        check_labels(section(tmp_path / "text.gpkg"), grid(SHAPE))
    with pytest.raises(ValidationError, match=r"give classes, or values for a regression"):
        LabelSection(path=path)
    options = recipe_of(tmp_path, section(path)).model_dump(mode="json")
    options["colearn"]["task"] = {"kind": "classes"}
    with pytest.raises(MdicoError, match=r"go together: set colearn.task.kind: regression"):
        parse_recipe(options)
    small_cube(tmp_path / "cube.zarr", patchwork(SHAPE))
    with pytest.raises(MdicoError, match=r"its labels are classes. Name values in labels.values"):
        open_reader(tmp_path / "cube.zarr").values(slice(0, 3), slice(0, 3))
