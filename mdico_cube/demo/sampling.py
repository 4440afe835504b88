"""A grid in any CRS and a landscape in, the footprint of every pixel out: parcel shares, textures and slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer

from mdico_cube.demo.landscape import CELL, CRS, Landscape
from mdico_cube.demo.matrix import bilinear, sparse_rows
from mdico_cube.spec import Array, Bools, Floats

SKY_CELL = 4
"""Landscape cells along one side of a cell of the sky (20 m)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster's place on earth."""

    crs: str
    left: float
    top: float
    step: float
    """Pixel side in units of the CRS."""
    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rows, self.cols

    @property
    def transform(self) -> Affine:
        """Pixel to CRS."""
        return Affine(self.step, 0.0, self.left, 0.0, -self.step, self.top)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        return self.left, self.top - self.step * self.rows, self.left + self.step * self.cols, self.top

    def coarser(self, factor: int) -> Grid:
        """The same extent with pixels `factor` times as wide."""
        return Grid(self.crs, self.left, self.top, self.step * factor, self.rows // factor, self.cols // factor)


@dataclass(frozen=True, slots=True)
class Footprints:
    """What the N = H*W pixels of one grid see of the landscape."""

    grid: Grid
    shares: Any
    """(N, P) sparse: share of each parcel in the pixel's footprint; rows add up to 1."""
    sky: Any
    """(N, S) sparse: bilinear weights on the cells of the sky."""
    vigour: Floats
    """(N, 1) texture of the plants."""
    soil: Floats
    """(N, 1) texture of the soil."""
    east: Floats
    """(N,) rise towards the east, metres per metre."""
    north: Floats
    """(N,) rise towards the north, metres per metre."""
    inside: Bools
    """(N,) False where the landscape ends: no data."""


def grid_over(bounds: tuple[float, float, float, float], crs: str, step: float, anchor: float, unit: float) -> Grid:
    """The smallest grid over bounds whose edges are `anchor` plus multiples of `unit`."""
    left, bottom, right, top = bounds
    left, bottom = (np.floor((low - anchor) / unit) * unit + anchor for low in (left, bottom))
    right, top = (np.ceil((high - anchor) / unit) * unit + anchor for high in (right, top))
    return Grid(crs, float(left), float(top), step, round((top - bottom) / step), round((right - left) / step))


def footprints(landscape: Landscape, grid: Grid, width: float = 1.35, allowance: float = 100.0) -> Footprints:
    """Look at the landscape from every pixel of a grid.

    Args:
        landscape: the truth on 5 m cells.
        grid: any projected grid in metres; its pixels are placed at their own positions, nothing is warped.
        width: side of a footprint in pixels; a sensor sees a little more than its pixel.
        allowance: metres around the region in which pixels still have data.
    """
    row, col = _centres(landscape, grid)
    per_side = 2 * int(np.ceil(width * grid.step / CELL / 2))  # even: symmetric about centres on cell corners
    step_row, step_col = _steps(landscape, grid)
    offsets = (np.arange(per_side) - (per_side - 1) / 2) * width * grid.step / per_side
    down, right = (part.ravel() for part in np.meshgrid(offsets, offsets, indexing="ij"))
    last = landscape.frame.cells - 1
    rows = np.clip(row[:, None] + step_row[0] * right + step_row[1] * down, 0, last).astype(np.intp)
    cols = np.clip(col[:, None] + step_col[0] * right + step_col[1] * down, 0, last).astype(np.intp)
    ids = landscape.parcel[rows, cols]
    pixel = np.repeat(np.arange(ids.shape[0]), ids.shape[1])
    weight = np.full(ids.size, 1 / ids.shape[1], dtype=np.float32)
    shares = sparse_rows(weight, pixel, ids, (ids.shape[0], landscape.parcels))
    fall, east = landscape.gradient()
    middle = np.clip(row, 0, last).astype(np.intp), np.clip(col, 0, last).astype(np.intp)
    low, high = 2 * landscape.frame.margin - allowance / CELL, 2 * (landscape.frame.margin + landscape.frame.size)
    inside = (np.minimum(row, col) >= low) & (np.maximum(row, col) <= high + allowance / CELL)
    return Footprints(
        grid=grid,
        shares=shares,
        sky=bilinear(row / SKY_CELL, col / SKY_CELL, landscape.frame.cells // SKY_CELL),
        vigour=landscape.vigour[rows, cols].mean(axis=1, keepdims=True),
        soil=landscape.soil[rows, cols].mean(axis=1, keepdims=True),
        east=east[middle],
        north=-fall[middle],
        inside=inside,
    )


def positions(landscape: Landscape, crs: str, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates in any CRS to fractional (row, column) of the landscape's cells."""
    easting, northing = (x, y) if crs == CRS else Transformer.from_crs(crs, CRS, always_xy=True).transform(x, y)
    return landscape.frame.fractional(np.asarray(easting), np.asarray(northing))


def _centres(landscape: Landscape, grid: Grid) -> tuple[Array, Array]:
    x = grid.left + (np.arange(grid.cols) + 0.5) * grid.step
    y = grid.top - (np.arange(grid.rows) + 0.5) * grid.step
    columns, lines = np.meshgrid(x, y)
    return positions(landscape, grid.crs, columns.ravel(), lines.ravel())


def _steps(landscape: Landscape, grid: Grid) -> tuple[tuple[float, float], tuple[float, float]]:
    """Change of (row, column) per metre right and per metre down in the grid, at its middle."""
    x0, y0 = grid.left + grid.step * grid.cols / 2, grid.top - grid.step * grid.rows / 2
    row, col = positions(landscape, grid.crs, np.array([x0, x0 + 1, x0]), np.array([y0, y0, y0 - 1]))
    return (row[1] - row[0], row[2] - row[0]), (col[1] - col[0], col[2] - col[0])
