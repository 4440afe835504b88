"""A cube in other programs: references into its shards, a copy in Zarr v2, chunks without shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube import build as build_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.interchange import write_references
from mdico_cube.cube.ledger import DONE, Ledger
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.export import export
from mdico_cube.recipe import parse_recipe

GDAL = tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2])
WHOLE = slice(0, 64), slice(0, 96)
VARIABLES = {"sentinel2": "reflectance", "sentinel1": "backscatter", "dem": "terrain"}


@pytest.fixture
def cube(toy_cube: Path) -> Path:
    """Four steps, two bands of Sentinel-2; its right shard is narrower. Not to be changed."""
    return toy_cube


def by_references(file: Path, variable: str, **s3: str) -> np.ndarray[Any, Any]:
    """The stored values as a program sees them that knows Zarr v2 and references, but neither v3 nor shards."""
    remote = {"remote_protocol": "s3", "remote_options": s3} if s3 else {}
    system = fsspec.filesystem("reference", fo=str(file), **remote)
    opened = xr.open_dataset(
        system.get_mapper(""), engine="zarr", zarr_format=2, consolidated=False, mask_and_scale=False
    )
    return np.asarray(opened[variable].values)


@pytest.mark.parametrize("modality", VARIABLES)
def test_references_lead_to_the_same_values(cube: Path, tmp_path: Path, modality: str) -> None:
    target = export(cube, modality, tmp_path / "deep" / "refs.json")
    found, stored = by_references(target, VARIABLES[modality]), CubeReader(cube).stored(modality, *WHOLE)
    np.testing.assert_array_equal(found.reshape(stored.shape), stored)
    assert [path.name for path in target.parent.iterdir()] == ["refs.json"]
    assert target.stat().st_size < 20_000, "pixels are not copied"


def test_references_hold_what_xarray_makes_of_the_cube(cube: Path, tmp_path: Path) -> None:
    target = write_references(cube, "sentinel2", tmp_path / "refs.json")
    system = fsspec.filesystem("reference", fo=str(target))
    other = xr.open_dataset(system.get_mapper(""), engine="zarr", zarr_format=2, consolidated=False)
    mine = xr.open_zarr(cube, group="sentinel2", consolidated=False)
    xr.testing.assert_allclose(other.reflectance, mine.reflectance.drop_vars("spatial_ref", errors="ignore"))
    assert other.spatial_ref.attrs["crs_wkt"] == CubeReader(cube).attrs["proj:wkt2"]


def test_a_shard_that_does_not_stand_is_left_out(cube: Path, tmp_path: Path) -> None:
    cube = Path(shutil.copytree(cube, tmp_path / "cube.zarr"))
    Ledger(cube, "sentinel2", "r+").forget(0, 1)
    found = by_references(export(cube, "sentinel2", tmp_path / "refs.json"), "reflectance")
    stored = CubeReader(cube).stored("sentinel2", *WHOLE).copy()
    stored[..., 64:] = 65535
    np.testing.assert_array_equal(found, stored)


def test_a_build_leaves_references_where_asked(recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of what stands: whole at the end, gone after a stop, without a shard that fails."""
    recipe = parse_recipe({**recipe_facts, "store": {**recipe_facts["store"], "references": True}})
    cube = build_cube(recipe)
    file = recipe.output / "cube.sentinel2.json"
    stored = CubeReader(cube).stored("sentinel2", *WHOLE).copy()
    assert {path.name for path in recipe.output.glob("*.json")} == {f"cube.{name}.json" for name in VARIABLES}
    np.testing.assert_array_equal(by_references(file, "reflectance"), stored)
    Ledger(cube, "sentinel2", "r+").forget(0, 1)
    for fault, kept in ((KeyboardInterrupt(), False), (MdicoError("no answer."), True)):
        with monkeypatch.context() as patch:
            patch.setattr(build_module, "compute_block", Mock(side_effect=fault))
            with pytest.raises(type(fault)):
                build_cube(recipe, resume=True)
        assert file.exists() == kept
    lacking = stored.copy()
    lacking[..., :32, 32:64] = 65535
    np.testing.assert_array_equal(by_references(file, "reflectance"), lacking)
    build_cube(recipe, resume=True)
    np.testing.assert_array_equal(by_references(file, "reflectance"), stored)
    build_cube(parse_recipe(recipe_facts), resume=True)
    assert list(recipe.output.glob("*.json")) == [], "none is left that a later build would make wrong"


@pytest.mark.parametrize("store", [{"kind": "icechunk"}, {"target": "icechunk+s3://there/cube"}, {"layout": "plain"}])
def test_references_that_lead_nowhere_are_refused(recipe_facts: dict[str, Any], store: dict[str, str]) -> None:
    with pytest.raises(MdicoError, match="references lead into"):
        parse_recipe({**recipe_facts, "store": {**store, "references": True}})


def test_references_into_a_bucket(
    recipe_facts: dict[str, Any], place: Callable[[str], Location], tmp_path: Path, s3_environment: dict[str, str]
) -> None:
    store = {**recipe_facts["store"], "target": str(place("s3"))}
    where = build_cube(parse_recipe({**recipe_facts, "store": store}))
    target = export(where, "sentinel2", tmp_path / "refs.json")
    text = target.read_text()
    assert s3_environment["AWS_ENDPOINT_URL"] not in text
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in text
    refs = json.loads(text)["refs"]
    address, offset, length = refs["reflectance/0.0.0.0"]
    assert address == f"{where}/sentinel2/reflectance/c/0/0/0/0"
    assert offset >= 0 < length
    pieces = sum(isinstance(one, list) for one in refs.values())
    assert pieces == 24, "64 x 96 pixels in chunks of 16"


@pytest.mark.skipif(GDAL < (3, 11), reason="GDAL reads references from 3.11 on")
def test_gdal_opens_references(cube: Path, tmp_path: Path) -> None:
    with rasterio.open(export(cube, "sentinel2", tmp_path / "refs.json")) as file:
        stored = CubeReader(cube).stored("sentinel2", *WHOLE)
        np.testing.assert_array_equal(file.read(), stored.reshape(-1, *stored.shape[2:]))
        check_place(file, cube)


def check_place(file: rasterio.DatasetReader, cube: Path) -> None:
    geobox = CubeReader(cube).geobox
    assert (file.crs, file.transform) == (rasterio.CRS.from_epsg(32631), geobox.affine)
    assert (file.nodata, file.scales[0], file.offsets[0]) == (65535, 1e-4, 0)


def test_gdal_opens_a_copy(cube: Path, tmp_path: Path) -> None:
    """GDAL from 3.4 on, and so every QGIS that is about."""
    target = export(cube, "sentinel2", tmp_path / "copy.zarr")
    stored = CubeReader(cube).stored("sentinel2", *WHOLE)
    with rasterio.open(target) as file:
        (listed,) = [name for name in file.subdatasets if name.endswith("/reflectance")]
    with rasterio.open(listed) as file:
        np.testing.assert_array_equal(file.read(), stored.reshape(-1, *stored.shape[2:]))
    for step, band in np.ndindex(4, 2):
        with rasterio.open(f'ZARR:"{target}":/reflectance:{step}:{band}') as file:
            np.testing.assert_array_equal(file.read(1), stored[step, band])
            check_place(file, cube)
    mine = xr.open_zarr(cube, group="sentinel2", consolidated=False).reflectance
    np.testing.assert_array_equal(xr.open_zarr(target, zarr_format=2).reflectance, mine)


def test_a_copy_of_one_step(cube: Path, tmp_path: Path) -> None:
    target = export(cube, "sentinel1", tmp_path / "copy.zarr", "2021-02")
    with rasterio.open(f'ZARR:"{target}":/backscatter:0:1') as file:
        np.testing.assert_array_equal(file.read(1), CubeReader(cube).stored("sentinel1", *WHOLE)[1, 1])
    with pytest.raises(MdicoError, match="is there already"):
        export(cube, "sentinel1", target)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("out.png", None, "Give a name with one of these endings"),
        ("out.json", "2021-02", "leave --step out"),
        ("out.zarr", "2022", "fits 0 steps"),
    ],
)
def test_what_cannot_be_exported(cube: Path, tmp_path: Path, name: str, step: str | None, said: str) -> None:
    with pytest.raises(MdicoError, match=said):
        export(cube, "sentinel2", tmp_path / name, step)


@pytest.fixture
def plain(recipe_facts: dict[str, Any]) -> Path:
    path = build_cube(parse_recipe({**recipe_facts, "store": {**recipe_facts["store"], "layout": "plain"}}))
    assert isinstance(path, Path)
    return path


def test_a_plain_cube_is_the_same_without_shards(plain: Path, cube: Path, tmp_path: Path) -> None:
    reader = CubeReader(plain)
    assert not reader.sharded
    for name in VARIABLES:
        values, steps = reader.stored(name, *WHOLE), len(reader.steps(name))
        np.testing.assert_array_equal(values[:, :2], CubeReader(cube).stored(name, *WHOLE)[:steps, :2])
        assert "sharding" not in (plain / name / VARIABLES[name] / "zarr.json").read_text()
        assert (Ledger(plain, name).states() == DONE).all()
    assert len(list((plain / "sentinel2" / "reflectance" / "c").rglob("*/*/*/*"))) == 24, "a file per chunk"
    with pytest.raises(MdicoError, match="opens it as it is"):
        export(plain, "sentinel2", tmp_path / "refs.json")


@pytest.mark.skipif(GDAL < (3, 12), reason="GDAL reads Zarr v3 of today from 3.12 on")
def test_gdal_opens_a_plain_cube(plain: Path) -> None:
    for step, band in np.ndindex(3, 2):
        with rasterio.open(f'ZARR:"{plain}":/sentinel2/reflectance:{step}:{band}') as file:
            np.testing.assert_array_equal(file.read(1), CubeReader(plain).stored("sentinel2", *WHOLE)[step, band])
            check_place(file, plain)


def test_the_command_says_what_it_wrote(cube: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["export", str(cube), "dem", str(tmp_path / "dem.json")])
    assert said.exit_code == 0, said.output
    assert "dem.json" in said.output
