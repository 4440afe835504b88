"""Unlabelled windows: away from held-out ground, whoever owns it; and batches that bring them along."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from array_labels import ArrayLabels
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from test_splits import regions

from mdico_cube.batch import Batch
from mdico_cube.errors import MdicoError
from mdico_cube.patches.dataset import WithUnlabelled
from mdico_cube.patches.pool import unlabelled_windows
from mdico_cube.patches.splits import POOL, TEST, VALIDATION
from mdico_cube.recipe import SampleSection


class Sharded:
    """As much of a cube as the draw looks at."""

    def __init__(self, labels: ArrayLabels, shard: int) -> None:
        self.shape, self.shard, self.parcels = labels.shape, shard, labels.parcels


@settings(max_examples=30)
@given(regions(), st.integers(1, 2), st.integers(7, 40), st.integers(0, 3))
def test_no_window_comes_near_a_held_out_unit(region, side: int, shard: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    labels, section = region
    split = labels.split(section)
    try:
        drawn = unlabelled_windows(Sharded(labels, shard), split, 5, side, seed)  # type: ignore[arg-type]
    except MdicoError:
        reject()  # held-out blocks everywhere
    everywhere = ArrayLabels(np.zeros_like(labels.label), labels.parcel)
    whole = slice(0, labels.shape[0]), slice(0, labels.shape[1])
    held = np.argwhere(np.isin(split.raw(everywhere.label, labels.parcel, *whole), (VALIDATION, TEST)))
    assert len(drawn) == 5
    assert (drawn.fold == POOL).all()
    assert (drawn.label == -1).all()
    for y, x in zip(drawn.y, drawn.x, strict=True):
        assert 0 <= y <= labels.shape[0] - side
        assert 0 <= x <= labels.shape[1] - side
        for down in range(side):
            for right in range(side):
                distance = np.abs(held - [y + down, x + right]).max(axis=1).min()
                assert distance > section.guard
    again = unlabelled_windows(Sharded(labels, 40), split, 5, side, seed)  # type: ignore[arg-type]
    assert np.array_equal(drawn.y, again.y)
    assert np.array_equal(drawn.x, again.x)


def test_too_many_are_refused() -> None:
    labels = ArrayLabels(np.zeros((24, 24), np.int16), None)
    split = labels.split(SampleSection(block=6, guard=1, validation=0.2, test=0.25))
    with pytest.raises(MdicoError, match=r"asks for 500 windows, but only \d+ lie away"):
        unlabelled_windows(Sharded(labels, 24), split, 500, 1, 0)  # type: ignore[arg-type]


def batch(values: list[int], label: int) -> Batch:
    numbers = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1, 1)
    seen = torch.ones(len(values), 1, 1, 1, dtype=torch.bool)
    return Batch({"a": numbers}, {"a": seen}, torch.full((len(values), 1, 1), label))


class Listed:
    """A loader of given batches."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.epochs, self.dataset = batches, [], self

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_every_labelled_batch_brings_unlabelled_windows_along() -> None:
    """The unlabelled begin again where they end before the labelled do."""
    labelled = Listed([batch([1, 2], 0), batch([3, 4], 1), batch([5], 0)])
    unlabelled = Listed([batch([10, 11, 12], -1), batch([13, 14, 15], -1)])
    both = WithUnlabelled(labelled, unlabelled)  # type: ignore[arg-type]
    got = [one.images["a"].flatten().tolist() for one in both]
    assert got == [[1, 2, 10, 11, 12], [3, 4, 13, 14, 15], [5, 10, 11, 12]]
    assert next(iter(both)).target.flatten().tolist() == [0, 0, -1, -1, -1]  # type: ignore[union-attr]
    assert len(both) == 3
    both.set_epoch(7)
    assert labelled.epochs == unlabelled.epochs == [7]


def test_batches_of_different_parts_are_not_joined() -> None:
    one = batch([1], 0)
    with pytest.raises(MdicoError, match="cannot be joined"):
        one.joined(one.replace(target=None))
