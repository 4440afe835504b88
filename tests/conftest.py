"""Small worlds for the tests: a catalog of GeoTIFFs with known pixels, a cube, labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from card import pretended
from hypothesis import settings
from odc.geo.geobox import GeoBox
from toy_world import BOUNDS, S2_BANDS, SIZE, STEPS, World, toy_counts, write_tiff

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.grid import grid_for
from mdico_cube.patches.labels import label_cube
from mdico_cube.progress import console
from mdico_cube.recipe import Area, Recipe, parse_recipe

settings.register_profile("shared", deadline=None, derandomize="CI" in os.environ)  # the gate repeats itself
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on a card is found by the marker gpu."""
    for item in items:
        if "card" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    console.quiet = True


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The first card; where there is none, one that computes on the processor and refuses what a card refuses."""
    if torch.cuda.is_available():
        yield torch.device("cuda", 0)
    else:
        with pretended(monkeypatch) as device:
            yield device


@pytest.fixture(scope="session")
def grid() -> GeoBox:
    return grid_for(Area(bounds=BOUNDS, crs="EPSG:32631"))


@pytest.fixture(scope="session")
def toy_catalog(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> Path:
    """Three months of Sentinel-1 and Sentinel-2 and one terrain tile; see `toy_counts` for the pixels."""
    world = World(tmp_path_factory.mktemp("toy"), grid)
    s2, s1, dem = (world.collection(name) for name in ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"))
    generator = np.random.default_rng(0)
    for month in range(1, STEPS + 1):
        for day in (5, 15, 25):
            baseline = "03.01" if month < 3 else "04.00"
            shift = 1000 * (month >= 3)
            counts = {band: toy_counts(month, day, band) + shift for band in S2_BANDS}
            scl = np.full(SIZE, 4, dtype=np.uint8)
            if day == 15:  # a bright cloud: it shows in the composite unless the mask is heeded
                scl[:8] = 9
                for values in counts.values():
                    values[:8] = 9000
            world.item(
                s2,
                f"S2_2021{month:02d}{day:02d}",
                f"2021-{month:02d}-{day:02d}T10:30:00Z",
                {**{band: values.astype(np.uint16) for band, values in counts.items()}, "SCL": scl},
                {"s2:processing_baseline": baseline, "s2:mgrs_tile": "31UGS", "platform": "sentinel-2a"},
            )
            power = generator.gamma(4, 0.02, (2, *SIZE)).astype(np.float32)
            world.item(
                s1,
                f"S1_2021{month:02d}{day:02d}",
                f"2021-{month:02d}-{day:02d}T06:00:00Z",
                {"vv": power[0], "vh": power[1] / 4},
                {"sat:orbit_state": "ascending"},
                nodata=-32768,
            )
    rows, columns = np.mgrid[0:84, 0:116]
    height = (100 + 0.5 * columns + 0.2 * rows).astype(np.float32)
    world.item(dem, "DEM", "2021-01-01T00:00:00Z", {"data": height}, nodata=-32767, grid=grid.pad(10))
    return world.save()


@pytest.fixture(scope="session")
def toy_labels(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> Path:
    """Stripes of two classes, 1 and 2, and an unlabelled column."""
    path = tmp_path_factory.mktemp("labels") / "labels.tif"
    values = (np.indices(SIZE)[1] // 6 % 2 + 1).astype(np.uint8)
    values[:, 40] = 0
    write_tiff(path, values, grid)
    return path


def toy_facts(catalog: Path, labels: Path, output: Path) -> dict[str, Any]:
    return {
        "name": "toy",
        "output": str(output),
        "area": {"bounds": list(BOUNDS), "crs": "EPSG:32631"},
        "period": {"start": "2021-01-01", "end": "2021-03-31"},
        "catalog": "local",
        "href": str(catalog),
        "modalities": {"sentinel1": {}, "sentinel2": {"bands": list(S2_BANDS)}, "dem": {}},
        "labels": {
            "path": str(labels),
            "classes": [{"name": "odd", "source": 1}, {"name": "even", "source": 2}],
        },
        "samples": {"block": 16, "guard": 1, "per_class": 60},
        "colearn": {
            "modalities": ["sentinel1", "sentinel2"],
            "encoder": {"width": 8, "hidden": 8, "dense": 16},
            "train": {"epochs": 2, "batch": 32, "accelerator": "cpu"},
        },
        "store": {"chunk": 16, "shard": 32, "durable": False},
    }


@pytest.fixture
def recipe_facts(toy_catalog: Path, toy_labels: Path, tmp_path: Path) -> dict[str, Any]:
    """A whole recipe as a mapping, to be changed by a test."""
    return toy_facts(toy_catalog, toy_labels, tmp_path / "out")


@pytest.fixture(scope="session")
def standing(toy_catalog: Path, toy_labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube of the unchanged recipe, built once for all tests that only look at it."""
    path = build_cube(parse_recipe(toy_facts(toy_catalog, toy_labels, tmp_path_factory.mktemp("standing") / "out")))
    assert isinstance(path, Path)
    return path


@pytest.fixture
def copied(standing: Path, recipe: Recipe) -> Path:
    """A copy of it where the recipe would build, to be changed by a test."""
    shutil.copytree(standing.parent, recipe.output)
    return recipe.output / "cube.zarr"


@pytest.fixture
def recipe(recipe_facts: dict[str, Any]) -> Recipe:
    return parse_recipe(recipe_facts)


@pytest.fixture(scope="session")
def toy_cube(tmp_path_factory: pytest.TempPathFactory, toy_catalog: Path, toy_labels: Path) -> Path:
    recipe = parse_recipe(
        {
            "name": "toy",
            "output": str(tmp_path_factory.mktemp("cube")),
            "area": {"bounds": [700000, 5600000, 700960, 5600640], "crs": "EPSG:32631"},
            "period": {"start": "2021-01-01", "end": "2021-04-30"},
            "catalog": "local",
            "href": str(toy_catalog),
            "modalities": {"sentinel1": {}, "sentinel2": {"bands": ["B04", "B08"]}, "dem": {}},
            "labels": {"path": str(toy_labels), "classes": [{"name": "a", "source": 1}, {"name": "b", "source": 2}]},
            "colearn": {"modalities": ["sentinel1", "sentinel2"]},
            "store": {"chunk": 16, "shard": 64, "durable": False},
        }
    )
    path = build_cube(recipe)
    label_cube(path, recipe.labels)
    return path
