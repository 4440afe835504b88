"""What is labelled where in, the fold of every block, parcel or year out; and the fold of any pixel, block by block.

A **unit** is what a fold takes as a whole: a block of the grid, a group (parcel, site, tile) or a year. The table of
units is small; the fold of a pixel is told from it and from the labels around the pixel, so no array of the whole
region is ever held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import SampleSection, SplitBy

UNUSED, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
POOL = 4
"""Windows without labels that may be learned from; not a fold of the split."""
FOLDS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
STRICTER = {TRAIN: (VALIDATION, TEST), VALIDATION: (TEST,)}
"""Fold -> the folds that it must keep away from."""
_DRAWS = 200  # assignments tried; the one whose folds have the most similar classes is taken
_DRAWN_UNITS = 4_000_000  # fewer draws where there are many units: their class shares are alike anyway

Folds = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class LabelReader(Protocol):
    """What the labels of a cube are read with."""

    shape: tuple[int, int]

    def labels(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        """Class index (h, w), -1 = unlabelled."""

    def parcels(self, y: slice, x: slice) -> npt.NDArray[np.int32] | None:
        """Parcel number (h, w), 0 = none; None where the labels carry no groups."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Pixels at which a file names a place: used whether labelled or not, and perhaps of a unit of their own."""

    y: Ints
    """(M,) rows, ascending."""
    x: Ints
    """(M,) columns."""
    unit: Ints
    """(M,) unit, -1 = none, `AS_THE_PIXEL` = the pixel's."""

    def inside(self, y: slice, x: slice) -> tuple[Ints, Ints, Ints]:
        """Rows, columns and units of the marks in a block, rows and columns counted from its corner."""
        first, last = np.searchsorted(self.y, [y.start, y.stop])
        chosen = np.arange(first, last)[(self.x[first:last] >= x.start) & (self.x[first:last] < x.stop)]
        return self.y[chosen] - y.start, self.x[chosen] - x.start, self.unit[chosen]


AS_THE_PIXEL = -2
"""Unit of a mark that counts to its pixel's block or parcel."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which fold every pixel of a grid is in."""

    shape: tuple[int, int]
    """Rows and columns of the grid."""
    block: int
    """Side of a block in pixels."""
    guard: int
    """Pixels kept unused between a fold and a stricter one (Chebyshev distance)."""
    by: SplitBy
    fold: Folds
    """(units,) the fold of every unit; a block's unit is its number, row by row from the upper left."""
    home: Ints | None = None
    """(parcels + 1,) the unit that every parcel counts to, -1 = none; entry 0 is not a parcel."""
    marks: Marks | None = None

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.shape[1] // self.block)

    def blocks(self, y: Ints, x: Ints) -> Ints:
        """The block of each pixel at rows y and columns x."""
        return (y // self.block) * self.across + x // self.block

    def units(self, parcel: npt.NDArray[np.int32] | None, y: slice, x: slice) -> Ints:
        """The unit of every pixel (h, w) of a block, -1 = none."""
        rows, columns = np.arange(y.start, y.stop)[:, None], np.arange(x.start, x.stop)[None, :]
        own = self.blocks(rows, columns) if self.by == "blocks" else np.full((rows.size, columns.size), -1)
        if parcel is not None and self.home is not None:
            own = np.where(parcel > 0, self.home[parcel], own)
        return np.asarray(own, dtype=np.int64)

    def fold_of(self, unit: Ints) -> Folds:
        """The fold of some units; 0 for -1."""
        return np.append(self.fold, np.uint8(UNUSED))[unit]

    def raw(self, label: npt.NDArray[np.integer], parcel: npt.NDArray[np.int32] | None, y: slice, x: slice) -> Folds:
        """The fold of every pixel (h, w) before the guard; unlabelled pixels (negative) are unused, marks are used.

        Where several places mark one pixel, it is of the strictest of their folds.
        """
        units = self.units(parcel, y, x)
        folds = np.where(label >= 0, self.fold_of(units), UNUSED).astype(np.uint8)
        if self.marks is not None:
            down, right, unit = self.marks.inside(y, x)
            unit = np.where(unit == AS_THE_PIXEL, units[down, right], unit)
            folds[down, right] = UNUSED
            np.maximum.at(folds, (down, right), self.fold_of(unit))
        return folds

    def around(self, reader: LabelReader, y: slice, x: slice, reach: int) -> tuple[Folds, slice, slice]:
        """Folds before the guard of a block widened by `reach` pixels as far as the grid goes, and what it covers."""
        wide_y = slice(max(0, y.start - reach), min(self.shape[0], y.stop + reach))
        wide_x = slice(max(0, x.start - reach), min(self.shape[1], x.stop + reach))
        parcel = None if self.home is None else reader.parcels(wide_y, wide_x)
        return self.raw(reader.labels(wide_y, wide_x), parcel, wide_y, wide_x), wide_y, wide_x

    def folds(self, reader: LabelReader, y: slice, x: slice) -> Folds:
        """The fold of every pixel (h, w) of a block: 0 unused, 1 train, 2 validation, 3 test.

        Laws: the same whatever blocks a region is read in; no pixel lies within `guard` pixels of a stricter fold (test
        before validation before train); no parcel stands in two folds.
        """
        y, x = slice(*y.indices(self.shape[0])[:2]), slice(*x.indices(self.shape[1])[:2])
        wide, wide_y, wide_x = self.around(reader, y, x, self.guard)
        inner = (
            slice(y.start - wide_y.start, y.stop - wide_y.start),
            slice(x.start - wide_x.start, x.stop - wide_x.start),
        )
        return guarded(wide, self.guard)[inner]


def guarded(folds: Folds, guard: int) -> Folds:
    """Folds (h, w) without the pixels that lie within `guard` pixels of a stricter fold."""
    out = folds.copy()
    for loose, strict in STRICTER.items():
        near = maximum_filter(np.isin(folds, strict), size=2 * guard + 1, mode="constant")
        out[(folds == loose) & near] = UNUSED
    return out


def assign_folds(counts: Ints, section: SampleSection, places: str) -> Folds:
    """The fold of every unit, from labelled pixels per unit and class (units, K): 0 where nothing is labelled.

    With `section.folds` = k the labelled units are parted into k parts of similar class shares, the same parts for
    every `test_fold`; else a share of `section.test` is held out. Of many seeded draws, the one whose folds' class
    shares are closest to the whole's is taken.

    Raises:
        MdicoError: too few labelled units for the folds; `places` names them.
    """
    used = np.flatnonzero(counts.sum(axis=1))
    held = round(section.validation * used.size)
    validation = max(1, held) if section.validation else 0
    fold = np.full(len(counts), UNUSED, dtype=np.uint8)
    k = section.folds or (used.size if section.split == "year" else None)
    if k is None:
        test = max(1, round(section.test * used.size))
        _check_units(used.size, 1 + test + validation, section, places)
        parts = _alike(counts, used, (test, validation, used.size - test - validation), [section.seed, 1])
        for name, part in zip((TEST, VALIDATION, TRAIN), parts, strict=True):
            fold[part] = name
        return fold
    _check_units(used.size, 2, section, places)
    if k > used.size:
        raise MdicoError(f"samples.folds: {k} folds cannot be made of {used.size} {places}. Use {used.size} or fewer.")
    if section.test_fold >= k:
        raise MdicoError(f"samples.test_fold: {section.test_fold} does not exist, folds are counted 0 to {k - 1}.")
    parts = part_units(counts, used, k, section.seed) if k < used.size else [used[i : i + 1] for i in range(k)]
    test_part = parts[section.test_fold]
    rest = np.setdiff1d(used, test_part)
    _check_units(rest.size, 1 + validation, section, places)
    kept, train = _alike(counts, rest, (validation, rest.size - validation), [section.seed, 3, section.test_fold])
    fold[test_part], fold[kept], fold[train] = TEST, VALIDATION, TRAIN
    return fold


def part_units(counts: Ints, used: Ints, k: int, seed: int) -> list[Ints]:
    """Part units into k parts of similar size and class shares; every unit is in exactly one."""
    sizes = [len(part) for part in np.array_split(used, k)]
    return _alike(counts, used, sizes, [seed, 1])


def _check_units(have: int, need: int, section: SampleSection, places: str) -> None:
    if have < need:
        way = f"Use smaller blocks than samples.block: {section.block}" if section.split == "blocks" else "Label more"
        raise MdicoError(
            f"samples.split: there are only {have} {places}, too few for training, validation and test. {way}, or "
            "hold out less (samples.validation, samples.test, samples.folds)."
        )


def _alike(counts: Ints, units: Ints, sizes: Sequence[int], seed: Sequence[int]) -> list[Ints]:
    """Units parted by size: of many seeded draws, the one whose parts' class shares are closest to the whole's."""
    generator = np.random.default_rng(seed)
    whole = counts[units].sum(axis=0)
    borders = np.cumsum(sizes)[:-1]
    best, best_score = None, np.inf
    for _ in range(max(1, min(_DRAWS, _DRAWN_UNITS // units.size))):
        parts = np.split(generator.permutation(units), borders)
        score = sum(_distance(counts[part].sum(axis=0), whole) for part in parts)
        if score < best_score:
            best, best_score = parts, score
    assert best is not None
    return best


def _distance(counts: Ints, whole: Ints) -> float:
    """Mean factor between a part's class shares and the whole's, as a logarithm; a lacking class counts 10."""
    present = whole > 0
    if counts.sum() == 0:
        return 0.0
    share = counts[present] / counts.sum()
    with np.errstate(divide="ignore"):
        ratio = np.abs(np.log(share / (whole[present] / whole.sum())))
    return float(np.minimum(ratio, 10).mean())
