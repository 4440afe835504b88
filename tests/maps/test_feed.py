"""Batches of one shape through a device: as many as fit, half where they do not, each item once and in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.fast import fast_form
from mdico_cube.errors import MdicoError
from mdico_cube.maps import feed as feeding
from mdico_cube.maps.block import predict_together
from mdico_cube.maps.feed import CPU, LANES, Lane, Room, feed, fitting, torch_device
from mdico_cube.maps.gathered import read_input
from mdico_cube.maps.outputs import Layers
from mdico_cube.maps.plan import class_values, plan_map
from mdico_cube.maps.write import write_map

GIB = 1 << 30


no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here")


@pytest.mark.parametrize(
    ("free", "each", "most", "expected"),
    [
        (16 * GIB, 50_000, 1 << 16, 1 << 16),  # more are of no use
        (1 * GIB, 50_000, 1 << 16, 8192),  # .8 x 2**30 / 100,000 = 8,589
        (1 * GIB, GIB // 2, 64, 1),  # never less than one
        (0, 1000, 64, 1),
        (GIB, 0, 64, 64),
    ],
)
def test_a_batch_is_what_fits_into_a_share_of_the_free_memory(free, each, most, expected):
    assert fitting(free, each, most) == expected


def test_both_lanes_stay_within_the_memory():
    for free in (10**8, 10**9, 10**10):
        count = fitting(free, 40_000, 1 << 20)
        assert LANES * count * 40_000 <= 0.8 * free < LANES * 2 * count * 40_000


def shapes(count):
    return [((3, count), torch.float32)]


def filling(source):
    def fill(arrays, start, stop):
        arrays[0][:, : stop - start] = source[:, start:stop]

    return fill


@pytest.mark.parametrize("most", [1, 4, 7, 100])
def test_every_item_once_in_order_in_batches_of_one_shape(most):
    source = np.arange(60, dtype=np.float32).reshape(3, 20)
    came = []

    def score(part):
        came.append(part.shape[1])
        return part.sum(dim=0)

    found = np.concatenate(
        [out[: b - a].copy() for a, b, out in feed(score, Room(most=most), shapes, 20, filling(source))]
    )
    assert np.array_equal(found, source.sum(axis=0))
    assert set(came) == {most}


@pytest.mark.parametrize("holds", [1, 3, 8])
def test_a_batch_that_does_not_fit_is_cut_in_half_and_goes_again(holds, monkeypatch):
    """As on a card: two lanes are on their way when the second one finds no memory."""
    source = np.arange(60, dtype=np.float32).reshape(3, 20)
    monkeypatch.setattr(
        Room, "lanes", lambda self, score, of: [Lane(tuple(of(self.at_once)), CPU) for _ in range(LANES)]
    )
    room, tried = Room(most=16, at_once=16), []

    def score(part):
        tried.append(part.shape[1])
        if part.shape[1] > holds or (len(tried) == 4 and holds == 8):
            raise torch.OutOfMemoryError
        return part.sum(dim=0)

    found = np.concatenate([out[: b - a].copy() for a, b, out in feed(score, room, shapes, 20, filling(source))])
    assert np.array_equal(found, source.sum(axis=0))
    assert room.at_once <= max(holds, 1)
    assert tried[0] == 16


def test_one_item_that_does_not_fit_is_one_sentence():
    def score(part):
        raise torch.OutOfMemoryError

    with pytest.raises(MdicoError, match=r"does not hold one window. Use device cpu"):
        list(feed(score, Room(most=2), shapes, 3, filling(np.zeros((3, 3), np.float32))))


@no_card
def test_a_card_that_is_not_there_is_one_sentence_and_nothing_is_written(run):
    target = run.out / "maps" / "card.zarr"
    with pytest.raises(MdicoError, match=r"maps.device cuda: torch sees no card.*Use device cpu"):
        write_map(run.cube, run.bundle(), target, device="cuda")
    assert not target.exists()
    assert torch_device("cpu") == CPU
    assert plan_map(run.cube, run.bundle(), device="auto").device == "cpu"


def test_a_card_beyond_the_last_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device("cuda:1").index == 1
    with pytest.raises(MdicoError, match=r"there are 2 cards here, numbered from 0"):
        torch_device("cuda:2")


def test_an_unknown_device_is_refused(run):
    with pytest.raises(MdicoError, match=r"maps\.device"):
        plan_map(run.cube, run.bundle(), device="tpu")


def test_several_lanes_change_no_bit(run, monkeypatch):
    """What a card does with two lanes, done on the processor."""
    bundle = load_bundle(run.bundle())
    inputs, values = (read_input(run.reader, "sentinel2", *run.everything),), class_values(bundle.config.classes)
    layers = Layers(probabilities=True, observations=True)
    whole = predict_together(fast_form(bundle.model), inputs, values, 64, layers)
    lanes = [[((4, 4, 64), torch.float32), ((4, 64), torch.bool)]] * LANES
    monkeypatch.setattr(feeding.Room, "lanes", lambda self, score, of: [Lane(tuple(each), CPU) for each in lanes])
    room = Room(most=64, at_once=64)
    assert np.array_equal(predict_together(fast_form(bundle.model), inputs, values, room, layers), whole)


def test_backends_of_processors_are_refused_on_a_card(run):
    model = load_bundle(run.bundle()).model
    with pytest.raises(MdicoError, match=r"computes on processors only. Use backend torch or compile"):
        fast_form(model, "32-true", "openvino", device=torch.device("cuda"))
    with pytest.raises(MdicoError, match=r"int8 computes on processors only"):
        fast_form(model, "int8", "torch", ranges=((),), device=torch.device("cuda"))
