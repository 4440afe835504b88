"""How a cube is packed: the recipe says it, every reader unpacks it, and a cube that stands keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from mdico_cube.cube import build as build_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.packing import packed_as, packer, zarr2_codec
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.stale import stale_shards
from mdico_cube.errors import MdicoError
from mdico_cube.maps.export import export
from mdico_cube.recipe import Recipe, parse_recipe
from mdico_cube.spec import Array

WHOLE = slice(0, 64), slice(0, 96)
BLOSC = {"id": "blosc", "blocksize": 0}
BITS = BloscCodec(cname="lz4hc", clevel=5, shuffle="bitshuffle")
VARIABLES = {"sentinel2": "reflectance", "sentinel1": "backscatter", "dem": "terrain"}


def recipe_with(facts: dict[str, Any], folder: Path, **store: Any) -> Recipe:
    return parse_recipe({**facts, "output": str(folder), "store": {**facts["store"], **store}})


def codecs(path: Any) -> dict[str, str]:
    reader = CubeReader(path)
    return {name: packed_as(reader.array(name)) for name in reader.modalities}


def referred(file: Path, variable: str) -> Array:
    system = fsspec.filesystem("reference", fo=str(file))
    opened = xr.open_dataset(
        system.get_mapper(""), engine="zarr", zarr_format=2, consolidated=False, mask_and_scale=False
    )
    return np.asarray(opened[variable].values)


def test_pixels_are_the_same_whatever_packs_them(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    """Read directly, by zarr, by xarray, by references as Zarr v2 knows them, and as a copy of GDAL's."""
    paths = {codec: build_cube(recipe_with(recipe_facts, tmp_path / codec, codec=codec)) for codec in ("lz4", "zstd")}
    reader = CubeReader(paths["zstd"], "zarr")
    for codec, path in paths.items():
        assert codecs(path) == dict.fromkeys(VARIABLES, codec)
        tree = xr.open_datatree(path, engine="zarr", consolidated=False, mask_and_scale=False)
        for name, variable in VARIABLES.items():
            array, wanted = CubeReader(path).array(name), reader.stored(name, *WHOLE)
            assert array.compressors[0].typesize == array.dtype.itemsize, "or other bytes would be shuffled"  # type: ignore[union-attr]
            np.testing.assert_array_equal(CubeReader(path).stored(name, *WHOLE), wanted)
            np.testing.assert_array_equal(tree[f"{name}/{variable}"].values.reshape(wanted.shape), wanted)
            refs = export(path, name, tmp_path / f"{codec}-{name}.json")
            np.testing.assert_array_equal(referred(refs, variable).reshape(wanted.shape), wanted)
            assert (Ledger(path, name).digests() == Ledger(paths["zstd"], name).digests()).all()
    copy = export(paths["lz4"], "sentinel2", tmp_path / "copy.zarr")
    with rasterio.open(f'ZARR:"{copy}":/reflectance:1:0') as file:
        np.testing.assert_array_equal(file.read(1), reader.stored("sentinel2", *WHOLE)[1, 0])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_unpacks_chunks_as_they_are_referred_to(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    """References are opened by GDAL 3.11 and later only, but what they refer to is what any GDAL with Blosc unpacks."""
    path = build_cube(recipe_with(recipe_facts, tmp_path, codec="lz4"))
    reader = CubeReader(path)
    values = reader.stored("sentinel2", *WHOLE)
    array = zarr.create_array(
        tmp_path / "v2.zarr", shape=values.shape, chunks=(*values.shape[:2], 16, 16), dtype=values.dtype,
        compressors=[zarr2_codec(reader.array("sentinel2"))], zarr_format=2,
    )  # fmt: skip
    array[:] = values
    with rasterio.open(f'ZARR:"{tmp_path / "v2.zarr"}":/:1:0') as file:
        np.testing.assert_array_equal(file.read(1), values[1, 0])


def test_a_cube_that_stands_keeps_its_codec(
    recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed or grown under a recipe with another one: nothing is stale, and every pixel is read as it was."""
    said: list[str] = []
    monkeypatch.setattr(build_module, "say", said.append)
    few = {
        **recipe_facts,
        "modalities": {name: recipe_facts["modalities"][name] for name in ("sentinel1", "sentinel2")},
    }
    path = build_cube(recipe_with(few, tmp_path, codec="zstd", level=1))
    before = CubeReader(path).stored("sentinel2", *WHOLE)
    other = recipe_with(few, tmp_path, codec="lz4")
    assert stale_shards(path, other) == []
    build_cube(other, resume=True)
    assert any("stands packed by zstd and stays so" in line for line in said)
    assert codecs(path) == {"sentinel1": "zstd", "sentinel2": "zstd"}
    longer = {**recipe_facts, "period": {"start": "2021-01-01", "end": "2021-02-28"}}
    for facts in (recipe_facts, {**longer, "modalities": recipe_facts["modalities"]}):
        build_cube(recipe_with(facts, tmp_path, codec="lz4"), update=True)
        assert codecs(path) == {"sentinel1": "zstd", "sentinel2": "zstd", "dem": "lz4"}
        found = CubeReader(path).stored("sentinel2", *WHOLE)
        np.testing.assert_array_equal(found, before[: len(found)])
    said.clear()
    build_cube(recipe_with(longer, tmp_path), resume=True)
    assert not any("packed" in line for line in said), "a recipe that names no codec asks for none"


def test_a_plan_does_not_ask_for_the_codec(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    plans = [plan_build(recipe_with(recipe_facts, tmp_path, codec=codec)).identity for codec in ("lz4", "zstd")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("codec", "name", "v2"),
    [
        (packer(), "lz4", {**BLOSC, "cname": "lz4", "clevel": 9, "shuffle": 1}),
        (packer("zstd", 22), "zstd", {**BLOSC, "cname": "zstd", "clevel": 9, "shuffle": 1}),
        (packer("zstd"), "zstd", {**BLOSC, "cname": "zstd", "clevel": 3, "shuffle": 1}),
        (BITS, "lz4hc", {**BLOSC, "cname": "lz4hc", "clevel": 5, "shuffle": 2}),
        (ZstdCodec(level=7), "zstd", {"id": "zstd", "level": 7}),
        (None, "", None),
    ],
)  # fmt: skip
def test_zarr_2_calls_it(tmp_path: Path, codec: Any, name: str, v2: Any) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), shards=(8, 8), dtype="uint16",
        compressors=None if codec is None else [codec],
    )  # fmt: skip
    assert (packed_as(array), zarr2_codec(array)) == (name, v2)


def test_a_codec_that_zarr_2_cannot_name_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8,), chunks=(4,), dtype="uint16", compressors=[GzipCodec()])
    with pytest.raises(MdicoError, match="packed by gzip, which cannot be referred to"):
        zarr2_codec(array)


def test_a_codec_that_is_none_is_refused(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match=r"store\.codec"):
        recipe_with(recipe_facts, tmp_path, codec="gzip")
