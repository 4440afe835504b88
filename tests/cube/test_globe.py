"""Shapes at the antimeridian, and tiles of Sentinel-2 by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import box

from mdico_cube.cube.globe import cut, middle, outline, span, touches, unwrapped
from mdico_cube.cube.tiles import SIDE, tile_extent
from mdico_cube.errors import MdicoError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "stac-items"


def ring(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


ACROSS = ring((179.0, -18.0), (-179.0, -18.0), (-179.0, -17.0), (179.0, -17.0))
"""A footprint that was not cut, as some catalogs write it."""
PARTS = {
    "type": "MultiPolygon",
    "coordinates": [
        ring((179.0, -18.0), (180.0, -18.0), (180.0, -17.0), (179.0, -17.0))["coordinates"],
        ring((-180.0, -18.0), (-179.0, -18.0), (-179.0, -17.0), (-180.0, -17.0))["coordinates"],
    ],
}
"""The same as RFC 7946 wants it."""


@pytest.mark.parametrize("shape", [ACROSS, PARTS], ids=["whole ring", "cut"])
@pytest.mark.parametrize(("near", "bounds"), [(178.0, (179, -18, 181, -17)), (-178.5, (-181, -18, -179, -17))])
def test_both_ways_of_writing_a_footprint_mean_the_same(shape: Any, near: float, bounds: tuple[float, ...]) -> None:
    whole = unwrapped(shape, near)
    np.testing.assert_allclose(whole.boundingbox.bbox, bounds)
    assert whole.geom.area == pytest.approx(2)
    again = cut(whole)
    assert again.geom.equals(shapely.geometry.shape(PARTS))


@given(st.floats(-179, 179), st.floats(-60, 60), st.floats(0.1, 3), st.floats(-180, 180))
def test_cutting_and_unwrapping_lose_nothing(lon: float, lat: float, size: float, near: float) -> None:
    shape = box(lon, lat, lon + size, lat + size, "EPSG:4326")
    pieces = cut(shape)
    assert max(abs(pieces.boundingbox.left), abs(pieces.boundingbox.right)) <= 180
    assert pieces.geom.area == pytest.approx(size**2, rel=1e-9)
    if abs((lon + size / 2 - near + 180) % 360 - 180) < 170:
        assert unwrapped(pieces.json, near).boundingbox.span_x == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "hit"),
    [
        (ACROSS, True),
        (PARTS, True),
        (ring((178.0, -18.0), (178.9, -18.0), (178.9, -17.0), (178.0, -17.0)), False),
        (ring((-179.9, -18.0), (-178.0, -18.0), (-178.0, -17.0), (-179.9, -17.0)), True),
        (ring((0.0, -18.0), (1.0, -18.0), (1.0, -17.0), (0.0, -17.0)), False),
        (ring((-180.0, -90.0), (180.0, -90.0), (180.0, 90.0), (-180.0, 90.0)), True),
        ({"type": "Point", "coordinates": [-179.99, -17.7]}, True),
        ({"type": "Point", "coordinates": [179.99, -17.7]}, True),
        ({"type": "Point", "coordinates": [170, -17.5]}, False),
    ],
)
def test_what_touches_a_grid_over_the_antimeridian(shape: Any, hit: bool) -> None:
    """Zone 60 runs on to the east of 180 degrees: the grid's outline has two parts."""
    grid = GeoBox.from_bbox((800000, 8030000, 860000, 8060000), "EPSG:32760", resolution=1000)
    area = outline(grid)
    assert area.geom.geom_type == "MultiPolygon"
    assert {round(part.bounds[0]) for part in area.geom.geoms} == {-180, 180}
    assert touches(shape, area) is hit


def test_the_outline_of_an_ordinary_grid_is_one_polygon() -> None:
    grid = GeoBox.from_bbox((300000, 5600000, 400000, 5700000), "EPSG:32631", resolution=100)
    area = outline(grid)
    assert area.geom.geom_type == "Polygon"
    direct = grid.extent.to_crs("EPSG:4326", resolution=1000)
    assert area.geom.symmetric_difference(direct.geom).area / direct.geom.area < 1e-3


@pytest.mark.parametrize(
    ("extents", "west", "east"),
    [
        ([(5.0, 6.0)], 5.0, 6.0),
        ([(5.0, 6.0), (-9.0, -8.0)], -9.0, 6.0),
        ([(177.0, 180.0), (-180.0, -178.0)], 177.0, 182.0),
        ([(178.0, 179.0), (-156.0, -155.0), (-170.0, -169.0)], 178.0, 205.0),
        ([(-180.0, 180.0)], -180.0, 180.0),
        ([(-10.0, 100.0), (0.0, 5.0), (120.0, 130.0)], -10.0, 130.0),
    ],
)
def test_the_shortest_span(extents: list[tuple[float, float]], west: float, east: float) -> None:
    assert span(extents) == (west, east)


def test_the_middle_of_a_span() -> None:
    assert middle(178, 184) == -179
    assert middle(5, 7) == 6


@pytest.mark.parametrize(
    ("name", "code", "left", "top"),
    [  # upper left corners of real tiles of both hemispheres
        ("32TNT", 32632, 499980, 5300040),
        ("32UNU", 32632, 499980, 5400000),
        ("13TDE", 32613, 399960, 4500000),
        ("13SCA", 32613, 300000, 4100040),
        ("24MVV", 32724, 399960, 9500020),
        ("60VUJ", 32660, 300000, 6400020),
        ("59VME", 32659, 399960, 6500040),
        ("35LNF", 32735, 499980, 8600020),
        ("T31TFL", 32631, 600000, 5100000),
        ("MGRS-31TGM", 32631, 699960, 5200020),
        (" 21uyt", 32621, 699960, 5800020),
    ],
)
def test_tiles_of_sentinel2(name: str, code: int, left: float, top: float) -> None:
    assert tile_extent(name) == (code, (left, top - SIDE, left + SIDE, top))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("31", "is no tile"),
        ("61UFS", "is no tile"),
        ("31IFS", "is no tile"),
        ("31UIS", "is no tile"),
        ("31UJS", "zone 31 has no column J"),
        ("31UFF", "band U has no such row"),
    ],
)
def test_what_is_no_tile(name: str, sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        tile_extent(name)


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the real items are not here")
def test_tiles_of_every_real_item() -> None:
    """The rule against the upper left corner that catalogs give for each Sentinel-2 item."""
    checked = 0
    for path in sorted(DATA.glob("*/**/*.json")):
        item = json.loads(path.read_text())
        properties = item.get("properties", {})
        name = properties.get("s2:mgrs_tile") or properties.get("grid:code", "")
        if "entinel-2" not in str(item.get("collection")) or not name:
            continue
        for asset in item["assets"].values():
            if asset.get("proj:shape", [0])[0] == 10980 and "proj:transform" in asset:
                _, (left, _, _, top) = tile_extent(name)
                assert (left, top) == (asset["proj:transform"][2], asset["proj:transform"][5]), item["id"]
                checked += 1
    assert checked > 100
