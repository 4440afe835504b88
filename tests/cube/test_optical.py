"""Optical sensors of the embedded region against plain rasterio and numpy: warp, scale, mask, median, gaps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.scenes import Notes
from mdico_cube.demo.region import DemoRegion, write_region
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe
from mdico_cube.sensors.offsets import judge_floors

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
HIDING = 0b111110


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    region = DemoRegion(size=96, s2_days=15, landsat_days=16, collections=("landsat-c2-l2", "sentinel-2-l2a"))
    return write_region(tmp_path_factory.mktemp("optical") / "region", region).parent


@pytest.fixture
def facts(recipe_facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    left, bottom = 711460, 5619560  # inside the region of 96 pixels
    return {
        **recipe_facts,
        "href": str(folder / "catalog.json"),
        "area": {"bounds": [left, bottom, left + 640, bottom + 480], "crs": "EPSG:32631"},
        "period": {"start": "2021-04-01", "end": "2021-08-31"},
        "modalities": {"landsat": {}, "sentinel2": {"bands": ["B02", "B11"]}},
        "colearn": {**recipe_facts["colearn"], "modalities": ["landsat", "sentinel2"]},
    }


def layer_of(facts: dict[str, Any], name: str) -> tuple[LayerPlan, GeoBox]:
    plan = plan_build(parse_recipe(facts))
    return next(layer for layer in plan.layers if layer.modality.name == name), plan.geobox


def warped(path: Path, grid: GeoBox, method: Resampling, nodata: int) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        out = np.full(grid.shape, nodata, dtype=file.dtypes[0])
        reproject(
            file.read(1), out, src_transform=file.transform, src_crs=file.crs, src_nodata=nodata, dst_nodata=nodata,
            dst_transform=grid.affine, dst_crs=str(grid.crs), resampling=method,
        )  # fmt: skip
    return out


def oracle(folder: Path, grid: GeoBox, month: str, method: Resampling) -> np.ndarray[Any, Any]:
    """Stored counts (C, H, W) of a month's Landsat composite."""
    scenes = []
    for scene in sorted((folder / "landsat-c2-l2").glob(f"*_2021{month}??_*")):
        counts = np.stack([warped(scene / f"{band}.tif", grid, method, 0) for band in BANDS])
        quality = warped(scene / "qa_pixel.tif", grid, Resampling.nearest, 1)
        reflectance = np.clip(np.rint((counts * 2.75e-5 - 0.2) * 1e4), 0, 65534)
        hidden = (counts == 0).any(axis=0) | ((quality & (HIDING | 1)) != 0)
        scenes.append(np.where(hidden, np.nan, reflectance))
    stack = np.sort(np.stack(scenes), axis=0)
    count = (~np.isnan(stack)).sum(axis=0)
    low, high = (np.take_along_axis(stack, np.maximum(k, 0)[None], 0)[0] for k in ((count - 1) // 2, count // 2))
    return np.where(count == 0, 65535, np.floor((low + high) / 2 + 0.5))


@pytest.mark.parametrize(("resolution", "method"), [(10, Resampling.bilinear), (90, Resampling.average)])
def test_landsat_equals_rasterio_and_numpy(
    facts: dict[str, Any], folder: Path, resolution: float, method: Resampling
) -> None:
    facts["area"]["resolution"] = resolution
    layer, grid = layer_of(facts, "landsat")
    stored = compute_block(layer, grid)
    observed = 0
    for step, month in enumerate(("04", "05", "06", "07", "08")):
        expected = oracle(folder, grid, month, method)
        np.testing.assert_array_equal(stored[step] == 65535, expected == 65535)
        assert np.abs(stored[step].astype(int) - expected).max() <= 1, "a rounding of half a count at most"
        observed += int((expected != 65535).sum())
    assert observed > 0


def test_a_recipe_builds_a_landsat_cube(facts: dict[str, Any], folder: Path) -> None:
    facts["period"] = {"start": "2021-07-01", "end": "2021-07-31"}
    recipe = parse_recipe(facts)
    plan = plan_build(recipe)
    reader = open_reader(build_cube(recipe, plan=replace(plan, layers=plan.layers[:1])))
    values, observed = reader.read("landsat", slice(0, 48), slice(0, 64))
    expected = oracle(folder, reader.geobox, "07", Resampling.bilinear)
    seen = expected[0] != 65535
    np.testing.assert_array_equal(observed[0], seen)
    np.testing.assert_allclose(values[0][:, seen], expected[:, seen] * 1e-4, atol=1.01e-4)


def test_gaps_of_a_broken_scanner_stay_gaps(facts: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Stripes of fill in one scene are missing in its composite: neither zero nor filled in from beside."""
    shutil.copytree(folder, tmp_path / "gaps")
    scenes = sorted((tmp_path / "gaps/landsat-c2-l2").glob("*_202108??_*"))
    for scene in scenes:
        for path in scene.glob("*.tif"):
            with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
                values = file.read(1)
                values[:, 12:14] = 1 if path.stem == "qa_pixel" else 0
                file.write(values, 1)
    facts["href"] = str(tmp_path / "gaps/catalog.json")
    facts["modalities"]["landsat"]["source"] = {"hide": []}
    layer, grid = layer_of(facts, "landsat")
    stored = compute_block(layer, grid)[4]
    quality = warped(scenes[0] / "qa_pixel.tif", grid, Resampling.nearest, 1)
    assert (quality == 1).any()
    np.testing.assert_array_equal(stored == 65535, np.broadcast_to(quality == 1, stored.shape))


@pytest.mark.parametrize("dilate", [0, 5])
@pytest.mark.parametrize(
    ("name", "query", "rounding"),
    [("landsat", {}, 1), ("sentinel2", {"s2:mgrs_tile": "31UGS"}, 0)],  # thirds of a 30 m pixel make ties
)
def test_blockwise_equals_the_whole_with_widened_masks(
    facts: dict[str, Any], name: str, query: dict[str, str], rounding: int, dilate: int
) -> None:
    """On a source in the cube's own zone: a warp between zones is only exact to an eighth of a source pixel."""
    facts["modalities"][name]["source"] = {"dilate": dilate, "query": query}
    facts["period"]["end"] = "2021-05-31"
    layer, grid = layer_of(facts, name)
    whole = compute_block(layer, grid).astype(int)
    for y, x in ((slice(0, 20), slice(0, 33)), (slice(17, 48), slice(31, 64)), (slice(47, 48), slice(33, 34))):
        part = compute_block(layer, grid[y, x]).astype(int)
        np.testing.assert_array_equal(part == 65535, whole[..., y, x] == 65535)
        assert np.abs(part - whole[..., y, x]).max() <= rounding


def test_widening_takes_away_and_never_adds(facts: dict[str, Any]) -> None:
    facts["period"]["end"] = "2021-05-31"
    missing = []
    for dilate in (0, 1, 4):
        facts["modalities"]["sentinel2"]["source"] = {"dilate": dilate}
        layer, grid = layer_of(facts, "sentinel2")
        missing.append(compute_block(layer, grid) == 65535)
    assert (missing[0] <= missing[1]).all()
    assert (missing[1] <= missing[2]).all()


def test_options_of_the_mask_decide_the_digest_and_unknown_classes_are_refused(facts: dict[str, Any]) -> None:
    digests = set()
    for source in ({"dilate": 0}, {"dilate": 2}, {"hide": [9]}, {"hide": [9, 10]}):
        facts["modalities"]["sentinel2"]["source"] = source
        layer, grid = layer_of(facts, "sentinel2")
        digests.add(layer.digest(grid))
    assert len(digests) == 4
    facts["modalities"]["sentinel2"]["source"] = {"hide": [12]}
    with pytest.raises(MdicoError, match=r"source.hide names 12"):
        plan_build(parse_recipe(facts))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({}, ""),
        ({"offset": "none"}, "not subtracted"),  # forgets the +1000 of processing baseline 04.00
    ],
)
def test_the_ledger_doubts_a_wrong_offset(facts: dict[str, Any], source: dict[str, str], why: str) -> None:
    facts["period"] = {"start": "2021-03-01", "end": "2021-10-31"}
    facts["modalities"]["sentinel2"] = {"source": source}
    facts["store"] = {"chunk": 16, "shard": 64}
    recipe = parse_recipe(facts)
    plan = plan_build(recipe)
    path = build_cube(recipe, plan=replace(plan, layers=plan.layers[1:]))
    entry = Ledger(path, "sentinel2").read(0, 0)
    assert len(entry.floors) > 4
    late = {scene.item.id for scene in plan.layers[1].scenes if scene.item.properties["s2:processing_baseline"] > "04"}
    doubted = {item for item, text in entry.offsets.items() if " - " in text}
    assert doubted == (late & set(entry.floors) if why else set())
    assert all(why in entry.offsets[item] for item in doubted)
    assert entry.offsets.keys() > entry.floors.keys(), "scenes without clear ground are not judged"


def test_a_second_subtraction_is_doubted(facts: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Counts that were shifted back already, from items that still declare the offset."""
    shutil.copytree(folder, tmp_path / "twice")
    for path in (tmp_path / "twice/sentinel-2-l2a").glob("*/*.json"):
        item = json.loads(path.read_text())
        if item["properties"]["s2:processing_baseline"] < "04":
            item["assets"]["B02"]["raster:bands"][0]["offset"] = -0.1
            path.write_text(json.dumps(item))
    facts["href"] = str(tmp_path / "twice/catalog.json")
    facts["modalities"]["sentinel2"]["source"] = {"offset": "declared"}
    facts["period"] = {"start": "2021-03-01", "end": "2021-05-31"}
    layer, grid = layer_of(facts, "sentinel2")
    notes = Notes()
    compute_block(layer, grid, notes=notes)
    floors = notes.floors
    doubts = judge_floors(floors, dict.fromkeys(floors, False))
    assert doubts
    assert doubts.keys() == {item for item, floor in floors.items() if np.isfinite(floor)}
    assert all("twice" in why for why in doubts.values())
