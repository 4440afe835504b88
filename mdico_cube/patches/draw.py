"""An index of candidate windows in, the windows to train on and to score with out: filtered, balanced, seeded, checked.

The index is read part by part, three times: test windows are drawn first, then validation windows that keep away from
them, then training windows that keep away from both. Which windows are taken depends on their own rows and on the seed,
so neither the cube's chunks nor the number of workers matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.index import SampleIndex
from mdico_cube.patches.leaks import check_windows, touching
from mdico_cube.patches.pool import unlabelled_windows
from mdico_cube.patches.scan import make_index
from mdico_cube.patches.splits import FOLDS, TRAIN, UNUSED, Ints, Split
from mdico_cube.patches.windows import Keys, Windows, draw_keys
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import Bools, LabelClass


@dataclass(frozen=True, slots=True)
class Sampling:
    """The windows of a run and where they come from."""

    windows: Windows
    split: Split
    index: SampleIndex


def split_path(folder: Path) -> Path:
    """Where the split of a run stands."""
    return folder / "split.zarr"


def index_path(folder: Path) -> Path:
    """Where the index of a run stands."""
    return folder / "samples-index.parquet"


def choose_windows(cube: Location, folder: Path, modalities: Sequence[str], section: SampleSection) -> Sampling:
    """Split a cube's labels, index its windows and draw; split and index are kept in `folder` and used again.

    The windows that are drawn are checked against the labels at the very end, whatever led to them.

    Raises:
        MdicoError: what the cube lacks, a class without training windows, or a leak between folds.
    """
    places = section.places
    if section.dates is not None and open_reader(cube).parcel_dates is None and (places is None or places.date is None):
        raise MdicoError(
            "samples.dates asks for labels of some days, but the labels have no dates. Name a column in labels.date "
            "and build again, or in samples.places.date, or leave samples.dates out."
        )
    split = make_split(cube, split_path(folder), section)
    index = make_index(cube, split_path(folder), index_path(folder), modalities, section)
    reader = open_reader(cube)
    windows = draw_windows(index, reader.legend, section)
    check_windows(reader, split, windows)
    if section.unlabelled:
        windows = windows + unlabelled_windows(reader, split, section.unlabelled, section.patch, section.seed)
    return Sampling(windows, split, index)


@dataclass(slots=True)
class _Pool:
    """Candidates of one fold that may still be drawn."""

    y: Ints
    x: Ints
    label: Ints
    group: Ints
    key: Keys

    def take(self, index: Ints | Bools) -> _Pool:
        return _Pool(self.y[index], self.x[index], self.label[index], self.group[index], self.key[index])

    def __add__(self, other: _Pool) -> _Pool:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("y", "x", "label", "group", "key"))
        return _Pool(*(np.concatenate(pair) for pair in pairs))


_NONE = np.empty(0, np.int64)


def draw_windows(index: SampleIndex, legend: Sequence[LabelClass], section: SampleSection) -> Windows:
    """Windows of every fold, in order of fold, row and column.

    Training gets what `balance`, `per_class`, `count` and `per_group` say; held-out folds get as much in proportion to
    their share. No window is drawn within `guard` pixels of one of a stricter fold.

    Raises:
        MdicoError: a class of the legend is absent from training.
    """
    held, drawn = _Pool(_NONE, _NONE, _NONE, _NONE, _NONE.astype(np.uint64)), []
    for fold in sorted(FOLDS.values(), reverse=True):  # test, validation, train
        pool = _draw_fold(index, fold, held, legend, section)
        held = held + pool
        drawn.append((fold, pool))
    parts = []
    for fold, pool in reversed(drawn):
        pool = pool.take(np.lexsort((pool.label, pool.x, pool.y)))
        folds = np.full(pool.y.size, fold, dtype=np.uint8)
        parts.append(Windows(pool.y, pool.x, folds, pool.label, section.patch, pool.group))
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "x", "fold", "label", "group"))
    y, x, fold_, label, group = columns
    return Windows(y, x, fold_, label, section.patch, group)


def _draw_fold(
    index: SampleIndex, fold: int, held: _Pool, legend: Sequence[LabelClass], section: SampleSection
) -> _Pool:
    """The windows of one fold: candidates with the smallest keys, class by class."""
    cap = max(1, round(_wanted(section, len(legend)) * _ratio(section, fold)))
    found = np.zeros(len(legend), dtype=np.int64)
    pools: list[_Pool | None] = [None] * len(legend)
    for pool in _candidates(index, fold, section):
        if held.y.size and (section.patch > 1 or section.places is not None):
            near = touching(pool.y, pool.x, held.y, held.x, section.patch, section.guard)
            pool = pool.take(~near)
        found += np.bincount(pool.label, minlength=len(legend))
        for label in np.unique(pool.label):
            here = pool.take(pool.label == label)
            before = pools[label]
            pools[label] = _smallest(here if before is None else before + here, cap, section.per_group, False)
    if fold == TRAIN:
        _check_classes(index, found, legend, section)
    if section.per_group is not None:  # what a parcel may not give does not count
        found = np.array([0 if pool is None else pool.y.size for pool in pools])
    sizes = _sizes(found, cap, section)
    chosen = [
        _smallest(pool, size, section.per_group, True)
        for pool, size in zip(pools, sizes, strict=True)
        if pool is not None
    ]
    empty = held.take(np.zeros(held.y.size, dtype=bool))
    return sum(chosen, start=empty)


def _wanted(section: SampleSection, classes: int) -> int:
    """Training windows of one class at the most, or of all where they are stratified."""
    if section.balance == "stratified":
        return section.count or section.per_class * classes
    return section.per_class


def _ratio(section: SampleSection, fold: int) -> float:
    """Windows of a fold for each training window."""
    test = 1 / section.folds if section.folds else section.test
    share = {"train": max(1e-9, 1 - section.validation - test), "validation": section.validation, "test": test}
    (name,) = [name for name, number in FOLDS.items() if number == fold]
    return share[name] / share["train"]


def _sizes(found: Ints, cap: int, section: SampleSection) -> Ints:
    """Windows to draw of each class (K,), from how many candidates each has."""
    present = found > 0
    if section.balance == "stratified":
        share = found / max(1, found.sum())
        return np.where(present, np.maximum(1, np.rint(cap * share)), 0).astype(np.int64)
    if section.balance == "balanced" and present.any():
        cap = min(cap, int(found[present].min()))
    return np.minimum(found, cap)


def _smallest(pool: _Pool, size: int, per_group: int | None, last: bool) -> _Pool:
    """The candidates with the smallest keys, at most `per_group` of one group.

    Before the last part has come, only what can never be drawn is let go: beyond `size` where groups do not matter, and
    beyond `per_group` within a group.
    """
    order = np.lexsort((pool.group, pool.x, pool.y, pool.key))
    if per_group is not None:
        order = order[_rank_in_group(pool.group[order]) < per_group]
    return pool.take(order[:size] if last or per_group is None else order)


def _rank_in_group(group: Ints) -> Ints:
    """How many rows of the same group come before each row; 0 for rows without a group."""
    order = np.argsort(group, kind="stable")
    same = group[order]
    first = np.flatnonzero(np.r_[True, np.diff(same) != 0]) if same.size else _NONE
    rank = np.arange(same.size) - np.repeat(first, np.diff(np.r_[first, same.size]))
    out = np.empty(group.size, dtype=np.int64)
    out[order] = np.where(same > 0, rank, 0)
    return out


def _candidates(index: SampleIndex, fold: int, section: SampleSection) -> Iterator[_Pool]:
    """Candidates of one fold that pass every filter, part by part."""
    modalities = index.facts.modalities
    columns = ["y", "x", "label", "group", "fold", *(f"valid_{name}" for name in modalities)]
    if section.min_purity:
        columns.append("histogram")
    if section.dates is not None:
        columns.append("date")
    if section.observed is not None:
        columns += [f"{end}_{name}" for name, temporal in modalities.items() if temporal for end in ("first", "last")]
    for table in index.parts(columns):
        here = np.flatnonzero((table["fold"].to_numpy() == fold) & passes(table, index, section))
        if here.size:
            y, x, label, group = (
                table[name].to_numpy()[here].astype(np.int64) for name in ("y", "x", "label", "group")
            )
            yield _Pool(y, x, label, group, draw_keys(section.seed, 2, y, x))


def index_summary(index: SampleIndex) -> dict[str, Any]:
    """How many windows stand in an index, by class and fold, and what share of them each sensor saw."""
    names = {number: name for name, number in {"unused": UNUSED, **FOLDS}.items()}
    legend, modalities = index.facts.legend, tuple(index.facts.modalities)
    counts, seen = np.zeros((len(legend), len(names)), np.int64), np.zeros(len(modalities))
    for table in index.parts(["label", "fold", *(f"valid_{name}" for name in modalities)]):
        np.add.at(counts, (table["label"].to_numpy(), table["fold"].to_numpy()), 1)
        seen += [table[f"valid_{name}"].to_numpy().sum(dtype=float) for name in modalities]
    return {
        "windows": len(index),
        "classes": {
            entry.name: {names[fold]: int(count) for fold, count in enumerate(row)}
            for entry, row in zip(legend, counts, strict=True)
        },
        "observed": dict(zip(modalities, (seen / max(1, len(index))).tolist(), strict=True)),
    }


def passes(table: pa.Table, index: SampleIndex, section: SampleSection) -> Bools:
    """True for the rows of a part that fulfil every filter: observed share, purity, dates."""
    keep = np.ones(table.num_rows, dtype=bool)
    seen = np.zeros(table.num_rows, dtype=bool)
    for name in index.facts.modalities:
        valid = table[f"valid_{name}"].to_numpy()
        keep &= (valid >= np.float32(section.least_valid(name))) & ((valid > 0) | section.may_miss(name))
        seen |= valid > 0
    keep &= seen
    if section.min_purity:
        keep &= _purity(table, len(index.facts.legend)) >= section.min_purity
    if section.dates is not None:
        keep &= _between(table["date"], *section.dates)
    if section.observed is not None:
        first, last = (np.datetime64(day, "D") for day in section.observed)
        for name, temporal in index.facts.modalities.items():
            if temporal:
                keep &= _days(table[f"first_{name}"]) <= first
                keep &= _days(table[f"last_{name}"]) >= last
    return keep


def _purity(table: pa.Table, classes: int) -> npt.NDArray[np.float64]:
    """Share of a window's labelled pixels that carry its own class; 0 where none is labelled."""
    counts = table["histogram"].combine_chunks().flatten().to_numpy().reshape(-1, classes)
    own = counts[np.arange(len(counts)), table["label"].to_numpy()]
    return np.asarray(own / np.maximum(1, counts.sum(axis=1)))


def _days(column: pa.ChunkedArray) -> npt.NDArray[np.datetime64]:
    return np.asarray(column.to_numpy()).astype("datetime64[D]")


def _between(column: pa.ChunkedArray, first: str, last: str) -> Bools:
    """True where a date lies between two days, both included; a missing date never does."""
    days = _days(column)
    return np.asarray((days >= np.datetime64(first, "D")) & (days <= np.datetime64(last, "D")))


def _check_classes(index: SampleIndex, found: Ints, legend: Sequence[LabelClass], section: SampleSection) -> None:
    lacking = [entry.name for entry, count in zip(legend, found, strict=True) if not count]
    if not lacking or (index.facts.values and found.any()):
        return
    name = lacking[0]
    number = [entry.name for entry in legend].index(name)
    known, split = 0, 0
    for table in index.parts(["label", "fold"]):
        here = table["label"].to_numpy() == number
        known += int(here.sum())
        split += int((here & (table["fold"].to_numpy() == TRAIN)).sum())
    if not known:
        why = "no window has it at its centre: drop the class from labels.classes, or widen the area"
    elif not split:
        why = (
            f"none of its {known} windows lies in a training block: use smaller blocks (samples.block), a smaller "
            "guard, or another seed"
        )
    else:
        why = (
            f"none of its {split} windows in training blocks passes the filters: lower samples.min_valid or "
            "samples.min_purity, or widen samples.dates and samples.observed"
        )
    raise MdicoError(f"samples: class {name!r} has no training window, {why}.")
