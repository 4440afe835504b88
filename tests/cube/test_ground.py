"""Slope and aspect are those of the ground, whatever the metres, degrees and norths of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from mdico_cube.cube.ground import ground_steps
from mdico_cube.sensors.dem import HALO, terrain

GRIDS = {
    "EPSG:32632": (10, 8.9, 61.0),
    "EPSG:3857": (30, 12.0, 60.0),
    "EPSG:3031": (30, -44.0, -75.0),
    "EPSG:3413": (30, -45.5, 70.0),
    "EPSG:3035": (20, 24.0, 40.0),
    "EPSG:4326": (0.0002, 5.0, 50.0),
    "EPSG:3832": (30, 179.9999, -16.0),
}
"""CRS -> side of a pixel, longitude, latitude."""
AXIS, SQUARE = 6378137.0, 0.00669437999014


def grid(code: str) -> GeoBox:
    side, lon, lat = GRIDS[code]
    x, y = Transformer.from_crs("EPSG:4326", code, always_xy=True).transform(lon, lat)
    return GeoBox((40, 50), Affine(side, 0, x, 0, -side, y), code)


def degrees(box: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    columns, rows = np.meshgrid(np.arange(box.shape.x) + 0.5, np.arange(box.shape.y) + 0.5)
    lon, lat = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(
        *(box.affine * (columns, rows))
    )
    return lon, lat


@pytest.mark.parametrize("code", GRIDS)
def test_slope_and_aspect_of_a_curved_surface(code: str) -> None:
    """z = a sin(latitude) + b sin(longitude - middle), whose gradient on the ellipsoid is known at every point."""
    box = grid(code)
    lon, lat = (np.radians(part) for part in degrees(box.pad(HALO)))
    middle = lon[20, 20]
    a, b = 0.3 * AXIS, 0.2 * AXIS * np.cos(lat[20, 20])
    away = (lon - middle + np.pi) % (2 * np.pi) - np.pi
    height = a * (np.sin(lat) - np.sin(lat[20, 20])) + b * np.sin(away)
    _, slope, northness, eastness = terrain(height.astype(np.float32), ground_steps(box))
    core = slice(HALO, -HALO)
    lat, away = lat[core, core], away[core, core]
    curve = 1 - SQUARE * np.sin(lat) ** 2
    north = a * np.cos(lat) / (AXIS * (1 - SQUARE) / curve**1.5)
    east = b * np.cos(away) / (AXIS / np.sqrt(curve) * np.cos(lat))
    rise = np.hypot(north, east)
    np.testing.assert_allclose(slope, np.degrees(np.arctan(rise)), atol=5e-3)
    np.testing.assert_allclose(northness, -north / rise, atol=5e-4)
    np.testing.assert_allclose(eastness, -east / rise, atol=5e-4)


@pytest.mark.parametrize("code", GRIDS)
def test_steps_are_what_geodesics_say(code: str) -> None:
    box, geod = grid(code), Geod(ellps="WGS84")
    steps = ground_steps(box)
    lon, lat = degrees(box)
    for east, north, (r, c) in ((steps.east_x, steps.north_x, (0, 1)), (steps.east_y, steps.north_y, (1, 0))):
        behind = (slice(r, None), slice(c, None))
        before = (slice(None, -r or None), slice(None, -c or None))
        azimuth, _, metres = geod.inv(lon[before], lat[before], lon[behind], lat[behind])
        mean_east = (np.asarray(east)[before] + np.asarray(east)[behind]) / 2
        mean_north = (np.asarray(north)[before] + np.asarray(north)[behind]) / 2
        np.testing.assert_allclose(mean_east, metres * np.sin(np.radians(azimuth)), atol=2e-3)
        np.testing.assert_allclose(mean_north, metres * np.cos(np.radians(azimuth)), atol=2e-3)


@pytest.mark.parametrize("code", GRIDS)
def test_blocks_equal_the_whole(code: str) -> None:
    box = grid(code)
    whole, part = ground_steps(box), ground_steps(box[10:30, 5:40])
    for name in ("east_x", "north_x", "east_y", "north_y"):
        np.testing.assert_array_equal(getattr(part, name), np.asarray(getattr(whole, name))[10:30, 5:40])
