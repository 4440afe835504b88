"""A tile is every n-th pixel of the raster; where that would cost too many chunks it is real pixels from nearby."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.explorer import pyramid
from mdico_cube.explorer.pyramid import TILE, Kept, Raster, cut, levels


class Counting:
    """A raster whose pixels say where they stand, and which chunks of it were read."""

    def __init__(self, height: int, width: int, chunk: int) -> None:
        self.chunks: set[tuple[int, int]] = set()
        self.chunk = chunk
        self.raster = Raster((height, width), chunk, self.read)

    def read(self, y: slice, x: slice) -> np.ndarray:
        rows, columns = np.mgrid[y, x]
        self.chunks |= set(zip((rows // self.chunk).ravel(), (columns // self.chunk).ravel(), strict=True))
        return np.stack([rows, columns])


@settings(max_examples=40)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([8, 64, 100]), st.integers(0, 2), st.data())
def test_a_tile_is_every_nth_pixel(height: int, width: int, chunk: int, out: int, data: st.DataObject) -> None:
    step = 2**out
    column, row = (data.draw(st.integers(0, (size - 1) // (TILE * step))) for size in (width, height))
    whole = np.mgrid[0:height, 0:width]
    wanted = whole[:, row * TILE * step : (row + 1) * TILE * step : step, column * TILE * step :][:, :, : TILE * step]
    if TILE * step / chunk <= 32:
        assert np.array_equal(cut(Counting(height, width, chunk).raster, -out, column, row), wanted[:, :, ::step])


@settings(max_examples=25)
@given(st.integers(300, 3000), st.integers(300, 3000), st.sampled_from([8, 16]), st.integers(3, 6))
def test_far_out_a_tile_costs_no_more_than_the_budget(height: int, width: int, chunk: int, out: int) -> None:
    counting, step = Counting(height, width, chunk), 2**out
    rows, columns = cut(counting.raster, -out, 0, 0)
    assert len(counting.chunks) <= pyramid.BUDGET
    exact = np.mgrid[0 : min(height, TILE * step) : step, 0 : min(width, TILE * step) : step]
    assert rows.shape == exact[0].shape
    reach = chunk * max(1, np.ceil(TILE * step / chunk / 32))
    assert max(np.abs(rows - exact[0]).max(), np.abs(columns - exact[1]).max()) < reach
    assert (np.diff(rows[:, 0]) >= 0).all()
    assert (np.diff(columns[0]) >= 0).all()


@pytest.mark.parametrize("place", [(0, -1, 0), (0, 0, 2), (0, 1, 0)])
def test_outside_there_is_nothing(place: tuple[int, int, int]) -> None:
    assert cut(Counting(300, 256, 64).raster, *place) is None


def test_levels_end_where_one_tile_holds_everything() -> None:
    assert [levels((side, 10)) for side in (10, 256, 257, 512, 513, 50_000)] == [0, 0, 1, 1, 2, 8]


def test_tiles_are_kept_up_to_a_limit_the_oldest_goes_first() -> None:
    kept, made = Kept(limit=250), []

    def make(name: str) -> np.ndarray:
        made.append(name)
        return np.zeros(100, np.uint8)

    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]
