"""The toy world's cube, for every test of the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdico_cube.cube.build import build_cube
from mdico_cube.patches.labels import label_cube
from mdico_cube.recipe import parse_recipe


@pytest.fixture(scope="session")
def cube(tmp_path_factory: pytest.TempPathFactory, toy_catalog: Path, toy_labels: Path) -> Path:
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
            "store": {"chunk": 16, "shard": 64},
        }
    )
    path = build_cube(recipe)
    label_cube(path, recipe.labels)
    return path
