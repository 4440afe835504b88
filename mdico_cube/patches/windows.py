"""A grid, its labels and folds in, the windows to train on out: positions only, no pixel of any sensor is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import FOLDS, TRAIN, Folds
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import LabelClass

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Windows:
    """N square windows of `side` pixels."""

    y: Ints
    """(N,) first row."""
    x: Ints
    """(N,) first column."""
    fold: npt.NDArray[np.uint8]
    """(N,) 1 train, 2 validation, 3 test."""
    label: Ints
    """(N,) class index of the window's centre pixel (row and column side // 2)."""
    side: int

    def __len__(self) -> int:
        return self.y.size

    def take(self, index: Ints) -> Windows:
        """These windows in this order."""
        return Windows(self.y[index], self.x[index], self.fold[index], self.label[index], self.side)


def grid_windows(shape: tuple[int, int], side: int) -> tuple[Ints, Ints]:
    """First rows and columns of the whole windows of a grid laid from the upper left corner, without overlap.

    Law: the windows cover every pixel of the largest multiple of `side` exactly once.
    """
    rows = np.arange(0, shape[0] - side + 1, side)
    columns = np.arange(0, shape[1] - side + 1, side)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return y.ravel().astype(np.int64), x.ravel().astype(np.int64)


def candidate_windows(label: npt.NDArray[np.int16], folds: Folds, side: int) -> Windows:
    """Grid windows whose centre is labelled and whose used pixels all belong to one fold.

    Unlabelled and guard pixels may lie inside; they carry no label when the window is cut.
    """
    y, x = grid_windows((label.shape[0], label.shape[1]), side)
    centre = side // 2
    fold = folds[y + centre, x + centre]
    keep = (fold > 0) & (label[y + centre, x + centre] >= 0)
    y, x, fold = y[keep], x[keep], fold[keep]
    if side > 1:
        pure = _pure(folds, y, x, fold, side)
        y, x, fold = y[pure], x[pure], fold[pure]
    return Windows(y, x, fold, label[y + centre, x + centre].astype(np.int64), side)


def _pure(folds: Folds, y: Ints, x: Ints, fold: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.bool_]:
    """True where every used pixel of a window is in the window's fold."""
    pure = np.ones(y.size, dtype=bool)
    for row in range(side):
        for column in range(side):
            here = folds[y + row, x + column]
            pure &= (here == fold) | (here == 0)
    return pure


def draw_windows(candidates: Windows, legend: tuple[LabelClass, ...], section: SampleSection) -> Windows:
    """At most `per_class` training windows of each class, and held-out windows in proportion to their share of blocks.

    Raises:
        MdicoError: a class of the legend that lies in the area is absent from training.
    """
    generator = np.random.default_rng([section.seed, 2])
    share = {"train": 1 - section.validation - section.test, "validation": section.validation, "test": section.test}
    chosen: list[Ints] = []
    for name, fold in FOLDS.items():
        cap = max(1, round(section.per_class * share[name] / share["train"]))
        for index, entry in enumerate(legend):
            here = np.flatnonzero((candidates.fold == fold) & (candidates.label == index))
            if fold == TRAIN and here.size == 0:
                raise MdicoError(
                    f"samples: class {entry.name!r} has no training window. "
                    "Use smaller blocks (samples.block), another seed, or drop the class from labels.classes."
                )
            chosen.append(np.sort(generator.permutation(here)[:cap]))
    return candidates.take(np.concatenate(chosen))
