"""Labels on a grid in, the fold of every pixel out: whole blocks, a guard distance between them, no shared parcel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import SampleSection
from mdico_cube.schema import UNLABELLED

UNUSED, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
FOLDS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_DRAWS = 200  # block assignments tried; the one whose folds have the most similar classes is taken

Folds = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Square blocks of the grid with the classes that lie in them."""

    counts: npt.NDArray[np.int64]
    """(blocks, K) labelled pixels of each class."""
    across: int
    """Blocks in a row."""


def split_folds(
    label: npt.NDArray[np.uint8], parcel: npt.NDArray[np.int32] | None, classes: int, section: SampleSection
) -> Folds:
    """The fold of every pixel (y, x): 0 unused, 1 train, 2 validation, 3 test.

    Every block of `section.block` pixels belongs to one fold as a whole. A parcel that crosses a block's border goes
    to the fold that holds most of it. Pixels of a fold that lie within `section.guard` pixels (Chebyshev distance) of
    a stricter fold (test before validation before train) are unused. Unlabelled pixels are unused.

    Laws: no training pixel lies within `guard` pixels of a validation or test pixel; no parcel stands in two folds.

    Raises:
        MdicoError: too few blocks, or a class that the training or the test fold would lack.
    """
    blocks = _count(label, classes, section.block)
    fold_of_block = _assign(blocks, section)
    rows = np.arange(label.shape[0]) // section.block
    columns = np.arange(label.shape[1]) // section.block
    folds = fold_of_block[rows[:, None] * blocks.across + columns[None, :]].astype(np.uint8)
    if parcel is not None:
        folds = _whole_parcels(folds, parcel)
    folds[label == UNLABELLED] = UNUSED
    folds = _guarded(folds, section.guard)
    check_split(folds, parcel, section.guard)
    return folds


def _count(label: npt.NDArray[np.uint8], classes: int, side: int) -> _Blocks:
    height, width = label.shape
    down, across = -(-height // side), -(-width // side)
    counts = np.zeros((down * across, classes), dtype=np.int64)
    for row in range(down):
        for column in range(across):
            part = label[row * side : (row + 1) * side, column * side : (column + 1) * side]
            found = np.bincount(part[part != UNLABELLED], minlength=classes)
            counts[row * across + column] = found[:classes]
    return _Blocks(counts, across)


def _assign(blocks: _Blocks, section: SampleSection) -> npt.NDArray[np.uint8]:
    """Fold of every block: of many seeded draws, the one whose folds' class shares are closest to the whole's."""
    used = np.flatnonzero(blocks.counts.sum(axis=1))
    want = {
        TEST: max(1, round(section.test * used.size)),
        VALIDATION: max(1, round(section.validation * used.size)) if section.validation else 0,
    }
    if used.size - sum(want.values()) < 1:
        raise MdicoError(
            f"samples.block: {section.block} pixels make only {used.size} labelled blocks, too few for training, "
            "validation and test. Use smaller blocks."
        )
    generator = np.random.default_rng([section.seed, 1])
    whole = blocks.counts.sum(axis=0)
    best, best_score = None, np.inf
    for _ in range(_DRAWS):
        order = generator.permutation(used)
        folds = np.full(len(blocks.counts), UNUSED, dtype=np.uint8)
        folds[order] = TRAIN
        folds[order[: want[TEST]]] = TEST
        folds[order[want[TEST] : want[TEST] + want[VALIDATION]]] = VALIDATION
        score = sum(_distance(blocks.counts[folds == fold].sum(axis=0), whole) for fold in (TEST, VALIDATION, TRAIN))
        if score < best_score:
            best, best_score = folds, score
    assert best is not None
    return best


def _distance(counts: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> float:
    """Largest factor between a fold's class shares and the whole's, as a logarithm; a lacking class counts 10."""
    present = whole > 0
    if counts.sum() == 0:
        return 0.0
    share = counts[present] / counts.sum()
    with np.errstate(divide="ignore"):
        ratio = np.abs(np.log(share / (whole[present] / whole.sum())))
    return float(np.minimum(ratio, 10).mean())


def _whole_parcels(folds: Folds, parcel: npt.NDArray[np.int32]) -> Folds:
    """Every parcel to the fold that holds most of its pixels."""
    inside = parcel > 0
    votes = np.zeros((int(parcel.max()) + 1, len(FOLDS) + 1), dtype=np.int64)
    np.add.at(votes, (parcel[inside], folds[inside]), 1)
    winner = votes.argmax(axis=1).astype(np.uint8)
    return np.where(inside, winner[parcel], folds)


def _guarded(folds: Folds, guard: int) -> Folds:
    out = folds.copy()
    for loose, strict in ((TRAIN, (VALIDATION, TEST)), (VALIDATION, (TEST,))):
        held_out = np.isin(folds, strict)
        near = maximum_filter(held_out, size=2 * guard + 1, mode="constant")
        out[(folds == loose) & near] = UNUSED
    return out


def check_split(folds: Folds, parcel: npt.NDArray[np.int32] | None, guard: int) -> None:
    """Raise MdicoError if a fold touches a stricter one within the guard distance, or shares a parcel with it."""
    for loose, strict in ((TRAIN, (VALIDATION, TEST)), (VALIDATION, (TEST,))):
        held_out = np.isin(folds, strict)
        near = maximum_filter(held_out, size=2 * guard + 1, mode="constant")
        if ((folds == loose) & near).any():
            raise MdicoError(f"split: training pixels lie within {guard} pixels of held-out ones: that would leak.")
        if parcel is not None:
            shared = np.intersect1d(parcel[(folds == loose) & (parcel > 0)], parcel[held_out & (parcel > 0)])
            if shared.size:
                raise MdicoError(
                    f"split: {shared.size} parcels stand in training and in held-out data: that would leak."
                )
