"""Parcels are whole, every class occurs, and the truth is what most of a pixel's cells say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mdico_cube.demo.fields import whole_pieces
from mdico_cube.demo.landscape import CLASSES, build_landscape
from mdico_cube.demo.world import World


def test_pieces_are_connected_and_large_enough() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (40, 40)).repeat(3, axis=0).repeat(3, axis=1).astype(np.int32)
    pieces = whole_pieces(ids, smallest=20)
    sizes = np.bincount(pieces.ravel())
    assert sizes.min() >= 9  # a sliver joins the nearest large piece and may bring others along
    assert (sizes >= 20).mean() > 0.9
    for piece in range(pieces.max() + 1):
        assert ndimage.label(pieces == piece)[1] == 1


def test_truth_is_the_majority_of_cells(world: World) -> None:
    land = world.landscape
    truth = land.truth()
    rows, cols = land.frame.inner
    kind = land.kind[land.parcel][rows, cols] + 1
    declared = land.labelled[land.parcel][rows, cols]
    for i, j in np.random.default_rng(0).integers(0, land.frame.size, (400, 2)):
        cells = kind[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
        weight = np.where(declared[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel(), 1.0, 0.9)
        votes = {value: weight[cells == value].sum() for value in sorted(set(cells.tolist()))}
        assert votes[truth[i, j]] == pytest.approx(max(votes.values()))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_class_occurs_even_in_a_small_region(seed: int) -> None:
    land = build_landscape(seed, 96)
    shares = np.bincount(land.truth().ravel(), minlength=9)[1:] / land.frame.size**2
    assert shares.size == len(CLASSES)
    assert shares.min() > 0.002
    assert shares.max() < 0.5


def test_there_are_slopes(world: World) -> None:
    slope = np.degrees(np.arctan(np.hypot(*world.landscape.gradient())))
    assert 1 < np.median(slope) < 6
    assert np.quantile(slope, 0.99) > 4
