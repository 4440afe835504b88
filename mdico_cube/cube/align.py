"""A source's CRS and transform and a grid in; where the grid's pixels lie in the source out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from mdico_cube.spec import Array

_DIGITS = 7
"""Places in the source are rounded to this many decimals of a pixel: ties fall the same way in every block."""
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Places:
    """Where the pixels of a grid lie in a source, in source pixels; the centre of the first pixel is (0.5, 0.5)."""

    rows: Array
    """(h, 1) where source and grid are parallel, else (h, w)."""
    columns: Array
    """(1, w) or (h, w)."""

    @property
    def parallel(self) -> bool:
        """True where a row of the grid is a row of the source, and a column a column."""
        return bool(self.rows.shape[1] == self.columns.shape[0] == 1)

    def aligned(self) -> tuple[int, int] | None:
        """Row and column of the source under the first pixel, where grid pixels are source pixels; else None."""
        if not self.parallel:
            return None
        first = (float(self.rows[0, 0]) - 0.5, float(self.columns[0, 0]) - 0.5)
        for places, start in ((self.rows[:, 0], first[0]), (self.columns[0], first[1])):
            if start != round(start) or not (places == np.arange(places.size) + start + 0.5).all():
                return None
        return int(first[0]), int(first[1])

    def window(self, shape: tuple[int, int], margin: int) -> tuple[slice, slice] | None:
        """Rows and columns of the source that are needed; None where it does not reach the grid."""
        with np.errstate(invalid="ignore"):
            row_in, column_in = (
                (self.rows >= 0) & (self.rows < shape[0]),
                (self.columns >= 0) & (self.columns < shape[1]),
            )
        if row_in.shape == column_in.shape:
            row_in = column_in = row_in & column_in
        if not (row_in.any() and column_in.any()):
            return None
        rows, columns = self.rows[row_in], self.columns[column_in]
        return _span(rows, margin, shape[0]), _span(columns, margin, shape[1])


def _span(places: Array, margin: int, size: int) -> slice:
    return slice(max(int(np.floor(places.min())) - margin, 0), min(int(np.floor(places.max())) + 1 + margin, size))


def places_in(crs: str, transform: Affine, geobox: GeoBox) -> Places:
    """Where the centres of a grid's pixels lie in a source of this CRS (WKT) and transform."""
    x, y = _coordinates(crs, geobox)
    back = ~transform
    if transform.b == 0 and transform.d == 0:
        columns, rows = x * back.a + back.c, y * back.e + back.f
    else:
        columns, rows = back * np.broadcast_arrays(x, y)
    return Places(np.round(rows, _DIGITS), np.round(columns, _DIGITS))


def _coordinates(crs: str, geobox: GeoBox) -> tuple[Array, Array]:
    """Pixel centres in a CRS: (1, w) and (h, 1) where it is the grid's own, else (h, w) each."""
    with _LOCK:
        return _coordinates_once(crs, str(geobox.crs), geobox.affine, geobox.shape.yx)


@lru_cache(maxsize=8)
def _coordinates_once(crs: str, grid: str, affine: Affine, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The same from plain facts: hashing a GeoBox writes out its whole CRS each time."""
    x = affine.c + affine.a * (np.arange(shape[1]) + 0.5)[None]
    y = affine.f + affine.e * (np.arange(shape[0]) + 0.5)[:, None]
    if same_crs(crs, grid):
        return x, y
    every_x, every_y = np.broadcast_arrays(x, y)
    there: tuple[Array, Array] = _transformer(grid, crs).transform(every_x, every_y)
    return there


@lru_cache(maxsize=64)
def same_crs(one: str, other: str) -> bool:
    """True where two CRS put the same numbers at the same place."""
    transformer = _transformer(one, other)
    return transformer.definition == "noop" or transformer.source_crs == transformer.target_crs


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=4096)
def scale(
    crs: str, transform: Affine, shape: tuple[int, int], grid: str, resolution: tuple[float, float]
) -> tuple[float, float]:
    """Grid pixels per source pixel along columns and rows at the source's centre: the same for every block."""
    x, y = shape[1] / 2, shape[0] / 2
    corners = [transform * at for at in ((x, y), (x + 1, y), (x, y + 1))]
    if same_crs(crs, grid):
        places = np.array(corners)
    else:
        across, down = np.array(corners).T
        places = np.stack(_transformer(crs, grid).transform(across, down), axis=1)
    steps = np.hypot(*(places[1:] - places[0]).T) / abs(resolution[0])
    return (float(steps[0]), float(steps[1])) if np.isfinite(steps).all() else (1.0, 1.0)
