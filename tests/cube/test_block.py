"""Only whole shards are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr

from mdico_cube.cube.block import write_shards
from mdico_cube.errors import MdicoError


@pytest.fixture
def array() -> zarr.Array[Any]:
    return zarr.create_array({}, shape=(2, 40, 50), chunks=(2, 8, 8), shards=(2, 16, 16), dtype="int16", fill_value=-1)


@pytest.mark.parametrize(("y", "x"), [((0, 16), (16, 32)), ((32, 40), (48, 50)), ((0, 40), (0, 50))])
def test_whole_shards_are_written(array: zarr.Array[Any], y: tuple[int, int], x: tuple[int, int]) -> None:
    block = slice(*y), slice(*x)
    values = np.arange(2 * (y[1] - y[0]) * (x[1] - x[0]), dtype=np.int16).reshape(2, y[1] - y[0], x[1] - x[0])
    write_shards(array, *block, values)
    want = np.full(array.shape, -1, np.int16)
    want[:, *block] = values
    np.testing.assert_array_equal(array[:], want)


@pytest.mark.parametrize(
    ("y", "x"), [((0, 8), (0, 16)), ((8, 24), (0, 16)), ((0, 16), (32, 49)), ((32, 48), (0, 16)), ((16, 16), (0, 16))]
)
def test_parts_of_shards_are_refused(array: zarr.Array[Any], y: tuple[int, int], x: tuple[int, int]) -> None:
    values = np.zeros((2, y[1] - y[0], x[1] - x[0]), np.int16)
    with pytest.raises(MdicoError, match="Write whole shards only"):
        write_shards(array, slice(*y), slice(*x), values)
    assert (np.asarray(array[:]) == -1).all()


@pytest.mark.parametrize("values", [np.zeros((1, 16, 16), np.int16), np.zeros((2, 16, 16), np.int32)])
def test_values_fill_the_block(array: zarr.Array[Any], values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(MdicoError, match="does not fill a block"):
        write_shards(array, slice(0, 16), slice(0, 16), values)
