"""A standing cube and a plan for more in, the same cube with room for it out: longer, wider or with more modalities."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from zarr.abc.codec import BytesBytesCodec
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from mdico_cube.cube.block import settle
from mdico_cube.cube.change import changing, copy_keys, delete_keys, put_objects, writing
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.reader import CubeReader, forget_readers
from mdico_cube.cube.store import create_cube, lay_out
from mdico_cube.cube.target import (
    Location,
    Target,
    beside,
    is_icechunk,
    keys_under,
    open_group,
    open_store,
    read_key,
    write_key,
)
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say, track
from mdico_cube.schema import LEDGER

_WHOLE = "mdico-whole"
"""Marks a larger cube on an object store that only waits to be put in place."""


def cover(stands: GeoBox, wanted: GeoBox, shard: int) -> GeoBox:
    """The grid that stands, grown until it covers the wanted one; on its upper and left side by whole shards.

    Raises:
        MdicoError: they have another CRS, another resolution, or pixels that do not fall on each other.
    """
    x, y = (~stands.affine) * (wanted.affine.c, wanted.affine.f)
    scale = (~stands.affine) * wanted.affine
    left, top = round(x), round(y)
    turned = max(abs(scale.a - 1), abs(scale.e - 1), abs(scale.b), abs(scale.d)) > 1e-9
    if stands.crs != wanted.crs or turned or max(abs(x - left), abs(y - top)) > 1e-3:
        raise MdicoError(
            "the cube stands on pixels of another CRS, size or place than the recipe's area, so it cannot grow to it. "
            "Use the cube's crs and resolution, or another output."
        )
    up, west = (-(-max(0, -first) // shard) * shard for first in (top, left))
    bottom = max(stands.shape.y, top + wanted.shape.y)
    right = max(stands.shape.x, left + wanted.shape.x)
    affine = stands.affine * type(stands.affine).translation(-west, -up)
    return GeoBox((bottom + up, right + west), affine, wanted.crs)  # spelled as in the recipe: digests name it


def recover(path: Location) -> bool:
    """Finish or undo an update that was stopped; True where that brought a cube back to its place."""
    if is_icechunk(path):
        return False  # a commit is there or it is not
    old, grown = beside(path, "old"), beside(path, "grown")
    with writing(path):
        if not isinstance(path, Path):
            store = open_store(grown, "r+")
            whole = read_key(store, _WHOLE) is not None
            if whole:
                _switch_objects(path, grown)
            else:
                delete_keys(store, keys_under(store))
            return whole
        assert isinstance(old, Path)
        assert isinstance(grown, Path)
        back = old.exists() and not path.exists()
        if back:
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(grown, ignore_errors=True)
    return back


def update_cube(path: Location, plan: BuildPlan, chunk: int, attrs: Mapping[str, Any], packed: BytesBytesCodec) -> None:
    """Make room in a cube for what the plan has more, and carry over every shard and step that stands.

    What stands keeps its codec; modalities that come anew are `packed` so.

    Shards keep their bytes where time steps are the same: their files are linked, their objects copied. Else they are
    written once more from their own values. Nothing is read from a catalog. In a folder and on S3 the larger cube is
    made beside and put in place at the end; an icechunk repository takes it in one commit.

    Raises:
        MdicoError: the cube has another shard or chunk, or modalities the plan lacks, or the place cannot be written.
    """
    reader = CubeReader(path)
    if (reader.shard, reader.chunk) != (plan.shard, chunk):
        raise MdicoError(
            f"{path}: has shards of {reader.shard} and chunks of {reader.chunk} pixels. Write them into the recipe."
        )
    gone = [name for name in reader.layers if name not in {layer.modality.name for layer in plan.every}]
    if gone:
        raise MdicoError(f"{path}: holds {', '.join(gone)}, which the recipe lacks. Add them to the recipe.")
    layers = [layer.layer for layer in plan.every]
    counts = (-(-plan.geobox.shape.y // plan.shard), -(-plan.geobox.shape.x // plan.shard))
    stands: dict[str, Any] = {name: reader.array(name).compressors for name in reader.layers}
    packing = {layer.modality.name: stands.get(layer.modality.name, [packed]) for layer in layers}
    facts = (plan.geobox, layers, chunk, plan.shard, attrs, counts)
    grown = beside(path, "grown")
    with writing(path):
        if is_icechunk(path):
            draft = MemoryStore()
            lay_out(draft, *facts, packing=packing, sharded=reader.sharded)
            with changing(path, "grown", metadata=True) as change:
                sync(open_store(change.target, "a").clear())
                copy_keys(draft, open_store(change.target, "a"))
                _carry_all(reader, change.target, layers, plan)
        else:
            recover(path)
            create_cube(grown, *facts, packing=packing, sharded=reader.sharded)
            _carry_all(reader, grown, layers, plan)
            if isinstance(path, Path):
                _switch_folders(path, grown)
            else:
                write_key(open_store(grown, "a"), _WHOLE, b"")
                _switch_objects(path, grown)
    forget_readers()


def _switch_folders(path: Path, grown: Location) -> None:
    old = beside(path, "old")
    assert isinstance(old, Path)
    path.rename(old)
    Path(grown).rename(path)
    shutil.rmtree(old)


def _switch_objects(address: str, grown: Location) -> None:
    """Put the larger cube in place, which must be whole: when this is stopped, the next builder does it again."""
    store = open_store(grown, "a")
    put_objects(store, address)
    delete_keys(open_store(address, "a"), [_WHOLE])
    delete_keys(store, [key for key in keys_under(store) if key != _WHOLE])
    delete_keys(store, [_WHOLE])


def _carry_all(reader: CubeReader, grown: Target, layers: Sequence[Layer], plan: BuildPlan) -> None:
    x, y = (~plan.geobox.affine) * (reader.geobox.affine.c, reader.geobox.affine.f)
    shift = (round(y) // plan.shard, round(x) // plan.shard)
    for layer in layers:
        if layer.modality.name in reader.layers:
            _carry(reader, grown, layer, shift, plan)


def _carry(reader: CubeReader, grown: Target, layer: Layer, shift: tuple[int, int], plan: BuildPlan) -> None:
    """Bring one modality's shards and their entries over."""
    name, before = layer.modality.name, reader.layers[layer.modality.name]
    if before.modality.band_names != layer.modality.band_names:
        say(f"{name}: other bands than before, so each of its shards is stale and built anew")
        return
    if layer.modality.coarse:
        if before == layer:
            _bring(reader.path, grown, name, (0, 0))
            _bring(reader.path, grown, f"{LEDGER}/{name}", (0, 0))
        return
    _bring(reader.path, grown, f"{LEDGER}/{name}/entry", shift)
    if (before.steps, before.stops) == (layer.steps, layer.stops):
        parts = 1 if reader.sharded else reader.shard // reader.chunk  # files of a shard along one side
        _bring(reader.path, grown, f"{name}/{layer.modality.variable}", (parts * shift[0], parts * shift[1]))
    else:
        _rewrite(reader, grown, layer, shift, plan)


def _bring(path: Location, grown: Target, prefix: str, shift: tuple[int, int]) -> None:
    """Chunks under a prefix to their places in the larger cube; the last two numbers of a key are row and column."""
    source = open_store(path)
    names = {}
    for key in keys_under(source, f"{prefix}/"):
        home, _, numbers = key.rpartition("/c/")
        if home and not key.endswith(".partial"):
            parts = numbers.split("/")
            if any(shift):
                parts[-2:] = [str(int(parts[-2]) + shift[0]), str(int(parts[-1]) + shift[1])]
            names[key] = f"{home}/c/{'/'.join(parts)}"
        elif key.endswith("/c"):  # an array without dimensions
            names[key] = key
    if isinstance(path, Path) and isinstance(grown, Path):
        for key, name in names.items():
            _link(path / key, grown / name)
    else:
        copy_keys(source, open_store(grown, "a"), names)


def _link(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(file, place)
    except OSError:  # a disk without links
        shutil.copyfile(file, place)


def _rewrite(reader: CubeReader, grown: Target, layer: Layer, shift: tuple[int, int], plan: BuildPlan) -> None:
    """Write the shards that stand once more, with room for other time steps."""
    name, before = layer.modality.name, reader.layers[layer.modality.name]
    same = [
        (before.steps.index(step), now)
        for now, step in enumerate(layer.steps)
        if step in before.steps and _stop(before, before.steps.index(step)) == _stop(layer, now)
    ]
    array: Any = open_group(grown, "r+")[f"{name}/{layer.modality.variable}"]
    standing = np.argwhere(np.isin(Ledger(reader.path, name).states(), STANDS))
    for row, column in track(standing, f"room for {name}", len(standing)):
        shard = plan.shard_at(int(row) + shift[0], int(column) + shift[1])
        top, left = int(row) * reader.shard, int(column) * reader.shard
        values = reader.stored(
            name,
            slice(top, min(top + reader.shard, reader.shape[0])),
            slice(left, min(left + reader.shard, reader.shape[1])),
        )
        shape = (len(layer.steps), values.shape[1], shard.y.stop - shard.y.start, shard.x.stop - shard.x.start)
        block = np.full(shape, layer.modality.storage.missing, dtype=values.dtype)
        for then, now in same:
            block[now, :, : values.shape[2], : values.shape[3]] = values[then]
        array[..., shard.y, shard.x] = block
        settle(array, shard.y, shard.x)


def _stop(layer: Layer, step: int) -> str:
    return layer.stops[step] if layer.stops else ""
