"""A layer on its own latitude-longitude grid and a block of the cube's grid in, its values on that block out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from mdico_cube.cube.place import degrees_from
from mdico_cube.spec import Array, Bools, Floats

Degrees = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class CoarseLayer:
    """What is known on the coarse grid."""

    values: Floats
    """(T, C, ny, nx) physical, NaN = missing."""
    latitudes: Degrees
    """(ny,) cell centres from north to south."""
    longitudes: Degrees
    """(nx,) cell centres from west to east, without a jump at 180 or 360."""
    lapses: tuple[bool, ...]
    """(C,) True for bands that follow the height of the ground."""
    heights: Floats
    """(ny, nx) metres above the sea of the cells' ground; NaN where unknown."""
    rate: float
    """Kelvin per metre of height; 0 leaves temperatures at the cells' height."""

    @property
    def follows_ground(self) -> bool:
        """True where some band is brought from the cells' height to the pixels'."""
        return any(self.lapses) and self.rate > 0 and bool(np.isfinite(self.heights).all())

    @cached_property
    def at_sea_level(self) -> Floats:
        """(T, C, ny, nx) with bands that lapse as they were at height 0."""
        lift = np.where(np.asarray(self.lapses)[:, None, None], self.rate * self.heights.astype(np.float64), 0.0)
        return (self.values + lift).astype(np.float32)


def interpolate(layer: CoarseLayer, lon: Degrees, lat: Degrees, ground: Floats | None = None) -> Floats:
    """Bilinear values (T, C, h, w) float32 at some places, NaN = missing.

    Cells that are missing have no weight; a place is missing where all of its cells are, or where it lies more than
    half a cell outside the grid. Every value depends on its own place alone, so blocks equal the whole bit for bit.

    Args:
        layer: what stands on the coarse grid.
        lon: (h, w) degrees east.
        lat: (h, w) degrees north.
        ground: (h, w) metres above the sea, NaN where unknown: temperatures are brought to this height where the
            layer knows its cells' heights.
    """
    rows, down, seen_y = _place(-layer.latitudes, -lat.ravel())
    columns, right, seen_x = _place(layer.longitudes, beside(lon.ravel(), layer.longitudes))
    width = layer.longitudes.size
    corners = [
        (row * width + column, near * far)
        for row, near in zip(rows, (1 - down, down), strict=True)
        for column, far in zip(columns, (1 - right, right), strict=True)
    ]
    inside = seen_y & seen_x
    follow = ground is not None and layer.follows_ground
    source = layer.at_sea_level if follow else layer.values
    steps, bands = source.shape[:2]
    out = np.empty((steps, bands, *lon.shape), np.float32)
    for band in range(bands):
        fall = _fall(layer, corners, ground) if follow and ground is not None and layer.lapses[band] else None
        for step in range(steps):
            plane = _blend(source[step, band], corners)
            if fall is not None:
                plane -= fall
            plane[~inside] = np.nan
            out[step, band] = plane.reshape(lon.shape)
    return out


def _fall(layer: CoarseLayer, corners: list[tuple[Index, Degrees]], ground: Floats) -> Degrees:
    """Kelvin between sea level and the ground of each pixel; the cells' own height where the ground is unknown."""
    known = ground.ravel().astype(np.float64)
    return layer.rate * np.where(np.isnan(known), _blend(layer.heights, corners), known)


def _place(ticks: Degrees, points: Degrees) -> tuple[tuple[Index, Index], Degrees, Bools]:
    """Cells before and behind each point of an ascending axis, how far it is on the way, and whether it is covered."""
    if ticks.size == 1:
        only = np.zeros(points.size, np.intp)
        return (only, only), np.zeros(points.size), np.ones(points.size, np.bool_)
    before = np.clip(np.searchsorted(ticks, points, side="right") - 1, 0, ticks.size - 2)
    step = ticks[before + 1] - ticks[before]
    way = (points - ticks[before]) / step
    return (before, before + 1), np.clip(way, 0.0, 1.0), (way >= -0.5) & (way <= 1.5)


def _blend(plane: Array, corners: list[tuple[Index, Degrees]]) -> Degrees:
    """(N,) weighted mean of four cells of a plane (ny, nx); missing cells have no weight."""
    cells = plane.ravel().astype(np.float64)
    seen = ~np.isnan(cells)
    if seen.all():
        return _weighted(cells, corners)
    weight = _weighted(seen.astype(np.float64), corners)
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, _weighted(np.where(seen, cells, 0.0), corners), np.nan) / weight


def _weighted(cells: Degrees, corners: list[tuple[Index, Degrees]]) -> Degrees:
    total = np.zeros(corners[0][0].size)
    for index, weight in corners:
        total += cells[index] * weight
    return total


def beside(lon: Degrees, longitudes: Degrees) -> Degrees:
    """Longitudes written as on the grid: within half a turn of its middle."""
    middle = (longitudes[0] + longitudes[-1]) / 2
    return np.asarray(middle + ((lon - middle + 180) % 360 - 180))


def pixel_degrees(geobox: GeoBox, y: slice, x: slice) -> tuple[Degrees, Degrees]:
    """Longitude and latitude (h, w) of the pixel centres of a block, computed per pixel from the whole grid."""
    rows, columns = (np.arange(*part.indices(size)) for part, size in zip((y, x), geobox.shape, strict=True))
    affine = geobox.affine
    row, column = (grid + 0.5 for grid in np.meshgrid(rows, columns, indexing="ij"))
    east = affine.a * column + affine.b * row + affine.c
    north = affine.d * column + affine.e * row + affine.f
    lon, lat = degrees_from(str(geobox.crs)).transform(east, north)
    return np.asarray(lon), np.asarray(lat)
