"""The small run of tests/maps, mapped with and without probabilities, and the explorer served on loopback."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Loopback
from starlette.routing import Mount

import mdico_cube as mdico
from mdico_cube.maps.write import map_path, write_map
from mdico_cube.progress import console

_spec = importlib.util.spec_from_file_location("small_run", Path(__file__).parents[1] / "maps" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
small_run = importlib.util.module_from_spec(_spec)
sys.modules["small_run"] = small_run
_spec.loader.exec_module(small_run)


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: cube, bundles, one map that keeps probabilities (Sentinel-1) and one that does not."""
    console.quiet = True
    out = tmp_path_factory.mktemp("explored")
    small_run.make_cube(out / "cube.zarr")
    small_run.make_bundles(out / "bundles" / "mdico" / "seed-0", "mdico", 0)
    for modality, outputs in (("sentinel1", ["probabilities"]), ("sentinel2", [])):
        bundle = out / "bundles" / "mdico" / "seed-0" / modality
        write_map(out / "cube.zarr", bundle, map_path(out, "mdico", modality, 0), pixels=256, outputs=outputs)
    return out


@pytest.fixture(scope="session")
def maps(out: Path) -> list[Path]:
    return [map_path(out, "mdico", modality, 0) for modality in ("sentinel1", "sentinel2")]


@pytest.fixture(scope="module")
def address(out: Path, maps: list[Path]) -> Iterator[str]:
    with Loopback(Mount("/", mdico.explorer_app(out / "cube.zarr", maps))) as server:
        yield server.address
