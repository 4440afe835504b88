"""A name of the Military Grid Reference System in, the Sentinel-2 tile of that name out: UTM zone and extent."""

from __future__ import annotations

import re

import numpy as np
from pyproj import Transformer

from mdico_cube.errors import MdicoError

SIDE = 109_800.0
"""Metres along a side of a Sentinel-2 tile: 10,980 pixels of 10 m; neighbours overlap by 9.8 km."""
_SNAP = 60
"""Metres: corners stand at multiples of the coarsest pixel."""
_SQUARE = 100_000
_NAME = re.compile(r"(?:T|MGRS-)?(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])")
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


def tile_extent(name: str) -> tuple[int, tuple[float, float, float, float]]:
    """EPSG code of the UTM zone and (left, bottom, right, top) in metres of a tile such as "31UFS".

    The upper left corner of Sentinel-2's tile is that of the 100 km square of the same name, moved outwards to whole
    multiples of 60 m from the zone's origin on the equator; the tile runs 109.8 km east and south from there (ESA,
    Sentinel-2 Products Specification Document, tiling grid). Grids of 10, 20, 30 and 60 m fit it exactly.

    Raises:
        MdicoError: no name of a tile, or no such square.
    """
    match = _NAME.fullmatch(name.strip().upper())
    if match is None or not 1 <= int(match[1]) <= 60:
        raise MdicoError(
            f"area.tile {name!r}: is no tile. Write zone, latitude band and square of the Military Grid, such as 31UFS."
        )
    zone, band, column, row = int(match[1]), match[2], match[3], match[4]
    columns = _COLUMNS[(zone - 1) % 3]
    if column not in columns:
        raise MdicoError(f"area.tile {name!r}: zone {zone} has no column {column}, only {columns}.")
    south = _BANDS.index(band) < _BANDS.index("N")
    code = (32700 if south else 32600) + zone
    east = (columns.index(column) + 1) * _SQUARE
    north = _northing(name, code, band, east, (_ROWS.index(row) - 5 * (zone % 2 == 0)) % 20)
    equator = 10_000_000 if south else 0
    left, top = east // _SNAP * _SNAP, equator - (equator - north - _SQUARE) // _SNAP * _SNAP
    return code, (float(left), top - SIDE, left + SIDE, float(top))


def _northing(name: str, code: int, band: str, east: int, row: int) -> int:
    """Northing of a square's lower edge: rows repeat every 2,000 km, the latitude band says which is meant."""
    first = -80 + 8 * _BANDS.index(band)
    last = 84 if band == "X" else first + 8
    to_degrees = Transformer.from_crs(code, 4326, always_xy=True)
    for north in range(row * _SQUARE, 10_000_000, 20 * _SQUARE):
        easts = np.repeat(np.linspace(east, east + _SQUARE, 3), 3)
        _, latitudes = to_degrees.transform(easts, np.tile(np.linspace(north, north + _SQUARE, 3), 3))
        if latitudes.max() > first and latitudes.min() < last:
            return north
    raise MdicoError(f"area.tile {name!r}: band {band} has no such row. Check the name on a map of Sentinel-2 tiles.")
