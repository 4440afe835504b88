"""A standing cube and a plan for more in, the same cube with room for it out: longer, wider or with more modalities."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from mdico_cube.cube.change import writing
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.reader import CubeReader, forget_readers
from mdico_cube.cube.store import create_cube
from mdico_cube.cube.target import Location, open_group
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say, track
from mdico_cube.schema import LEDGER


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


def recover(path: Location) -> None:
    """Put a cube back whose update was stopped between its two renames; clear what an update left."""
    if isinstance(path, Path):
        old, grown = _beside(path)
        with writing(path):
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(grown, ignore_errors=True)


def update_cube(path: Location, plan: BuildPlan, chunk: int, attrs: Mapping[str, Any]) -> None:
    """Make room in a cube for what the plan has more, and carry over every shard and step that stands.

    Files of shards are linked to their new places where time steps are the same; else they are written once more from
    their own values, and nothing is read from a catalog. The larger cube is made beside and put in place at the end.

    Raises:
        MdicoError: the cube lies on no local disk, has another shard or chunk, or the disk is full.
    """
    if not isinstance(path, Path):
        raise MdicoError(f"{path}: only a cube in a local folder can grow. Build the larger one at another place.")
    reader = CubeReader(path)
    if (reader.shard, reader.chunk) != (plan.shard, chunk):
        raise MdicoError(
            f"{path}: has shards of {reader.shard} and chunks of {reader.chunk} pixels. Write them into the recipe."
        )
    gone = [name for name in reader.layers if name not in {layer.modality.name for layer in plan.every}]
    if gone:
        raise MdicoError(f"{path}: holds {', '.join(gone)}, which the recipe lacks. Add them to the recipe.")
    old, grown = _beside(path)
    x, y = (~plan.geobox.affine) * (reader.geobox.affine.c, reader.geobox.affine.f)
    shift = (round(y) // plan.shard, round(x) // plan.shard)
    counts = (-(-plan.geobox.shape.y // plan.shard), -(-plan.geobox.shape.x // plan.shard))
    with writing(path):
        shutil.rmtree(grown, ignore_errors=True)
        layers = [layer.layer for layer in plan.every]
        create_cube(grown, plan.geobox, layers, chunk, plan.shard, attrs, counts, sharded=reader.sharded)
        for layer in layers:
            if layer.modality.name in reader.layers:
                _carry(reader, path, grown, layer, shift, plan)
        path.rename(old)
        grown.rename(path)
        shutil.rmtree(old)
    forget_readers()


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.old"), path.with_name(f".{path.name}.grown")


def _carry(reader: CubeReader, path: Path, grown: Path, layer: Layer, shift: tuple[int, int], plan: BuildPlan) -> None:
    """Bring one modality's shards and their entries over."""
    name, before = layer.modality.name, reader.layers[layer.modality.name]
    if before.modality.band_names != layer.modality.band_names:
        say(f"{name}: other bands than before, so it is built anew")
        return
    if layer.modality.coarse:
        if before == layer:
            _link(path / name, grown / name, (0, 0))
            _link(path / LEDGER / name, grown / LEDGER / name, (0, 0))
        return
    _link(path / LEDGER / name / "entry", grown / LEDGER / name / "entry", shift)
    if (before.steps, before.stops) == (layer.steps, layer.stops):
        parts = 1 if reader.sharded else reader.shard // reader.chunk  # files of a shard along one side
        moved = (parts * shift[0], parts * shift[1])
        _link(path / name / layer.modality.variable, grown / name / layer.modality.variable, moved)
    else:
        _rewrite(reader, path, grown, layer, shift, plan)


def _link(source: Path, target: Path, shift: tuple[int, int]) -> None:
    """Link an array's chunk files to their places in another; the last two numbers are row and column."""
    for file in sorted(source.rglob("c/**/*")):
        if file.is_file() and not file.name.endswith(".partial"):
            parts = list(file.relative_to(source).parts)
            if any(shift):
                parts[-2:] = [str(int(parts[-2]) + shift[0]), str(int(parts[-1]) + shift[1])]
            place = target.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                os.link(file, place)
            except OSError:  # a disk without links
                shutil.copyfile(file, place)


def _rewrite(
    reader: CubeReader, path: Path, grown: Path, layer: Layer, shift: tuple[int, int], plan: BuildPlan
) -> None:
    """Write the shards that stand once more, with room for other time steps."""
    name, before = layer.modality.name, reader.layers[layer.modality.name]
    same = [
        (before.steps.index(step), now)
        for now, step in enumerate(layer.steps)
        if step in before.steps and _stop(before, before.steps.index(step)) == _stop(layer, now)
    ]
    array: Any = open_group(grown, "r+")[f"{name}/{layer.modality.variable}"]
    standing = np.argwhere(np.isin(Ledger(path, name).states(), STANDS))
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


def _stop(layer: Layer, step: int) -> str:
    return layer.stops[step] if layer.stops else ""
