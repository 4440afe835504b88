"""Labels on a grid in, the fold of every pixel out: whole blocks, a guard distance between them, no shared parcel."""

from __future__ import annotations

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


def split_folds(
    label: npt.NDArray[np.uint8], parcel: npt.NDArray[np.int32] | None, classes: int, section: SampleSection
) -> Folds:
    """The fold of every pixel (y, x): 0 unused, 1 train, 2 validation, 3 test.

    Every block of `section.block` pixels belongs to one fold as a whole. A parcel that crosses a block's border
    counts to the block that holds most of it. Pixels of a fold that lie within `section.guard` pixels (Chebyshev
    distance) of a stricter fold (test before validation before train) are unused. Unlabelled pixels are unused.

    Laws: no training pixel lies within `guard` pixels of a validation or test pixel; no parcel stands in two folds.

    Raises:
        MdicoError: too few labelled blocks for the folds.
    """
    home, blocks = _home_blocks(label.shape, parcel, section.block)
    known = label != UNLABELLED
    counts = np.zeros((blocks, classes), dtype=np.int64)
    np.add.at(counts, (home[known], label[known]), 1)
    folds = _assign(counts, section)[home]
    folds[label == UNLABELLED] = UNUSED
    folds = _guarded(folds, section.guard)
    check_split(folds, parcel, section.guard)
    return folds


def _home_blocks(
    shape: tuple[int, ...], parcel: npt.NDArray[np.int32] | None, side: int
) -> tuple[npt.NDArray[np.int64], int]:
    """The block every pixel (y, x) counts to, and how many blocks there are.

    A parcel counts to the block that holds most of it.
    """
    rows, columns = np.arange(shape[0]) // side, np.arange(shape[1]) // side
    across = int(columns[-1]) + 1
    own = rows[:, None] * across + columns[None, :]
    blocks = (int(rows[-1]) + 1) * across
    if parcel is None:
        return own, blocks
    inside = parcel > 0
    pairs, pixels = np.unique(parcel[inside].astype(np.int64) * blocks + own[inside], return_counts=True)
    order = np.lexsort((pairs, -pixels))[::-1]  # the last write wins: most pixels, then the first block
    home = np.zeros(int(parcel.max()) + 1, dtype=np.int64)
    home[pairs[order] // blocks] = pairs[order] % blocks
    return np.where(inside, home[parcel], own), blocks


def _assign(counts: npt.NDArray[np.int64], section: SampleSection) -> npt.NDArray[np.uint8]:
    """Fold of every block: of many seeded draws, the one whose folds' class shares are closest to the whole's."""
    used = np.flatnonzero(counts.sum(axis=1))
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
    whole = counts.sum(axis=0)
    best, best_score = None, np.inf
    for _ in range(_DRAWS):
        order = generator.permutation(used)
        folds = np.full(len(counts), UNUSED, dtype=np.uint8)
        folds[order] = TRAIN
        folds[order[: want[TEST]]] = TEST
        folds[order[want[TEST] : want[TEST] + want[VALIDATION]]] = VALIDATION
        score = sum(_distance(counts[folds == fold].sum(axis=0), whole) for fold in (TEST, VALIDATION, TRAIN))
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
