"""A grid in, positions of windows out: regular or at random, with their fold; no pixel of any sensor is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import STRICTER, UNUSED, Folds, Ints
from mdico_cube.spec import Bools

Keys = npt.NDArray[np.uint64]
_ANY = np.uint64(0x9E3779B97F4A7C15)  # odd constants of SplitMix64 (Steele, Lea and Flood, 2014)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Windows:
    """N square windows of `side` pixels."""

    y: Ints
    """(N,) first row."""
    x: Ints
    """(N,) first column."""
    fold: npt.NDArray[np.uint8]
    """(N,) 1 train, 2 validation, 3 test, 4 unlabelled."""
    label: Ints
    """(N,) class index of the window: of its centre pixel (row and column side // 2), or of the place it is for."""
    side: int
    group: Ints | None = None
    """(N,) parcel or group, 0 = none; None where nobody asked."""

    def __len__(self) -> int:
        return self.y.size

    def __add__(self, other: Windows) -> Windows:
        """These windows, then the others."""
        names = ("y", "x", "fold", "label")
        y, x, fold, label = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        both = self.group is not None and other.group is not None
        group = np.concatenate([self.group, other.group]) if both else None
        return Windows(y, x, fold, label, self.side, group)

    def take(self, index: Ints) -> Windows:
        """These windows in this order."""
        group = None if self.group is None else self.group[index]
        return Windows(self.y[index], self.x[index], self.fold[index], self.label[index], self.side, group)


def starts(extent: int, side: int, step: int) -> Ints:
    """First pixels of the windows along one axis: every `step` pixels from 0.

    Where the last window would leave pixels uncovered, one more is laid against the far edge, so that nothing is
    dropped (unless the step itself leaves gaps). Law: with step = side, every pixel is covered, and exactly once where
    the extent is a multiple of the side.

    Raises:
        MdicoError: the window is larger than the grid.
    """
    if side > extent:
        raise MdicoError(f"samples.patch: a window of {side} pixels does not fit into {extent} pixels of the grid.")
    found = np.arange(0, extent - side + 1, step, dtype=np.int64)
    if step <= side and found[-1] + side < extent:
        found = np.append(found, extent - side)
    return found


def grid_windows(shape: tuple[int, int], side: int, step: int, y: slice, x: slice) -> tuple[Ints, Ints]:
    """First rows and columns of the grid's windows that begin in a block of it, row by row."""
    rows, columns = (starts(extent, side, step) for extent in shape)
    rows = rows[(rows >= y.start) & (rows < y.stop)]
    columns = columns[(columns >= x.start) & (columns < x.stop)]
    down, right = np.meshgrid(rows, columns, indexing="ij")
    return down.ravel(), right.ravel()


def random_windows(shape: tuple[int, int], side: int, count: int, seed: int, y: slice, x: slice) -> tuple[Ints, Ints]:
    """First rows and columns of the random windows that begin in a block: about `count` in the whole grid.

    Whether a window begins at a pixel depends on seed and pixel alone, so blocks of any size give the same windows.
    """
    possible = [extent - side + 1 for extent in shape]
    if min(possible) < 1:
        raise MdicoError(
            f"samples.patch: a window of {side} pixels does not fit into a grid of {shape[0]} x {shape[1]}."
        )
    rows = np.arange(y.start, min(y.stop, possible[0]), dtype=np.int64)[:, None]
    columns = np.arange(x.start, min(x.stop, possible[1]), dtype=np.int64)[None, :]
    share = min(1.0, count / (possible[0] * possible[1]))
    chosen = draw_keys(seed, 4, rows, columns) / 2.0**64 < share
    down, right = np.nonzero(chosen)
    return down + y.start, right + x.start


def draw_keys(seed: int, purpose: int, y: Ints, x: Ints) -> Keys:
    """A number for each position, spread evenly over 0..2**64 - 1, that depends on seed, purpose and position alone."""
    with np.errstate(over="ignore"):
        key = _mixed(np.uint64(seed % 2**64) + _ANY * np.uint64(purpose))
        for place in (y, x):
            key = _mixed(key ^ (place.astype(np.uint64) * _ANY))
    return key


def _mixed(key: Keys | np.uint64) -> Keys:
    with np.errstate(over="ignore"):
        value = np.asarray(key, dtype=np.uint64) + _ANY
        value = (value ^ (value >> np.uint64(30))) * _MIX[0]
        value = (value ^ (value >> np.uint64(27))) * _MIX[1]
        return np.asarray(value ^ (value >> np.uint64(31)), dtype=np.uint64)


def box_sums(mask: npt.NDArray[np.generic], y: Ints, x: Ints, tall: int, wide: int) -> Ints:
    """Sum of `mask` (..., h, w) in the boxes (..., N) that begin at rows y and columns x, cut off at the borders."""
    total = np.zeros((*mask.shape[:-2], mask.shape[-2] + 1, mask.shape[-1] + 1), dtype=np.int32)
    np.cumsum(mask, axis=-2, dtype=np.int32, out=total[..., 1:, 1:])
    np.cumsum(total[..., 1:, 1:], axis=-1, out=total[..., 1:, 1:])
    top, bottom = np.clip(y, 0, mask.shape[-2]), np.clip(y + tall, 0, mask.shape[-2])
    left, right = np.clip(x, 0, mask.shape[-1]), np.clip(x + wide, 0, mask.shape[-1])
    sums = total[..., bottom, right] - total[..., top, right] - total[..., bottom, left] + total[..., top, left]
    return np.asarray(sums)


def window_folds(raw: Folds, y: Ints, x: Ints, side: int, guard: int, own: Folds | None = None) -> Folds:
    """The fold of every window (N,), 0 = of none, from the folds of the pixels around before the guard.

    A window is of its centre's fold (or of `own`, where that is known better) if every labelled pixel in it is, and if
    no pixel of a stricter fold lies in it or within `guard` pixels around it.

    Args:
        raw: (h, w) fold of every pixel; it must reach `guard` pixels beyond the windows, as far as the grid goes.
        y: (N,) first row within `raw`.
        x: (N,) first column within `raw`.
        side: of a window.
        guard: pixels.
        own: (N,) fold of the place that each window is for.
    """
    fold = raw[y + side // 2, x + side // 2] if own is None else own
    out = np.full(fold.shape, UNUSED, dtype=np.uint8)
    for name in np.unique(fold[fold != UNUSED]):
        here = np.flatnonzero(fold == name)
        free: Bools = np.ones(here.size, dtype=bool)
        if side > 1 or own is not None:
            free &= box_sums((raw != UNUSED) & (raw != name), y[here], x[here], side, side) == 0
        if STRICTER.get(int(name)):
            wide = side + 2 * guard
            free &= box_sums(np.isin(raw, STRICTER[int(name)]), y[here] - guard, x[here] - guard, wide, wide) == 0
        out[here[free]] = name
    return out
