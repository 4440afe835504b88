"""Windows: positions, purity, the draw."""

from __future__ import annotations

import numpy as np
import pytest
from array_labels import ArrayLabels
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.patches.windows import candidate_windows, draw_windows, grid_windows
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import LabelClass

LEGEND = tuple(LabelClass(name, i + 1, "#000000") for i, name in enumerate("abc"))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_grid_windows_cover_each_pixel_once(height: int, width: int, side: int) -> None:
    count = np.zeros((height, width), dtype=int)
    for y, x in zip(*grid_windows((height, width), side), strict=True):
        count[y : y + side, x : x + side] += 1
    assert (count[: height // side * side, : width // side * side] == 1).all()
    assert count.sum() == (height // side) * (width // side) * side**2


@given(st.integers(1, 7), st.integers(0, 50))
def test_a_window_touches_one_fold_only(side: int, seed: int) -> None:
    label = np.random.default_rng(seed).integers(0, 3, (40, 40)).astype(np.int16)
    folds = ArrayLabels(label).folds(SampleSection(block=8, guard=1, seed=seed))
    windows = candidate_windows(label, folds, side)
    for y, x, fold, centre in zip(windows.y, windows.x, windows.fold, windows.label, strict=True):
        inside = folds[y : y + side, x : x + side]
        assert set(inside.ravel()) - {0} == {fold}
        assert centre == label[y + side // 2, x + side // 2] >= 0


def test_the_draw_caps_each_class_and_repeats() -> None:
    generator = np.random.default_rng(3)
    label = generator.choice(3, (60, 60), p=[0.8, 0.15, 0.05]).astype(np.int16)
    section = SampleSection(block=10, guard=1, per_class=50)
    candidates = candidate_windows(label, ArrayLabels(label).folds(section), 1)
    drawn, again = draw_windows(candidates, LEGEND, section), draw_windows(candidates, LEGEND, section)
    assert (drawn.y == again.y).all()
    assert (drawn.x == again.x).all()
    positions = list(zip(drawn.y, drawn.x, strict=True))
    assert len(set(positions)) == len(positions)
    for index in range(3):
        available = ((candidates.fold == 1) & (candidates.label == index)).sum()
        assert ((drawn.fold == 1) & (drawn.label == index)).sum() == min(50, available)


def test_a_class_without_training_windows_is_named() -> None:
    label = np.zeros((40, 40), dtype=np.int16)
    label[:, 20:] = 1
    section = SampleSection(block=10, guard=0)
    candidates = candidate_windows(label, ArrayLabels(label).folds(section), 1)
    with pytest.raises(MdicoError, match="class 'c' has no training window"):
        draw_windows(candidates, LEGEND, section)
