"""A raster's reader and a tile's place in, the tile's pixels out: chunk by chunk, never more of them than a budget."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mdico_cube.spec import Array

TILE = 256
"""Side of a tile in pixels of the screen."""
BUDGET = 1024
"""Chunks that are read for one tile at the most. Farther out only every n-th chunk is, in both directions."""
_READERS = threading.BoundedSemaphore(4)
"""Tiles that are read at the same time: each holds a strip of chunks in memory."""

Place = tuple[int, int, int]
"""Zoom, column and row of a tile."""
Index = npt.NDArray[np.intp]
Read = Callable[[slice, slice], Array]
"""(y, x) of the full raster -> (..., h, w)."""


@dataclass(frozen=True, slots=True)
class Raster:
    """What tiles are cut from."""

    shape: tuple[int, int]
    """Rows and columns."""
    chunk: int
    """Side of the blocks that cost one read each."""
    read: Read


def levels(shape: tuple[int, int]) -> int:
    """How often the raster is halved until it fits into one tile: zoom 0 is full resolution, -levels the coarsest."""
    return max(0, math.ceil(math.log2(max(shape) / TILE)))


def window(place: Place, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the raster that a tile shows, every 2**-zoom-th; empty outside of it."""
    zoom, column, row = place
    step = 2 ** max(0, -zoom)
    first = (at * TILE * step for at in (row, column))
    y, x = (
        slice(top, max(top, min(top + TILE * step, size)), step) if top >= 0 else slice(0, 0, step)
        for top, size in zip(first, shape, strict=True)
    )
    return y, x


def cut(raster: Raster, zoom: int, column: int, row: int, budget: float = BUDGET) -> Array | None:
    """One tile: every 2**-zoom-th pixel, or the nearest one that was read where the budget forbids more.

    Args:
        raster: where from.
        zoom: 0 = full resolution, -1 = every second pixel, and so on.
        column: of the tile, from the left edge of the raster.
        row: of the tile, from its upper edge.
        budget: chunks that may be read.

    Returns:
        (..., h, w), smaller than a tile at the right and lower edge; None outside the raster.
    """
    step = 2 ** max(0, -zoom)
    rows, columns = (np.arange(part.start, part.stop, step) for part in window((zoom, column, row), raster.shape))
    if not rows.size or not columns.size:
        return None
    across = TILE * step / raster.chunk  # chunks along one side
    every = max(1, math.ceil(across / math.sqrt(budget)))
    rows, columns = (_nearest_read(places, raster.chunk, every) for places in (rows, columns))
    with _READERS:
        return _gather(raster, rows, columns, every)


def _nearest_read(places: Index, chunk: int, every: int) -> Index:
    """Each place, moved to the nearest one in a chunk that is read: those whose number is a multiple of `every`."""
    if every == 1:
        return places
    left = places // (chunk * every) * chunk * every
    right = left + chunk * every
    in_left = np.minimum(places, left + chunk - 1)
    nearer = (places - in_left > right - places) & (right <= places[-1])  # the next tile's chunks are its own
    return np.where(nearer, right, in_left)


def _gather(raster: Raster, rows: Index, columns: Index, every: int) -> Array:
    """The pixels at these rows and columns, a strip of chunks at a time."""
    strips = []
    for strip in _runs(rows, raster.chunk):
        y = slice(int(strip[0]), int(strip[-1]) + 1)
        if every == 1:
            x = slice(int(columns[0]), int(columns[-1]) + 1)
            strips.append(raster.read(y, x)[..., strip - y.start, :][..., columns - x.start])
            continue
        parts = []
        for run in _runs(columns, raster.chunk):
            x = slice(int(run[0]), int(run[-1]) + 1)
            parts.append(raster.read(y, x)[..., strip - y.start, :][..., run - x.start])
        strips.append(np.concatenate(parts, axis=-1))
    return np.concatenate(strips, axis=-2)


def _runs(places: Index, chunk: int) -> list[Index]:
    """Neighbouring places in the same chunk, together."""
    return np.split(places, np.flatnonzero(np.diff(places // chunk)) + 1)


@dataclass(slots=True)
class Kept:
    """The tiles that were read last, up to so many bytes."""

    limit: int = 512 * 2**20
    _tiles: OrderedDict[object, Array | None] = field(default_factory=OrderedDict)
    _size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: object, make: Callable[[], Array | None]) -> Array | None:
        """A tile that is kept, or one that is made now and kept."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = make()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._size += _bytes(tile)
            while self._size > self.limit and len(self._tiles) > 1:
                _, oldest = self._tiles.popitem(last=False)
                self._size -= _bytes(oldest)
        return tile


def _bytes(tile: Array | None) -> int:
    return 0 if tile is None else tile.nbytes
