"""Windows: positions that cover the grid, random ones, and the fold of each."""

from __future__ import annotations

import numpy as np
import pytest
from array_labels import ArrayLabels
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import STRICTER
from mdico_cube.patches.windows import box_sums, draw_keys, grid_windows, random_windows, window_folds
from mdico_cube.recipe import SampleSection

sides = st.integers(1, 9)


def pieces(shape: tuple[int, int], tall: int, wide: int) -> list[tuple[slice, slice]]:
    """Blocks that part a grid."""
    return [
        (slice(y, y + tall), slice(x, x + wide)) for y in range(0, shape[0], tall) for x in range(0, shape[1], wide)
    ]


@given(st.integers(9, 50), st.integers(9, 50), sides, st.integers(1, 12), st.integers(3, 60), st.integers(3, 60))
def test_grid_windows_cover_every_pixel(height: int, width: int, side: int, step: int, tall: int, wide: int) -> None:
    """Exactly once where step = side and the shape divides; at least once where the step leaves no gap."""
    count = np.zeros((height, width), dtype=int)
    found = []
    for block in pieces((height, width), tall, wide):
        for y, x in zip(*grid_windows((height, width), side, step, *block), strict=True):
            assert 0 <= y <= height - side
            assert 0 <= x <= width - side
            count[y : y + side, x : x + side] += 1
            found.append((int(y), int(x)))
    assert len(set(found)) == len(found), "no window comes twice, whatever the blocks"
    if step <= side:
        assert (count >= 1).all()
    if step == side:
        assert (count[: height // side * side, : width // side * side] <= 4).all()
        if height % side == 0 and width % side == 0:
            assert (count == 1).all()


@given(st.integers(9, 40), st.integers(9, 40), sides, st.integers(1, 400), st.integers(0, 5), st.integers(3, 50))
def test_random_windows_do_not_depend_on_the_blocks(
    height: int, width: int, side: int, count: int, seed: int, tall: int
) -> None:
    shape = (height, width)
    whole = set(zip(*random_windows(shape, side, count, seed, slice(0, height), slice(0, width)), strict=True))
    parts = [
        pair
        for block in pieces(shape, tall, 7)
        for pair in zip(*random_windows(shape, side, count, seed, *block), strict=True)
    ]
    assert len(parts) == len(set(parts))
    assert set(parts) == whole
    assert all(y + side <= height and x + side <= width for y, x in whole)
    if count >= (height - side + 1) * (width - side + 1):
        assert len(whole) == (height - side + 1) * (width - side + 1)


def test_random_windows_are_about_as_many_as_asked_and_evenly_spread() -> None:
    y, x = random_windows((1000, 1000), 1, 10_000, 3, slice(0, 1000), slice(0, 1000))
    assert y.size == pytest.approx(10_000, rel=0.05)
    counts, _, _ = np.histogram2d(y, x, bins=4, range=[[0, 1000], [0, 1000]])
    np.testing.assert_allclose(counts, 625, rtol=0.2)
    other = random_windows((1000, 1000), 1, 10_000, 4, slice(0, 1000), slice(0, 1000))
    assert len(set(zip(y, x, strict=True)) & set(zip(*other, strict=True))) < 300


def test_keys_are_evenly_spread_and_differ_by_purpose() -> None:
    y, x = np.indices((400, 400)).reshape(2, -1)
    keys = draw_keys(0, 2, y, x)
    assert len(np.unique(keys)) == keys.size
    counts, _ = np.histogram(keys / 2.0**64, bins=16, range=(0, 1))
    np.testing.assert_allclose(counts, keys.size / 16, rtol=0.06)
    assert (draw_keys(0, 2, y, x) == keys).all()
    assert not (draw_keys(0, 3, y, x) == keys).any()
    assert not (draw_keys(1, 2, y, x) == keys).any()


@given(st.integers(0, 99), st.integers(-6, 12), st.integers(-6, 12), st.integers(1, 9), st.integers(1, 9))
def test_box_sums_are_sums_of_boxes(seed: int, y: int, x: int, tall: int, wide: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, (3, 11, 9))
    want = mask[:, max(0, y) : max(0, y + tall), max(0, x) : max(0, x + wide)].sum(axis=(1, 2))
    np.testing.assert_array_equal(box_sums(mask, np.array([y]), np.array([x]), tall, wide)[:, 0], want)


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(0, 4), st.integers(0, 50), st.booleans())
def test_a_window_touches_one_fold_only(side: int, guard: int, seed: int, gaps: bool) -> None:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, (40, 44)).astype(np.int16)
    if gaps:
        label[generator.random(label.shape) < 0.5] = -1
    labels = ArrayLabels(label)
    split = labels.split(SampleSection(block=8, guard=guard, seed=seed))
    whole = slice(0, 40), slice(0, 44)
    raw, _, _ = split.around(labels, *whole, 0)
    y, x = grid_windows((40, 44), side, 2, *whole)
    fold = window_folds(raw, y, x, side, guard)
    for top, left, name in zip(y, x, fold, strict=True):
        centre = raw[top + side // 2, left + side // 2]
        inside = raw[top : top + side, left : left + side]
        wide = raw[max(0, top - guard) : top + side + guard, max(0, left - guard) : left + side + guard]
        pure = set(inside.ravel()) <= {0, centre}
        free = not set(wide.ravel()) & set(STRICTER.get(int(centre), ()))
        assert name == (centre if centre and pure and free else 0)
    if side == 1:
        folds = split.folds(labels, *whole)
        assert (fold == folds[y, x]).all(), "a window of one pixel is of its pixel's fold"


def test_a_window_that_does_not_fit() -> None:
    with pytest.raises(MdicoError, match="a window of 65 pixels does not fit into 64 pixels"):
        grid_windows((64, 96), 65, 65, slice(0, 64), slice(0, 96))
    with pytest.raises(MdicoError, match="a window of 65 pixels does not fit"):
        random_windows((64, 96), 65, 10, 0, slice(0, 64), slice(0, 96))
