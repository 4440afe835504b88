"""Splits: whole blocks, a guard distance, no shared parcel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import TEST, TRAIN, UNUSED, VALIDATION, check_split, split_folds
from mdico_cube.recipe import SampleSection
from mdico_cube.schema import UNLABELLED


def nearest(first: np.ndarray, second: np.ndarray) -> float:  # type: ignore[type-arg]
    """Smallest Chebyshev distance between two sets of pixels, by brute force."""
    a, b = np.argwhere(first), np.argwhere(second)
    if not len(a) or not len(b):
        return np.inf
    return min(np.abs(b - pixel).max(axis=1).min() for pixel in a)


@st.composite
def regions(draw):  # type: ignore[no-untyped-def]
    height, width = draw(st.integers(24, 40)), draw(st.integers(24, 40))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    label = generator.integers(0, 3, (height, width)).astype(np.uint8)
    label[generator.random((height, width)) < draw(st.sampled_from([0, 0.3]))] = UNLABELLED
    rows, columns = np.indices(label.shape)
    parcel = (rows // 5 * 100 + columns // 7 + 1).astype(np.int32) if draw(st.booleans()) else None
    section = SampleSection(
        block=draw(st.integers(4, 9)),
        guard=draw(st.integers(0, 4)),
        validation=draw(st.sampled_from([0.0, 0.2])),
        test=0.25,
        seed=draw(st.integers(0, 5)),
    )
    return label, parcel, section


@settings(max_examples=40)
@given(regions())
def test_folds_keep_their_distance_and_share_no_parcel(region) -> None:  # type: ignore[no-untyped-def]
    label, parcel, section = region
    folds = split_folds(label, parcel, 3, section)
    assert (folds[label == UNLABELLED] == UNUSED).all()
    for loose, strict in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
        assert nearest(folds == loose, folds == strict) > section.guard
        if parcel is not None:
            assert not np.intersect1d(parcel[folds == loose], parcel[folds == strict]).size
    assert (folds == TEST).any()


@given(regions())
@settings(max_examples=10)
def test_without_parcels_a_block_has_one_fold(region) -> None:  # type: ignore[no-untyped-def]
    label, _, section = region
    folds = split_folds(label, None, 3, section)
    side = section.block
    for row in range(0, label.shape[0], side):
        for column in range(0, label.shape[1], side):
            assert len(set(folds[row : row + side, column : column + side].ravel()) - {UNUSED}) <= 1


def test_the_seed_decides() -> None:
    label = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(np.uint8)
    first, again, other = (split_folds(label, None, 2, SampleSection(block=10, guard=1, seed=s)) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_every_fold_gets_its_share_and_every_class() -> None:
    rows, columns = np.indices((80, 80))
    label = ((rows // 20 + columns // 20) % 4).astype(np.uint8)
    folds = split_folds(label, None, 4, SampleSection(block=10, guard=0, test=0.25, validation=0.25))
    for fold in (TRAIN, VALIDATION, TEST):
        assert set(label[folds == fold]) == {0, 1, 2, 3}
    assert (folds == TEST).mean() == pytest.approx(0.25, abs=0.01)


def test_too_large_blocks_are_refused() -> None:
    with pytest.raises(MdicoError, match="make only 1 labelled blocks"):
        split_folds(np.zeros((20, 20), np.uint8), None, 1, SampleSection(block=64))


def test_a_leak_is_refused() -> None:
    folds = np.full((10, 10), TRAIN, dtype=np.uint8)
    folds[:, 7:] = TEST
    with pytest.raises(MdicoError, match="within 2 pixels"):
        check_split(folds, None, 2)
    folds[:, 5:7] = UNUSED
    check_split(folds, None, 2)
    parcel = np.ones((10, 10), dtype=np.int32)
    with pytest.raises(MdicoError, match="1 parcels stand in training"):
        check_split(folds, parcel, 2)
