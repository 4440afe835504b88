"""A cube and its split in, the index of candidate windows out: shard by shard through Dask, a row group per shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mdico_cube.cube.grid import Shard, shards
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.divide import open_split, places_digest, split_origin
from mdico_cube.patches.index import IndexFacts, SampleIndex, index_schema, open_index, write_index
from mdico_cube.patches.places import Places, read_places
from mdico_cube.patches.splits import AS_THE_PIXEL, Ints
from mdico_cube.patches.waves import in_waves
from mdico_cube.patches.windows import box_sums, grid_windows, random_windows, starts, window_folds
from mdico_cube.progress import say
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import Array, Bools

_BYTES = 64 << 20  # stored pixels of one modality that are read at once
_PIXEL_OPTIONS = ("patch", "strategy", "stride", "candidates", "places")


def make_index(
    cube: Location, split: Path, target: Path, modalities: Sequence[str], section: SampleSection
) -> SampleIndex:
    """Every candidate window of a cube with its labels, fold, and share of observed pixels, kept at `target` (Parquet).

    An index of the same pixels, labels and options is kept; where only the split has changed, blocks and folds are told
    anew without reading a pixel of any sensor.

    Args:
        cube: the cube; its shards are read.
        split: its split, as `make_split` keeps it.
        target: where the index goes.
        modalities: of the cube.
        section: options.

    Raises:
        MdicoError: the cube lacks labels, a modality or some shards, or no window has a label.
    """
    reader = open_reader(cube)
    reader.check_complete(modalities)
    for extent in reader.shape:
        starts(extent, section.patch, section.step)
    facts = index_facts(reader, modalities, section)
    standing = _standing(target)
    if standing is not None and standing.facts == facts:
        return standing
    if standing is not None and section.places is None and replace(standing.facts, split=facts.split) == facts:
        say("index: only the split has changed, so folds are told anew")
        jobs: list[Any] = [(cube, split, target, group, section.patch) for group in range(standing.row_groups)]
        return write_index(target, facts, in_waves(_refold, jobs, "index: folds"))
    places = None if section.places is None else read_places(reader, section)
    jobs = [
        (cube, split, facts, section, shard, None if places is None else places.inside(shard.y, shard.x))
        for shard in shards(reader.shape, reader.shard)
    ]
    index = write_index(target, facts, in_waves(scan_shard, jobs, "index"))
    if not len(index):
        raise MdicoError(f"{target}: no window of {section.patch} pixels has a label at its centre. Widen the labels.")
    return index


def index_facts(reader: CubeReader, modalities: Sequence[str], section: SampleSection) -> IndexFacts:
    """What an index of this cube with these options says of itself."""
    options = section.model_dump(mode="json", include=set(_PIXEL_OPTIONS))
    seed = section.seed if section.strategy == "random" else None
    facts = [reader.identity(modalities), list(modalities), options, seed, places_digest(section)]
    return IndexFacts(
        section.patch,
        {name: reader.modalities[name].temporal for name in modalities},
        reader.legend,
        reader.shape,
        hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        split_origin(reader, section),
        reader.value is not None,
    )


def _standing(target: Path) -> SampleIndex | None:
    try:
        return open_index(target)
    except MdicoError:
        return None


def scan_shard(
    cube: Location, split: Path, facts: IndexFacts, section: SampleSection, shard: Shard, places: Places | None = None
) -> pa.Table:
    """The rows of the windows that begin in one shard, or of the places among them; see `patches.index`."""
    reader, side = open_reader(cube), section.patch
    if places is not None:
        columns = _place_columns(reader, split, places, section, shard)
    elif section.strategy == "random":
        found = random_windows(reader.shape, side, section.candidates, section.seed, shard.y, shard.x)
        columns = _label_columns(reader, split, *found, side)
    else:
        columns = _label_columns(reader, split, *grid_windows(reader.shape, side, section.step, shard.y, shard.x), side)
    columns = _kept(columns, columns["label"] >= 0)
    for name, temporal in facts.modalities.items():
        seen = observed_steps(reader, name, columns["y"], columns["x"], side)
        columns[f"valid_{name}"] = seen.sum(axis=0, dtype=np.int64) / (max(1, len(seen)) * side**2)
        if temporal:
            columns[f"first_{name}"], columns[f"last_{name}"] = _span(seen > 0, reader.steps(name))
    return _table(columns, facts)


def _kept(columns: dict[str, Array], keep: Bools) -> dict[str, Array]:
    return {name: values[keep] for name, values in columns.items()}


def _label_columns(reader: CubeReader, split: Path, y: Ints, x: Ints, side: int) -> dict[str, Array]:
    """The columns that need no sensor, of the windows whose centre is labelled."""
    if y.size:
        half, (rows, columns) = side // 2, _extent(y, x, side)
        label = reader.labels(rows, columns)
        kept = label[y - rows.start + half, x - columns.start + half] >= 0
        y, x = y[kept], x[kept]
    return {**_counts(reader, y, x, side), **_fold_columns(reader, split, y, x, side)}


def _place_columns(
    reader: CubeReader, split: Path, places: Places, section: SampleSection, shard: Shard
) -> dict[str, Array]:
    """The columns that need no sensor, of the windows at places that begin in a shard."""
    assert section.places is not None
    marks, half = open_split(split).marks, section.patch // 2
    assert marks is not None
    centres = slice(shard.y.start + half, shard.y.stop + half), slice(shard.x.start + half, shard.x.stop + half)
    _, _, unit = marks.inside(*centres)  # marks and places stand in the same order
    columns = _counts(reader, places.y, places.x, section.patch)
    columns["label"] = np.where(places.label >= 0, places.label, columns["label"])
    if section.places.group is not None:
        columns["group"] = places.group
    if section.places.date is not None:
        columns["date"] = places.date
    return {**columns, **_fold_columns(reader, split, places.y, places.x, section.patch, unit)}


def _extent(y: Ints, x: Ints, side: int) -> tuple[slice, slice]:
    """Rows and columns that hold all of some windows."""
    return slice(int(y.min()), int(y.max()) + side), slice(int(x.min()), int(x.max()) + side)


def _counts(reader: CubeReader, y: Ints, x: Ints, side: int) -> dict[str, Array]:
    """Position, class and parcel of the centre, day of the parcel's label, and labelled pixels per class."""
    classes, half = len(reader.legend), side // 2
    if not y.size:
        none = np.empty(0, np.int64)
        histogram = np.empty((0, classes), np.uint32)
        return {"y": y, "x": x, "label": none, "group": none, "date": none.astype("M8[D]"), "histogram": histogram}
    rows, across = _extent(y, x, side)
    label, parcel = reader.labels(rows, across), reader.parcels(rows, across)
    down, right = y - rows.start, x - across.start
    owner = np.zeros(y.size, np.int64) if parcel is None else parcel[down + half, right + half].astype(np.int64)
    dates = reader.parcel_dates
    never = np.full(y.size, np.datetime64("NaT"), dtype="datetime64[D]")
    return {
        "y": y,
        "x": x,
        "label": label[down + half, right + half].astype(np.int64),
        "group": owner,
        "date": never if dates is None else dates[owner],
        "histogram": np.stack([box_sums(label == index, down, right, side, side) for index in range(classes)], axis=1),
    }


def _fold_columns(
    reader: CubeReader, split: Path, y: Ints, x: Ints, side: int, unit: Ints | None = None
) -> dict[str, Array]:
    """Block and fold of some windows; `unit` is that of the place each is for."""
    found, half = open_split(split), side // 2
    if not y.size:
        return {"block": y, "fold": y.astype(np.uint8)}
    raw, wide_y, wide_x = found.around(reader, *_extent(y, x, side), found.guard)
    down, right = y - wide_y.start, x - wide_x.start
    own = None
    if unit is not None:
        own = np.where(unit == AS_THE_PIXEL, raw[down + half, right + half], found.fold_of(np.maximum(unit, -1)))
    fold = window_folds(raw, down, right, side, found.guard, own)
    return {"block": found.blocks(y + half, x + half), "fold": fold}


def _refold(cube: Location, split: Path, index: Path, group: int, side: int) -> pa.Table:
    with pq.ParquetFile(index) as file:
        table = file.read_row_group(group)
    y, x = (table[name].to_numpy().astype(np.int64) for name in ("y", "x"))
    for name, values in _fold_columns(open_reader(cube), split, y, x, side).items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table


def observed_steps(reader: CubeReader, modality: str, y: Ints, x: Ints, side: int) -> Ints:
    """Pixels of each window that were observed in every band, per step (T, N); each chunk is decoded about once."""
    storage, steps = reader.modalities[modality].storage, len(reader.steps(modality))
    seen = np.zeros((steps, y.size), dtype=np.int64)
    for index in _cells(reader, modality, y, x, side):
        top, left = int(y[index].min()), int(x[index].min())
        block = slice(top, int(y[index].max()) + side), slice(left, int(x[index].max()) + side)
        observed = observed_everywhere(storage.observed(reader.stored(modality, *block)))
        down, right = y[index] - top, x[index] - left
        seen[:, index] = observed[:, down, right] if side == 1 else box_sums(observed, down, right, side, side)
    return seen


def observed_everywhere(observed: Bools) -> Bools:
    """True where every band was observed: (T, C, h, w) to (T, h, w)."""
    out = observed[:, 0].copy()
    for band in range(1, observed.shape[1]):
        out &= observed[:, band]
    return out


def _cells(reader: CubeReader, modality: str, y: Ints, x: Ints, side: int) -> Iterator[Ints]:
    """Windows in bundles whose pixels lie near each other: whole chunks, and as many as memory allows."""
    chunk = max(reader.chunk, side)
    facts = reader.modalities[modality]
    pixel = len(reader.steps(modality)) * len(facts.bands) * np.dtype(facts.storage.dtype).itemsize
    crowded = y.size * side * side > chunk * chunk
    across = max(1, int((_BYTES / pixel) ** 0.5) // chunk) * chunk if crowded else chunk
    key = (y // across) * (1 << 32) + x // across
    order = np.argsort(key, kind="stable")
    for index in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if index.size:
            yield index


def _span(seen: Bools, steps: Sequence[str]) -> tuple[Array, Array]:
    """Dates of the first and the last step in which anything was seen (T, N), not-a-time where nothing ever was."""
    days = np.array(steps, dtype="datetime64[D]")
    never = ~seen.any(axis=0)
    first, last = days[seen.argmax(axis=0)], days[len(days) - 1 - seen[::-1].argmax(axis=0)]
    first[never] = last[never] = np.datetime64("NaT")
    return first, last


def _table(columns: dict[str, Array], facts: IndexFacts) -> pa.Table:
    schema = index_schema(facts)
    arrays = []
    for field in schema:
        if field.name == "histogram":
            flat = pa.array(columns["histogram"].ravel(), pa.uint32())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, len(facts.legend)))
        else:
            arrays.append(pa.array(_cast(columns[field.name]), from_pandas=True).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(values: Array) -> npt.NDArray[Any]:
    return values.astype("datetime64[D]") if values.dtype.kind == "M" else values
