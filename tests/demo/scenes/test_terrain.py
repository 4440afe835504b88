"""Elevation tiles as written: one arc second, meeting at six degrees east, true heights."""

from __future__ import annotations

import numpy as np
import pystac
import pytest
import rasterio
from pyproj import Transformer

from mdico_cube.demo.landscape import CELL
from mdico_cube.demo.sampling import positions
from mdico_cube.demo.world import World

Items = dict[str, list[pystac.Item]]


def test_elevation_tiles_meet_at_six_degrees(items: Items, world: World) -> None:
    west, east = items["cop-dem-glo-30"]
    assert "E005" in west.id
    assert "E006" in east.id
    with (
        rasterio.open(west.assets["data"].get_absolute_href()) as one,
        rasterio.open(east.assets["data"].get_absolute_href()) as two,
    ):
        assert one.crs.to_epsg() == 4326
        assert one.transform.a == pytest.approx(1 / 3600)
        assert (two.bounds.left * 3600) % 1 == pytest.approx(0.5, abs=1e-4)  # pixel centres on whole seconds
        assert (two.bounds.top * 3600) % 1 == pytest.approx(0.5, abs=1e-4)
        assert one.bounds.right >= two.bounds.left - 1e-9
        assert one.bounds.right - two.bounds.left < 1.5 / 3600
        left, bottom, right, top = world.landscape.frame.bounds
        region = Transformer.from_crs(32631, 4326, always_xy=True).transform_bounds(left, bottom, right, top)
        assert one.bounds.left < region[0] - 0.001
        assert one.bounds.bottom < region[1] - 0.001
        assert two.bounds.right > region[2] + 0.001
        assert two.bounds.top > region[3] + 0.001
        heights = two.read(1)
        lon, lat = two.xy(heights.shape[0] // 2, heights.shape[1] // 2)
    row, col = positions(world.landscape, "EPSG:4326", np.array([lon]), np.array([lat]))
    truth = world.landscape.elevation[int(row[0]), int(col[0])]
    assert abs(heights[heights.shape[0] // 2, heights.shape[1] // 2] - truth) < 2 + CELL * 0.15
