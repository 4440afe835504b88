"""Splits: whole blocks, a guard distance, no shared parcel, told block by block."""

from __future__ import annotations

import numpy as np
import pytest
from array_labels import ArrayLabels
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import TEST, TRAIN, UNUSED, VALIDATION, Marks, Split, assign_folds
from mdico_cube.patches.windows import window_folds
from mdico_cube.recipe import SampleSection


def nearest(first: np.ndarray, second: np.ndarray) -> float:  # type: ignore[type-arg]
    """Smallest Chebyshev distance between two sets of pixels, by brute force."""
    a, b = np.argwhere(first), np.argwhere(second)
    if not len(a) or not len(b):
        return np.inf
    return np.abs(a[:, None] - b[None]).max(axis=2).min()


@st.composite
def regions(draw):  # type: ignore[no-untyped-def]
    height, width = draw(st.integers(24, 40)), draw(st.integers(24, 40))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    label = generator.integers(0, 3, (height, width)).astype(np.int16)
    label[generator.random((height, width)) < draw(st.sampled_from([0, 0.3]))] = -1
    rows, columns = np.indices(label.shape)
    parcel = (rows // 5 * 100 + columns // 7 + 1).astype(np.int32) if draw(st.booleans()) else None
    section = SampleSection(
        block=draw(st.integers(4, 9)),
        guard=draw(st.integers(0, 4)),
        validation=draw(st.sampled_from([0.0, 0.2])),
        test=0.25,
        folds=draw(st.sampled_from([None, 2, 4])),
        test_fold=draw(st.integers(0, 1)),
        seed=draw(st.integers(0, 5)),
    )
    return ArrayLabels(label, parcel), section


@settings(max_examples=40)
@given(regions())
def test_folds_keep_their_distance_and_share_no_parcel(region) -> None:  # type: ignore[no-untyped-def]
    labels, section = region
    folds = labels.folds(section)
    assert (folds[labels.label < 0] == UNUSED).all()
    for loose, strict in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
        assert nearest(folds == loose, folds == strict) > section.guard
        if labels.parcel is not None:
            assert not np.intersect1d(labels.parcel[folds == loose], labels.parcel[folds == strict]).size
    assert (folds == TEST).any()


def whole_region_folds(labels: ArrayLabels, section: SampleSection) -> np.ndarray:  # type: ignore[type-arg]
    """Naive oracle of the pixel folds: loops over parcels and over the pixels of the whole region at once."""
    fold = labels.split(section).fold
    rows, columns = np.indices(labels.shape)
    home = rows // section.block * -(-labels.shape[1] // section.block) + columns // section.block
    if labels.parcel is not None:
        own = home.copy()
        for number in np.unique(labels.parcel[labels.parcel > 0]):
            home[labels.parcel == number] = np.bincount(own[labels.parcel == number]).argmax()
    raw = np.where(labels.label >= 0, fold[home], UNUSED)
    out = raw.copy()
    for loose, strict in ((TRAIN, (VALIDATION, TEST)), (VALIDATION, (TEST,))):
        held = np.argwhere(np.isin(raw, strict))
        near = np.argwhere(raw == loose)
        near = near[(np.abs(near[:, None] - held[None]).max(axis=2) <= section.guard).any(axis=1)]
        out[near[:, 0], near[:, 1]] = UNUSED
    return out


@settings(max_examples=25)
@given(regions(), st.integers(5, 40), st.integers(5, 40))
def test_blockwise_equals_the_whole_region(region, tall: int, wide: int) -> None:  # type: ignore[no-untyped-def]
    labels, section = region
    split, pieces = labels.split(section, shard=tall), np.empty(labels.shape, np.uint8)
    for y in range(0, labels.shape[0], tall):
        for x in range(0, labels.shape[1], wide):
            block = slice(y, y + tall), slice(x, x + wide)
            pieces[block] = split.folds(labels, *block)
    np.testing.assert_array_equal(pieces, whole_region_folds(labels, section))


@given(regions())
@settings(max_examples=10)
def test_without_parcels_a_block_has_one_fold(region) -> None:  # type: ignore[no-untyped-def]
    labels, section = region
    folds = ArrayLabels(labels.label).folds(section)
    side = section.block
    for row in range(0, folds.shape[0], side):
        for column in range(0, folds.shape[1], side):
            assert len(set(folds[row : row + side, column : column + side].ravel()) - {UNUSED}) <= 1


@given(regions(), st.integers(2, 6))
@settings(max_examples=20)
def test_over_k_runs_every_block_is_tested_once(region, k: int) -> None:  # type: ignore[no-untyped-def]
    labels, section = region
    section = section.model_copy(update={"folds": k})
    runs = [labels.split(section.model_copy(update={"test_fold": i})).fold for i in range(k)]
    tested = np.sum([fold == TEST for fold in runs], axis=0)
    used = np.any([fold != UNUSED for fold in runs], axis=0)
    assert (tested == used).all()
    sizes = [(fold == TEST).sum() for fold in runs]
    assert max(sizes) - min(sizes) <= 1
    for fold in runs:
        assert ((fold != UNUSED) == used).all()
        assert (fold == TRAIN).any()
        assert (fold == VALIDATION).any() == (section.validation > 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_pixel_with_several_places_is_of_the_strictest_fold(order: tuple[int, int]) -> None:
    """Two places on one pixel, of years that train and test, and one beside them."""
    at = np.array([5, 5, 9])
    marks = Marks(at, at, np.array([*order, 0]))
    split = Split((20, 20), 10, 1, "year", np.array([TRAIN, TEST], np.uint8), None, marks)
    labels = ArrayLabels(np.full((20, 20), -1, np.int16))
    folds = split.folds(labels, slice(0, 20), slice(0, 20))
    assert (folds[5, 5], folds[9, 9], (folds > 0).sum()) == (TEST, TRAIN, 2)
    y, x = at - 1, at - 1
    own = split.fold_of(marks.unit)
    raw, _, _ = split.around(labels, slice(0, 20), slice(0, 20), 0)
    wanted = [TEST if unit else 0 for unit in order]
    assert window_folds(raw, y, x, 3, 1, own).tolist() == [*wanted, TRAIN], "the place of the training year is left out"


def test_the_seed_decides() -> None:
    labels = ArrayLabels(np.random.default_rng(0).integers(0, 2, (60, 60)).astype(np.int16))
    first, again, other = (labels.folds(SampleSection(block=10, guard=1, seed=s)) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_every_fold_gets_its_share_and_every_class() -> None:
    rows, columns = np.indices((80, 80))
    labels = ArrayLabels(((rows // 20 + columns // 20) % 4).astype(np.int16), classes=4)
    folds = labels.folds(SampleSection(block=10, guard=0, test=0.25, validation=0.25))
    for fold in (TRAIN, VALIDATION, TEST):
        assert set(labels.label[folds == fold]) == {0, 1, 2, 3}
    assert (folds == TEST).mean() == pytest.approx(0.25, abs=0.01)


def test_too_large_blocks_are_refused() -> None:
    with pytest.raises(MdicoError, match="only 1 labelled blocks"):
        ArrayLabels(np.zeros((20, 20), np.int16)).split(SampleSection(block=64))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"folds": 9}, "9 folds cannot be made of 4 labelled blocks"),
        ({"folds": 4, "validation": 0.7}, "only 3 labelled blocks, too few"),
        ({"split": "year", "test_fold": 4}, "4 does not exist, folds are counted 0 to 3"),
    ],
)
def test_folds_that_cannot_be_made(options: dict[str, object], sentence: str) -> None:
    counts = np.ones((4, 2), dtype=np.int64)
    section = SampleSection.model_validate({"test": 0.2, **options})
    with pytest.raises(MdicoError, match=sentence):
        assign_folds(counts, section, "labelled blocks")
