"""Memory that goes round: never while anybody looks at it, and never more of it than is allowed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from mdico_cube.cube.memory import Memory
from mdico_cube.spec import Array

SHAPE = (3, 40, 1000)


def place(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_block_is_used_again_once_its_array_is_gone() -> None:
    memory = Memory()
    one = memory.empty(SHAPE, np.uint16)
    here = place(one)
    assert one.shape == SHAPE
    assert one.dtype == np.uint16
    assert place(memory.empty(SHAPE, np.uint16)) != here
    del one
    assert place(memory.empty((120_000,), np.int16)) == here  # as many bytes, another shape


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1:, :2],
        lambda array: array.reshape(-1)[:5],
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[0].view(-1)[3:9],
    ],
    ids=["slice", "reshape", "tensor", "part of a tensor"],
)
def test_a_view_keeps_the_block(view: Callable[[Array], Any]) -> None:
    memory = Memory()
    array = memory.empty(SHAPE, np.float32)
    here, array[:] = place(array), 7
    found = view(array)
    del array
    gc.collect()
    assert memory.waiting == 0
    other = memory.empty(SHAPE, np.float32)
    other[:] = 8
    assert place(other) != here
    assert (np.asarray(found) == 7).all()
    del found
    assert memory.waiting == 524_288


def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    memory = Memory(kept=1 << 20)
    arrays = [memory.empty((size << 16,), np.uint8) for size in (4, 5, 6, 7)]
    while arrays:
        arrays.pop(0)
        assert memory.waiting <= 1 << 20
    assert memory.waiting == 13 << 16  # the last two
    assert memory.empty((7 << 16,), np.uint8).nbytes == 7 << 16


def test_small_arrays_are_plain() -> None:
    memory = Memory()
    assert memory.empty((0, 3), np.float32).shape == (0, 3)
    assert memory.empty((10,), np.bool_).flags.owndata


def test_threads_never_share_a_block() -> None:
    memory = Memory(kept=2 << 20)

    def alone(number: int) -> bool:
        array = memory.empty((100_000,), np.int32)
        array[:] = number
        return bool((array[::7] == number).all() and (array == number).all())

    with ThreadPoolExecutor(8) as crew:
        assert all(crew.map(alone, range(800)))
    assert 0 < memory.waiting <= 2 << 20
