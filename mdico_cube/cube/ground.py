"""A grid in; the metres on the ground that a step from pixel to pixel goes, eastwards and northwards, out."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox

from mdico_cube.cube.place import degrees_from
from mdico_cube.sensors.sensor import Steps
from mdico_cube.spec import Array

_AXIS, _SQUARE = 6378137.0, 0.00669437999014
"""Of the WGS 84 ellipsoid: half its longer axis in metres, and the square of its eccentricity."""

_DIGITS = 6
"""Metres are rounded to so many decimals: every block of a grid then has the same."""


def ground_steps(block: GeoBox) -> Steps:
    """What a step to the next column and to the next row goes on the ground, at every pixel.

    Metres of a grid are metres on the ground in few places: EPSG:3857 stretches them by 1 / cos(latitude), a polar
    grid turns north around, degrees shrink with latitude. The ellipsoid's radii of curvature at each pixel tell.
    """
    height, width = block.shape
    columns, rows = np.arange(width + 1.0), np.arange(height + 1.0)
    east_x, north_x = _travelled(block, columns[None], rows[:-1, None] + 0.5, axis=1)
    east_y, north_y = _travelled(block, columns[None, :-1] + 0.5, rows[:, None], axis=0)
    return Steps(east_x, north_x, east_y, north_y)


def _travelled(block: GeoBox, columns: Array, rows: Array, axis: int) -> tuple[Array, Array]:
    """Metres eastwards and northwards between neighbours along an axis."""
    x, y = block.affine * np.broadcast_arrays(columns, rows)
    lon, lat = (np.asarray(part) for part in degrees_from(str(block.crs)).transform(x, y))
    before, after = (lat.take(range(*part), axis) for part in ((0, lat.shape[axis] - 1), (1, lat.shape[axis])))
    middle = np.radians((before + after) / 2)
    turned = np.radians((np.diff(lon, axis=axis) + 180) % 360 - 180)
    curve = 1 - _SQUARE * np.sin(middle) ** 2
    east = _AXIS / np.sqrt(curve) * np.cos(middle) * turned
    north = _AXIS * (1 - _SQUARE) / curve**1.5 * np.radians(after - before)
    return np.round(east, _DIGITS), np.round(north, _DIGITS)
