"""One sensor of a cube in, a form out that more programs open: references into its shards, or a copy in Zarr v2."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from mdico_cube.cube.change import writing
from mdico_cube.cube.grid import shards
from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.packing import zarr2_codec
from mdico_cube.cube.reader import CubeReader, forget_readers, open_reader
from mdico_cube.cube.shards import NOWHERE
from mdico_cube.cube.store import GRID_MAPPING
from mdico_cube.cube.target import Location, is_icechunk, keys_under, read_key
from mdico_cube.errors import MdicoError
from mdico_cube.progress import track
from mdico_cube.schema import STATIC, TEMPORAL

PLANE = 512
"""Side of a chunk of a copy in pixels: one band of one step, as maps are looked at."""
_CHECKSUM = 4  # bytes after a shard's index
_AT_ONCE = 32  # indexes read at once


def write_references(cube: Location, modality: str, target: Path) -> Path:
    """Write a small JSON file through which other programs read a cube's own shards; no pixel is copied.

    Kerchunk references, version 1: GDAL from 3.11 on opens the file as a raster of steps x bands, xarray opens it with
    fsspec's "reference" file system. Shards that are built again later want the file written again.

    Args:
        cube: in a folder or on S3.
        modality: which sensor.
        target: the file; one that is there is replaced.

    Raises:
        MdicoError: no such cube or sensor, an icechunk repository, or arrays that need no references.
    """
    reader = open_reader(cube)
    array, place = reader.array(modality), reader.path
    if is_icechunk(place):
        raise MdicoError(f"{place}: an icechunk repository has no files to refer to. Export to a .zarr or .tif.")
    if array.shards is None:
        raise MdicoError(f"{place}: {modality} has no shards: GDAL from 3.12 on opens it as it is, without references.")
    draft = MemoryStore()
    _template(draft, reader, modality, range(len(reader.steps(modality))), array.chunks, zarr2_codec(array), ".")
    refs: dict[str, Any] = {key: _inline(read_key(draft, key) or b"") for key in sorted(keys_under(draft))}
    variable = reader.modalities[modality].variable
    standing = np.argwhere(np.isin(Ledger(place, modality).states(), STANDS))
    for key, index in sync(_indexes(array, [(int(row), int(column)) for row, column in standing])):
        home = [int(part) for part in key.rsplit("/c/", 1)[1].split("/")]
        for inside in itertools.product(*map(range, index.shape[:-1])):
            offset, length = index[inside]
            if offset != NOWHERE:
                at = (each * per + one for each, per, one in zip(home, index.shape, inside, strict=False))
                refs[f"{variable}/{'.'.join(map(str, at))}"] = [_address(place, key), int(offset), int(length)]
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        part.write_text(json.dumps({"version": 1, "refs": refs}), encoding="utf-8")
        part.replace(target)
    return target


def reference_file(folder: Path, modality: str) -> Path:
    """Where a build keeps the references of a sensor."""
    return folder / f"cube.{modality}.json"


@contextmanager
def referring(cube: Location, folder: Path, modalities: Sequence[str], wanted: bool) -> Iterator[None]:
    """Reference files that lead to no wrong byte: gone while a cube is built, there again when all or some stands.

    A stop leaves none; the build that goes on writes them.

    Args:
        cube: in a folder or on S3.
        folder: where the files lie.
        modalities: sensors that are built meanwhile.
        wanted: False only removes files of earlier builds.

    Raises:
        MdicoError: the files cannot be written.
    """
    with writing(folder):
        for name in modalities:
            reference_file(folder, name).unlink(missing_ok=True)
    try:
        yield
    except MdicoError:  # some shards could not be built: the others are worth a look
        with suppress(MdicoError):
            _refer(cube, folder, modalities if wanted else ())
        raise
    _refer(cube, folder, modalities if wanted else ())


def _refer(cube: Location, folder: Path, modalities: Sequence[str]) -> None:
    forget_readers()
    for name in modalities:
        if open_reader(cube).array(name).shards is not None:  # coarse grids and plain cubes open as they are
            write_references(cube, name, reference_file(folder, name))


def write_zarr2(cube: Location, modality: str, target: Path, steps: Sequence[int] | None = None) -> Path:
    """Copy a sensor's steps to a Zarr v2 folder, which GDAL from 3.4 on opens, and so every QGIS of today.

    Chunks hold one band of one step, packed with zlib, which no build of GDAL lacks. Memory holds one shard at a time.

    Args:
        cube: where the cube lies.
        modality: which sensor; a coarse one is interpolated to the cube's grid.
        target: the folder; none may be there.
        steps: numbers of the time steps; default: every one.

    Raises:
        MdicoError: no such cube or sensor, the folder is there, or it cannot be written.
    """
    if target.exists():
        raise MdicoError(f"{target}: is there already. Choose another name or remove it yourself.")
    reader = open_reader(cube)
    wanted = list(range(len(reader.steps(modality)))) if steps is None else list(steps)
    temporal = reader.modalities[modality].temporal
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    side = min(PLANE, reader.shard)
    chunks = (1, 1, side, side)[0 if temporal else 1 :]
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            store = LocalStore(draft)
            array = _template(store, reader, modality, wanted, chunks, {"id": "zlib", "level": 4}, "/")
            blocks = list(shards(reader.shape, reader.shard))
            for one in track(blocks, f"copy of {modality}", len(blocks)):
                values = reader.stored(modality, one.y, one.x)[wanted]
                array[..., one.y, one.x] = values if temporal else values[0]
            zarr.consolidate_metadata(store, zarr_format=2)
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _template(
    store: Store,
    reader: CubeReader,
    modality: str,
    steps: Sequence[int],
    chunks: tuple[int, ...],
    compressor: dict[str, Any] | None,
    separator: str,
) -> zarr.Array[Any]:
    """Metadata and coordinates of a Zarr v2 group with one sensor; its array, empty."""
    described = reader.modalities[modality]
    storage = described.storage
    group = zarr.create_group(store, zarr_format=2, attributes={"Conventions": "CF-1.11", "title": described.title})
    dims = TEMPORAL if described.temporal else STATIC
    affine, wkt = reader.geobox.affine, str(reader.attrs["proj:wkt2"])
    height, width = reader.shape
    for name, start, step, count in (("y", affine.f, affine.e, height), ("x", affine.c, affine.a, width)):
        _coordinate(group, name, start + step * (np.arange(count) + 0.5), _axis_attrs(reader, name))
    _coordinate(group, "band", np.array(described.band_names), {})
    lead: tuple[int, ...] = (len(described.bands),)
    if described.temporal:
        days = np.array([reader.steps(modality)[one] for one in steps], dtype="datetime64[D]").astype("int64")
        _coordinate(group, "time", days, {"units": "days since 1970-01-01", "calendar": "standard"})
        lead = (len(steps), *lead)
    grid = group.create_array(GRID_MAPPING, shape=(), dtype="int64", fill_value=0)
    transform = " ".join(map(repr, (affine.c, affine.a, affine.b, affine.f, affine.d, affine.e)))
    grid.attrs.update({"crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": transform, "_ARRAY_DIMENSIONS": []})
    missing = float(storage.missing) if np.isnan(storage.missing) else storage.missing
    array = group.create_array(
        described.variable,
        shape=(*lead, height, width),
        dtype="float32" if described.coarse else storage.dtype,
        chunks=tuple(min(side, whole) for side, whole in zip(chunks, (*lead, height, width), strict=True)),
        compressors=None if compressor is None else [compressor],
        fill_value=missing,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )
    array.attrs.update(
        {
            "_ARRAY_DIMENSIONS": list(dims),
            "long_name": described.title,
            "units": ", ".join(dict.fromkeys(described.units)),
            "grid_mapping": GRID_MAPPING,
            "_CRS": {"wkt": wkt},  # where GDAL before 3.9 looks
            **({} if np.isnan(missing) else {"_FillValue": missing}),
            **({} if storage.scale == 1 else {"scale_factor": storage.scale, "add_offset": 0.0}),
        }
    )
    return array


def _coordinate(group: zarr.Group, name: str, values: npt.NDArray[Any], attrs: dict[str, str]) -> None:
    made = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=None)
    made[...] = values
    made.attrs.update({**attrs, "_ARRAY_DIMENSIONS": [name]})


def _axis_attrs(reader: CubeReader, name: str) -> dict[str, str]:
    crs = reader.geobox.crs
    if crs is not None and crs.geographic:
        return {"standard_name": "latitude", "units": "degrees_north"} if name == "y" else {
            "standard_name": "longitude", "units": "degrees_east"
        }  # fmt: skip
    return {"standard_name": f"projection_{name}_coordinate", "units": "metre"}


def _inline(content: bytes) -> str:
    """A small file as a reference file holds it."""
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"


def _address(place: Location, key: str) -> str:
    return (place / key).as_posix() if isinstance(place, Path) else f"{place}/{key}"


async def _indexes(
    array: zarr.Array[Any], standing: Sequence[tuple[int, int]]
) -> list[tuple[str, npt.NDArray[np.uint64]]]:
    """Key of each shard that stands and its index (chunks of the shard ..., 2): offset and length."""
    assert array.shards is not None
    per_shard = tuple(whole // part for whole, part in zip(array.shards, array.chunks, strict=True))
    length = 16 * prod(per_shard) + _CHECKSUM
    store, free = array.store_path.store, asyncio.Semaphore(_AT_ONCE)

    async def read(row: int, column: int) -> tuple[str, npt.NDArray[np.uint64]] | None:
        lead = "0/" * (array.ndim - 2)
        key = f"{array.path}/c/{lead}{row}/{column}"
        async with free:
            tail = await store.get(key, default_buffer_prototype(), SuffixByteRequest(length))
        if tail is None:  # every pixel is missing: no file is written
            return None
        index = np.frombuffer(tail.to_bytes()[:-_CHECKSUM], dtype="<u8")
        return key, index.reshape(*per_shard, 2)

    found = await asyncio.gather(*(read(*place) for place in standing))
    return [one for one in found if one is not None]
