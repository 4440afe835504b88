"""A cube's labels and the options of a split in, the split on disk out: a few small tables, kept beside the cube."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mdico_cube.cube.change import writing
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.places import Places, read_places
from mdico_cube.patches.splits import AS_THE_PIXEL, Ints, Marks, Split, assign_folds
from mdico_cube.patches.tally import Tally, merge_tallies, tally_cube
from mdico_cube.patches.vectors import file_digest, years
from mdico_cube.patches.waves import in_waves
from mdico_cube.progress import say
from mdico_cube.recipe import SampleSection

VERSION = 1
"""Layout of a stored split, in its attribute `mdico_split`."""
_MARKS = ("y", "x", "unit")
_PLACE_OPTIONS = ("patch", "strategy", "stride", "places")
_OPTIONS = ("block", "guard", "split", "folds", "test_fold", "validation", "test", "seed")


def make_split(cube: Location, target: Path, section: SampleSection) -> Split:
    """Decide the fold of every block, group or year of a cube's labels and keep it at `target` (Zarr v3).

    A split that was made from the same labels and options is kept as it is. It is made beside its place and renamed.

    Raises:
        MdicoError: no labels, no groups or dates where the split needs them, or too little that is labelled.
    """
    reader = open_reader(cube)
    origin = split_origin(reader, section)
    if stored_origin(target) == origin:
        return open_split(target)
    places = None if section.places is None else seat(cube, read_places(reader, section), section)
    split = divide(reader, tally_cube(cube, section.block), section, places)
    draft = target.with_name(f".{target.name}.draft")
    arrays = {"fold": split.fold, "home": split.home}
    if split.marks is not None:
        arrays |= {f"mark_{name}": getattr(split.marks, name) for name in _MARKS}
    with writing(target):
        shutil.rmtree(draft, ignore_errors=True)
        root = zarr.open_group(draft, mode="w", zarr_format=3)
        for name, values in arrays.items():
            if values is not None:
                dimension = {"fold": "unit", "home": "parcel"}.get(name, "mark")
                root.create_array(name, data=np.asarray(values), dimension_names=(dimension,))
        facts = {"block": split.block, "guard": split.guard, "by": split.by, "shape": list(split.shape)}
        root.attrs.update({"mdico_split": VERSION, "made_from": origin, **facts})
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return open_split(target)


def count_folds(cube: Location, section: SampleSection) -> int:
    """How many runs test everything once: the recipe's folds, or the labels' years.

    Raises:
        MdicoError: the recipe parts nothing into folds.
    """
    if section.split != "year":
        if section.folds is None:
            raise MdicoError("samples.folds: is not set, so there is one split and no folds. Set it, for example to 5.")
        return section.folds
    reader = open_reader(cube)
    places = None if section.places is None else seat(cube, read_places(reader, section), section)
    return _by_year(reader, tally_cube(cube, section.block), section, places).count


def split_origin(reader: CubeReader, section: SampleSection) -> str:
    """SHA-256 of all that decides a split: the grid, the labels on it, the options, and the places of a file."""
    options = _OPTIONS if section.places is None else (*_OPTIONS, *_PLACE_OPTIONS)
    facts = [reader.identity(()), section.model_dump(mode="json", include=set(options)), places_digest(section)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def places_digest(section: SampleSection) -> str:
    """SHA-256 of the file of places; empty where there is none."""
    if section.places is None or not section.places.path.exists():
        return ""
    return file_digest(section.places.path)


@dataclass(frozen=True, slots=True)
class Seats:
    """Places of a file and what the cube's labels say at their windows' centres."""

    y: Ints
    """(N,) row of the centre pixel."""
    x: Ints
    """(N,) column of the centre pixel."""
    label: Ints
    """(N,) class index, -1 = none."""
    group: Ints | None
    """(N,) group of the file, 0 = none; None where it names none."""
    block: Ints
    """(N,) block."""
    parcel: Ints
    """(N,) parcel of the cube's labels, 0 = none."""
    year: Ints | None
    """(N,) year, 0 = not known; None where the file has no dates."""


def seat(cube: Location, places: Places, section: SampleSection) -> Seats:
    """Look the places up in the cube's labels, shard by shard through Dask."""
    assert section.places is not None
    reader, half = open_reader(cube), section.patch // 2
    y, x = places.y + half, places.x + half
    key = (y // reader.shard) * (1 << 32) + x // reader.shard
    order = np.argsort(key, kind="stable")
    parts = [part for part in np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if part.size]
    label, parcel = places.label.copy(), np.zeros(y.size, np.int64)
    found = in_waves(_labels_at, [(cube, y[part], x[part]) for part in parts], "look places up")
    for part, (own, owner) in zip(parts, found, strict=True):
        label[part] = np.where(places.label[part] >= 0, places.label[part], own)
        parcel[part] = owner
    group = None if section.places.group is None else places.group
    block = y // section.block * -(-reader.shape[1] // section.block) + x // section.block
    return Seats(y, x, label, group, block, parcel, None if section.places.date is None else years(places.date))


def _labels_at(cube: Location, y: Ints, x: Ints) -> tuple[Ints, Ints]:
    """Class index and parcel of some pixels that lie near each other."""
    reader = open_reader(cube)
    rows, columns = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
    parcel = reader.parcels(rows, columns)
    down, right = y - rows.start, x - columns.start
    own = reader.labels(rows, columns)[down, right].astype(np.int64)
    return own, np.zeros_like(own) if parcel is None else parcel[down, right].astype(np.int64)


def divide(reader: CubeReader, tally: Tally, section: SampleSection, seats: Seats | None = None) -> Split:
    """The split of a cube whose labels were counted by blocks of `section.block` pixels.

    With `seats`, the places of a file are what is shared out: units without a place stay unused.
    """
    units = {"blocks": _by_block, "group": _by_group, "year": _by_year}[section.split](reader, tally, section, seats)
    rows = tally if seats is None else seats
    unit = np.where(rows.parcel > 0, units.home[rows.parcel], rows.block if units.blocks else -1)
    marks = None
    if seats is None:
        counts = tally.counts(unit, units.count, len(reader.legend))
    else:
        own = np.full(seats.y.size, AS_THE_PIXEL) if units.mark is None else units.mark
        own = np.where(seats.label >= 0, own, -1)
        marks = Marks(seats.y, seats.x, own)
        ones = Tally(seats.parcel, seats.block, seats.label, np.ones(own.size, np.int64))
        counts = ones.counts(np.where(own == AS_THE_PIXEL, unit, own), units.count, len(reader.legend))
    fold = assign_folds(counts, section, units.name)
    home = units.home if units.home.size > 1 else None
    return Split(reader.shape, section.block, section.guard, section.split, fold, home, marks)


@dataclass(frozen=True, slots=True)
class _Units:
    """What a fold takes as a whole."""

    name: str
    """What they are called."""
    count: int
    home: Ints
    """(parcels + 1,) unit of each parcel, -1 = none."""
    blocks: bool = False
    """True where a pixel without a parcel counts to its block; else to nothing."""
    mark: Ints | None = None
    """(N,) unit of each place, `AS_THE_PIXEL` = of its pixel; None = of its pixel throughout."""


def _by_block(reader: CubeReader, tally: Tally, section: SampleSection, seats: Seats | None) -> _Units:
    across = -(-reader.shape[1] // section.block)
    count, home = -(-reader.shape[0] // section.block) * across, home_blocks(tally)
    if seats is None:
        return _Units("labelled blocks", count, home, True)
    mark = None
    if seats.group is not None:
        ones = np.ones(seats.block.size, np.int64)
        groups = home_blocks(merge_tallies([Tally(seats.group, seats.block, np.maximum(seats.label, 0), ones)]))
        mark = np.where(seats.group > 0, groups[seats.group], AS_THE_PIXEL)
    return _Units("blocks with a place", count, home, True, mark)


def _by_group(reader: CubeReader, tally: Tally, section: SampleSection, seats: Seats | None) -> _Units:
    if seats is not None and seats.group is not None:
        return _Units("groups", int(seats.group.max()), _nowhere(tally), mark=seats.group - 1)
    if not (tally.parcel > 0).any():
        raise MdicoError(
            "samples.split is group, but the labels have no groups. Name a column in labels.group and build again, or "
            "in samples.places.group."
        )
    home = np.arange(-1, int(tally.parcel.max()), dtype=np.int64)
    return _Units("groups", home.size - 1, home)


def _by_year(reader: CubeReader, tally: Tally, section: SampleSection, seats: Seats | None) -> _Units:
    if seats is not None and seats.year is not None:
        year, mixed = _one_year(seats.year, seats.parcel if seats.group is None else seats.group)
        listed = np.unique(year[(year > 0) & (seats.label >= 0)])
        name = f"years ({mixed} groups or parcels have labels of several years and stay unused)" if mixed else "years"
        return _Units(name, listed.size, _nowhere(tally), mark=_position(year, listed))
    dates = reader.parcel_dates
    if dates is None:
        raise MdicoError(
            "samples.split is year, but the labels have no dates. Name a column in labels.date and build again, or in "
            "samples.places.date."
        )
    year = years(dates)
    listed = np.unique(year[year > 0])
    undated = int((year[1:] == 0).sum())
    why = f" ({undated} parcels have no date, or labels of several years, and stay unused)" if undated else ""
    return _Units(f"years{why}", listed.size, _position(year, listed))


def _nowhere(tally: Tally) -> Ints:
    """No parcel counts to any unit."""
    return np.full(int(tally.parcel.max(initial=0)) + 1, -1, dtype=np.int64)


def _position(year: Ints, listed: Ints) -> Ints:
    """Where each year stands in an ascending list, -1 = nowhere."""
    at = np.searchsorted(listed, year)
    known = np.isin(year, listed)
    return np.where(known, at, -1)


def _one_year(year: Ints, group: Ints) -> tuple[Ints, int]:
    """The years (N,), 0 for rows of a group, or of a parcel of the cube, that has several; how many those are."""
    first = np.full(int(group.max(initial=0)) + 1, np.iinfo(np.int64).max)
    last = np.zeros_like(first)
    np.minimum.at(first, group, year)
    np.maximum.at(last, group, year)
    mixed = (group > 0) & (first[group] != last[group])
    several = np.unique(group[mixed]).size
    if several:
        say(f"split: {several} groups or parcels have labels of several years and stay unused")
    return np.where(mixed, 0, year), several


def home_blocks(tally: Tally) -> Ints:
    """(parcels + 1,) the block that holds most of each parcel, of equals the first; -1 for a number never seen."""
    owned = tally.parcel > 0
    parcel, block, pixels = tally.parcel[owned], tally.block[owned], tally.pixels[owned]
    new = np.ones(parcel.size, dtype=bool)
    new[1:] = (np.diff(parcel) != 0) | (np.diff(block) != 0)
    first = np.flatnonzero(new)
    home = np.full(int(parcel.max(initial=0)) + 1, -1, dtype=np.int64)
    if first.size:
        parcel, block, pixels = parcel[first], block[first], np.add.reduceat(pixels, first)
        order = np.lexsort((block, -pixels))[::-1]  # the last write wins: most pixels, then the first block
        home[parcel[order]] = block[order]
    return home


def open_split(path: Path | str) -> Split:
    """A stored split; one that is written again is read again.

    Raises:
        MdicoError: there is none.
    """
    path = Path(path).resolve()
    return _open_cached(path, stored_origin(path))


@lru_cache(maxsize=4)
def _open_cached(path: Path, origin: str) -> Split:
    if not origin:
        raise MdicoError(f"{path}: there is no split of layout {VERSION}. Draw samples with `mdico sample`.")
    root = zarr.open_group(path, mode="r", zarr_format=3)
    facts: Any = root.attrs
    home = np.asarray(root["home"][...]).astype(np.int64) if "home" in root else None  # type: ignore[index]
    fold = np.asarray(root["fold"][...]).astype(np.uint8)  # type: ignore[index]
    marks = None
    if "mark_y" in root:
        marks = Marks(*(np.asarray(root[f"mark_{name}"][...]).astype(np.int64) for name in _MARKS))  # type: ignore[index]
    shape = facts["shape"][0], facts["shape"][1]
    return Split(shape, facts["block"], facts["guard"], facts["by"], fold, home, marks)


def stored_origin(path: Path) -> str:
    """Digest of what a stored split was made from; empty where there is none of this layout."""
    try:
        attrs: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs
        return str(attrs["made_from"]) if attrs.get("mdico_split") == VERSION else ""
    except (FileNotFoundError, ValueError, OSError, KeyError):
        return ""
