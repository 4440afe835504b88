"""A step of a cube as a GeoTIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from mdico_cube.cube.layer import Layer
from mdico_cube.cube.store import create_cube
from mdico_cube.cube.target import open_group
from mdico_cube.errors import MdicoError
from mdico_cube.maps.export import export_step
from mdico_cube.sensors.registry import SENSORS

STEPS = ("2021-01-01", "2021-02-01", "2021-02-11")


@pytest.fixture
def cube(tmp_path: Path, grid: GeoBox) -> Path:
    path = tmp_path / "cube.zarr"
    layers = [Layer(SENSORS["sentinel1"].modality, STEPS), Layer(SENSORS["dem"].modality, ("",))]
    create_cube(path, grid, layers, 16, 32, {"mdico_recipe": "{}"}, (2, 3))
    rng, group = np.random.default_rng(0), open_group(path, "r+")
    group["sentinel1/backscatter"][:] = rng.integers(-3000, 0, (3, 2, 64, 96)).astype(np.int16)  # type: ignore[index]
    group["dem/terrain"][:] = rng.normal(size=(4, 64, 96)).astype(np.float32)  # type: ignore[index]
    return path


def test_a_step_comes_back_from_the_file(cube: Path, tmp_path: Path, grid: GeoBox) -> None:
    target = export_step(cube, "sentinel1", tmp_path / "deep" / "january.tif", "2021-01")
    with rasterio.open(target) as file:
        np.testing.assert_array_equal(file.read(), open_group(cube)["sentinel1/backscatter"][0])  # type: ignore[index]
        assert file.crs == grid.crs
        assert file.transform == grid.affine
        assert (file.nodata, file.scales, file.offsets) == (-32768, (0.01, 0.01), (0.0, 0.0))
        assert [name.split(":")[0] for name in file.descriptions] == ["vv", "vh"]
        assert file.units == ("dB", "dB")
        assert file.tags()["step"] == "2021-01-01"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert [path.name for path in target.parent.iterdir()] == ["january.tif"]


def test_terrain_needs_no_step(cube: Path, tmp_path: Path) -> None:
    with rasterio.open(export_step(cube, "dem", tmp_path / "dem.tif")) as file:
        np.testing.assert_array_equal(file.read(), open_group(cube)["dem/terrain"][:])  # type: ignore[index]
        assert np.isnan(file.nodata)


@pytest.mark.parametrize(
    ("modality", "step", "said"),
    [
        ("landsat", None, "has no landsat"),
        ("sentinel1", None, "no step was named"),
        ("sentinel1", "2021-02", "fits 2 steps"),
        ("sentinel1", "2022", "fits 0 steps"),
    ],
)
def test_what_cannot_be_exported(cube: Path, tmp_path: Path, modality: str, step: str | None, said: str) -> None:
    with pytest.raises(MdicoError, match=said):
        export_step(cube, modality, tmp_path / "out.tif", step)
    assert not (tmp_path / "out.tif").exists()
