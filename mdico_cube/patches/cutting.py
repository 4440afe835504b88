"""Chosen windows in, a samples store out: shard by shard through Dask, each written whole; a stopped run goes on.

A job is one shard of rows: it reads its windows from the cube (rows are sorted by chunk, so each chunk is decoded about
once), writes its part of every array and returns what is needed for the statistics. What a job returned is noted in the
draft before the next wave begins; a run that goes on does only the jobs that are not noted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from pyproj import Transformer
from zarr.codecs import BloscCodec, ZstdCodec

from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.sources import CubeWindows, chunk_numbers, cut, gather, group_windows
from mdico_cube.patches.splits import TRAIN, Split
from mdico_cube.patches.stats import RunningStats
from mdico_cube.patches.waves import in_waves
from mdico_cube.patches.windows import Windows
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, BandStats, Floats

_CHUNK = 4 << 20  # bytes of an inner chunk of rows, all modalities together
_SHARD = 32 << 20  # bytes of a shard of rows: one job, and in memory about three times that
_ROWS = 4096  # rows of an inner chunk, however small they are
_NOTES = "progress.jsonl"
_FAST: Any = [BloscCodec(cname="lz4", clevel=9, shuffle="shuffle")]
"""About as small as Zstandard at level 1 makes satellite series (a little smaller Sentinel-2, a little larger
Sentinel-1), and decompressed several times as fast."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is cut and where it goes: all that a job must know."""

    cube: Location
    split: Path
    draft: Path
    names: tuple[str, ...]
    """Modalities."""
    pixels: bool
    """False: only positions, labels and statistics are kept, the pixels stay in the cube."""
    target: Literal["dense", "centre", "patch"]
    """Which pixels of a window are labelled: all, the centre alone, or the centre with what most pixels carry."""
    coarsen: dict[str, int]
    """Modality -> side of the squares of pixels that become one; 1 where it is not named."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one job found out."""

    first: int
    """First row of the shard."""
    stats: dict[str, tuple[int, list[float], list[float]]]
    """Modality -> count, mean and spread per band of the training windows' observed pixels."""
    observed: dict[str, list[float]]
    """Modality -> share of (step, pixel) observed in every band, per row."""


def sorted_windows(windows: Windows, chunk: int) -> Windows:
    """By fold, so that training reads no other fold's rows; within a fold by chunk of the cube, row and column."""
    return windows.take(np.lexsort((windows.x, windows.y, chunk_numbers(windows, chunk), windows.fold)))


def cut_windows(plan: Plan, windows: Windows, attrs: dict[str, Any]) -> dict[str, BandStats]:
    """Fill the draft of a samples store and give the statistics of its training windows.

    Args:
        plan: what is cut.
        windows: in the order of the rows; see `sorted_windows`.
        attrs: attributes of the store. A draft with the same ones is gone on with, any other is replaced.
    """
    reader = open_reader(plan.cube)
    source = CubeWindows(plan.cube, windows, plan.names, coarsen=plan.coarsen)
    rows = _rows_per_shard(source)
    notes = _prepared(plan, source, rows, attrs, reader)
    left = [first for first in range(0, len(windows), rows[1]) if first not in notes]
    jobs = [(plan, first, windows.take(np.arange(first, min(first + rows[1], len(windows))))) for first in left]
    with (plan.draft / _NOTES).open("a", encoding="utf-8") as file:
        for note in in_waves(cut_shard, jobs, "sample"):
            file.write(json.dumps(asdict(note)) + "\n")
            file.flush()
            notes[note.first] = note
    whole = [notes[first] for first in sorted(notes)]
    root = zarr.open_group(plan.draft, mode="r+", zarr_format=3)
    for name in plan.names:
        _column(root, f"observed_{name}", np.array([s for n in whole for s in n.observed[name]], np.float32))
    (plan.draft / _NOTES).unlink()
    return {name: _merged([note.stats[name] for note in whole], reader, name) for name in plan.names}


def _merged(parts: Sequence[tuple[int, list[float], list[float]]], reader: CubeReader, name: str) -> BandStats:
    total = RunningStats(len(reader.modalities[name].bands))
    for count, mean, spread in parts:
        total.merge(count, np.array(mean), np.array(spread))
    return total.result()


def cut_shard(plan: Plan, first: int, windows: Windows) -> Note:
    """Read the windows of one shard of rows and write it: the job that Dask runs."""
    source = CubeWindows(plan.cube, windows, plan.names, coarsen=plan.coarsen)
    stored = gather(source, np.arange(len(windows)))
    root: Any = zarr.open_group(plan.draft, mode="r+", zarr_format=3)
    rows = slice(first, first + len(windows))
    split = open_split(plan.split)
    root["target"][rows] = _targets(windows, source.reader, split, plan.target)
    if source.reader.value is not None:
        root["value"][rows] = _values(windows, source.reader, split, plan.target)
    stats, observed = {}, {}
    train = np.flatnonzero(windows.fold == TRAIN)
    for name, values in stored.items():
        if plan.pixels:
            root[name][rows] = values
        physical, here = source.modalities[name].storage.unpack(values)
        seen = here.all(axis=2)  # (N, T, h, w)
        part = RunningStats(values.shape[2])
        part.add(np.asarray(physical)[train], np.asarray(seen)[train])
        stats[name] = part.parts()
        observed[name] = [float(share) for share in seen.mean(axis=(1, 2, 3))]
    return Note(first, stats, observed)


def _targets(windows: Windows, reader: CubeReader, split: Split, target: str) -> npt.NDArray[np.uint8]:
    """Class index (N, side, side); 255 for pixels that are unlabelled or not of the window's fold.

    The centre pixel carries the window's own label, which a file of points may know better than the grid, or that of
    most pixels, of equally many the first.
    """
    side, middle = windows.side, windows.side // 2
    out = np.full((len(windows), side, side), UNLABELLED, dtype=np.uint8)
    own_label = windows.label
    if target != "centre" and side > 1:
        for group in group_windows(windows, reader.chunk):
            label, fold = reader.labels(group.y, group.x), split.folds(reader, group.y, group.x)
            y, x = windows.y[group.index] - group.y.start, windows.x[group.index] - group.x.start
            label, fold = (cut(block[None, None], y, x, side)[:, 0, 0] for block in (label, fold))
            own = (fold == windows.fold[group.index, None, None]) & (label >= 0)
            out[group.index] = np.where(own, label, UNLABELLED)
    if target == "patch" and side > 1:
        counts = np.stack([(out == k).sum(axis=(1, 2)) for k in range(int(windows.label.max(initial=0)) + 1)], axis=1)
        own_label = np.where(counts.any(axis=1), counts.argmax(axis=1), windows.label)
        out[:] = UNLABELLED
    out[:, middle, middle] = np.where(own_label >= 0, own_label, UNLABELLED)
    return out


def _values(windows: Windows, reader: CubeReader, split: Split, target: str) -> Floats:
    """Values (N, side, side); NaN for pixels that are unlabelled or not of the window's fold.

    With a target of one pixel, the centre carries its own value, or the mean over the patch.
    """
    side, middle = windows.side, windows.side // 2
    out = np.full((len(windows), side, side), np.nan, dtype=np.float32)
    for group in group_windows(windows, reader.chunk):
        value, fold = reader.values(group.y, group.x), split.folds(reader, group.y, group.x)
        y, x = windows.y[group.index] - group.y.start, windows.x[group.index] - group.x.start
        value, fold = (cut(block[None, None], y, x, side)[:, 0, 0] for block in (value, fold))
        own = fold == windows.fold[group.index, None, None]
        own[:, middle, middle] |= windows.label[group.index] >= 0
        out[group.index] = np.where(own, value, np.nan)
    if target == "dense" or side == 1:
        return out
    known = ~np.isnan(out)
    count = known.sum(axis=(1, 2))
    mean = np.where(known, out, 0).sum(axis=(1, 2), dtype=np.float64) / np.maximum(count, 1)
    one = out[:, middle, middle] if target == "centre" else np.where(count > 0, mean, np.nan)
    out = np.full_like(out, np.nan)
    out[:, middle, middle] = one
    return out


def _rows_per_shard(source: CubeWindows) -> tuple[int, int]:
    """Rows of an inner chunk and of a shard, the same for every modality."""
    row = sum(prod(shape) * np.dtype(source.modalities[n].storage.dtype).itemsize for n, shape in source.shapes.items())
    count = max(1, len(source))
    chunk = max(1, min(_ROWS, _CHUNK // row, count))
    return chunk, chunk * max(1, min(_SHARD // (row * chunk), -(-count // chunk)))


def _prepared(
    plan: Plan, source: CubeWindows, rows: tuple[int, int], attrs: dict[str, Any], reader: CubeReader
) -> dict[int, Note]:
    """A draft with every array in it, empty or from a run before, and what that run has noted."""
    try:
        if json.loads((plan.draft / "zarr.json").read_text(encoding="utf-8"))["attributes"] == json.loads(
            json.dumps(attrs)
        ):
            return _noted(plan.draft / _NOTES)
    except (OSError, ValueError, KeyError):
        pass  # none, or not one to go on with
    shutil.rmtree(plan.draft, ignore_errors=True)
    root = zarr.open_group(plan.draft, mode="w", zarr_format=3)
    chunk, shard = rows
    count, side = len(source), source.windows.side
    for name, shape in source.shapes.items() if plan.pixels else ():
        pixel = ("pixel_y", "pixel_x") if shape[2] == side else (f"pixel_y_{name}", f"pixel_x_{name}")
        root.create_array(
            name, shape=(count, *shape), chunks=(chunk, *shape), shards=(shard, *shape), compressors=_FAST,
            dtype=source.modalities[name].storage.dtype, fill_value=source.modalities[name].storage.missing,
            dimension_names=("sample", f"time_{name}", f"band_{name}", *pixel),
        )  # fmt: skip
    root.create_array(
        "target", shape=(count, side, side), chunks=(chunk, side, side), shards=(shard, side, side), dtype="uint8",
        compressors=_FAST, fill_value=UNLABELLED, dimension_names=("sample", "pixel_y", "pixel_x"),
    )  # fmt: skip
    if reader.value is not None:
        root.create_array(
            "value", shape=(count, side, side), chunks=(chunk, side, side), shards=(shard, side, side), dtype="float32",
            compressors=_FAST, fill_value=np.nan, dimension_names=("sample", "pixel_y", "pixel_x"),
        )  # fmt: skip
    for name, values in _columns(source.windows, reader, open_split(plan.split)).items():
        _column(root, name, values)
    (plan.draft / _NOTES).touch()
    root.attrs.update(attrs)
    return {}


def _noted(path: Path) -> dict[int, Note]:
    """What a run before has noted; a last line that was cut off does not count."""
    notes = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for line in lines:
        if line.endswith("\n"):
            facts = json.loads(line)
            notes[facts["first"]] = Note(**facts)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
    return notes


def _columns(windows: Windows, reader: CubeReader, split: Split) -> dict[str, Array]:
    """What is known of each window beside its pixels; places are those of the centre pixel."""
    middle = windows.side // 2
    row, column = windows.y + middle, windows.x + middle
    x, y = reader.geobox.affine * (column + 0.5, row + 0.5)
    lon, lat = Transformer.from_crs(str(reader.geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return {
        "row": windows.y,
        "column": windows.x,
        "x": np.asarray(x, np.float64),
        "y": np.asarray(y, np.float64),
        "lon": np.asarray(lon, np.float64),
        "lat": np.asarray(lat, np.float64),
        "fold": windows.fold,
        "label": windows.label,
        "block": np.asarray(split.blocks(row, column), np.int64),
        "group": np.zeros(len(windows), np.int64) if windows.group is None else windows.group.astype(np.int64),
    }


def _column(root: zarr.Group, name: str, values: Array) -> None:
    array = root.create_array(
        name, shape=values.shape, chunks=(max(1, min(65536, len(values))),), dtype=values.dtype,
        compressors=[ZstdCodec(level=1)], dimension_names=("sample",), overwrite=True,
    )  # fmt: skip
    array[:] = values
