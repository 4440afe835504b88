"""Grids and shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from mdico_cube.cube.grid import grid_for, shards
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Area


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 128))
def test_shards_cover_every_pixel_exactly_once(height: int, width: int, side: int) -> None:
    count = np.zeros((height, width), dtype=int)
    for shard in shards((height, width), side):
        count[shard.y, shard.x] += 1
        assert shard.y.start == shard.row * side
        assert shard.x.start == shard.column * side
    assert (count == 1).all()


@pytest.mark.parametrize(("lon", "zone"), [(5.9, 32631), (6.1, 32632), (-70.0, 32619)])
def test_auto_takes_the_utm_zone_of_the_centre(lon: float, zone: int) -> None:
    assert grid_for(Area(bbox=(lon - 0.01, 50, lon + 0.01, 50.01))).crs.epsg == zone


def test_auto_knows_the_southern_hemisphere() -> None:
    assert grid_for(Area(bbox=(30, -10.1, 30.1, -10))).crs.epsg == 32736


@given(st.floats(-5000, 5000), st.floats(-5000, 5000), st.sampled_from([10.0, 20.0, 30.0]))
def test_pixel_edges_stand_at_whole_multiples(x: float, y: float, resolution: float) -> None:
    bounds = (5e5 + x, 5.5e6 + y, 5e5 + x + 777, 5.5e6 + y + 333)
    grid = grid_for(Area(bounds=bounds, crs="EPSG:32631", resolution=resolution))
    assert grid.affine.c % resolution == 0
    assert grid.affine.f % resolution == 0
    box, slack = grid.boundingbox, 0.01 * resolution + 1e-6  # the grid covers the area to a hundredth of a pixel
    assert box.left <= bounds[0] + slack
    assert box.top >= bounds[3] - slack
    assert box.right >= bounds[2] - slack
    assert box.bottom <= bounds[1] + slack


@pytest.mark.parametrize(("resolution", "size"), [(10, 10980), (20, 5490), (60, 1830)])
def test_a_tile_by_name(resolution: float, size: int) -> None:
    grid = grid_for(Area(tile="31UFS", resolution=resolution))
    assert tuple(grid.shape) == (size, size)
    assert grid.crs.epsg == 32631
    assert tuple(grid.boundingbox.bbox) == (600000, 5590200, 709800, 5700000)
    assert grid_for(Area(tile="31UFS", crs="EPSG:3035", resolution=100)).crs.epsg == 3035


@pytest.mark.parametrize(
    ("bbox", "zone"),
    [
        ((179.5, -17.5, -179.9, -17.2), 32760),  # the centre decides
        ((179.9, -17.5, -179.5, -17.2), 32701),
        ((179.9, 17.2, -179.7, 17.5), 32601),
    ],
)
def test_an_area_over_the_antimeridian(bbox: tuple[float, float, float, float], zone: int) -> None:
    grid = grid_for(Area(bbox=bbox, resolution=100))
    assert grid.crs.epsg == zone
    width = (bbox[2] - bbox[0]) % 360
    assert grid.boundingbox.span_x == pytest.approx(width * 111320 * np.cos(np.radians(17.35)), rel=0.03)
    corners = np.array([[bbox[0], bbox[1]], [bbox[2], bbox[3]], [180, bbox[1]], [-180, bbox[3]]]).T
    x, y = Transformer.from_crs("EPSG:4326", grid.crs.epsg, always_xy=True).transform(*corners)
    box = grid.boundingbox
    assert (x >= box.left - 1).all()
    assert (x <= box.right + 1).all()
    assert (y >= box.bottom - 1).all()
    assert (y <= box.top + 1).all()


def test_a_geojson_over_the_antimeridian(tmp_path: Path) -> None:
    rings = [[[w, -17.5], [e, -17.5], [e, -17.2], [w, -17.2], [w, -17.5]] for w, e in ((179.5, 180), (-180, -179.9))]
    path = tmp_path / "fiji.geojson"
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}))
    assert grid_for(Area(geojson=path)) == grid_for(Area(bbox=(179.5, -17.5, -179.9, -17.2)))


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
def test_a_crs_that_is_torn_at_the_antimeridian(crs: str) -> None:
    with pytest.raises(MdicoError, match=r"crosses the antimeridian, where EPSG:\d+ is torn"):
        grid_for(Area(bbox=(179.5, -17.5, -179.9, -17.2), crs=crs, resolution=0.001 if crs == "EPSG:4326" else 10))


def test_an_area_over_two_zones_stands_in_that_of_its_centre() -> None:
    assert grid_for(Area(bbox=(5.0, 50, 6.2, 50.1))).crs.epsg == 32631
    assert grid_for(Area(bbox=(5.9, 50, 7.0, 50.1))).crs.epsg == 32632


def test_an_exact_area_gives_exact_pixels() -> None:
    grid = grid_for(Area(bounds=(700000, 5600000, 705120, 5605120), crs="EPSG:32631"))
    assert tuple(grid.shape) == (512, 512)


def test_a_geojson_area(tmp_path: Path) -> None:
    ring = [[5.0, 50.0], [5.1, 50.0], [5.1, 50.1], [5.0, 50.1], [5.0, 50.0]]
    path = tmp_path / "area.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert grid_for(Area(geojson=path)) == grid_for(Area(bbox=(5.0, 50.0, 5.1, 50.1)))


@pytest.mark.parametrize("text", ["{}", "no json", '{"type": "FeatureCollection", "features": []}'])
def test_a_file_that_is_no_geojson(tmp_path: Path, text: str) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(text)
    with pytest.raises(MdicoError, match="cannot be read as GeoJSON"):
        grid_for(Area(geojson=path))


@pytest.mark.parametrize(
    ("crs", "sentence"),
    [("EPSG:999999", "is no known CRS"), ("EPSG:5773", "is no CRS of a map"), ("EPSG:4326", "is in degrees")],
)
def test_a_crs_that_cannot_be_a_grid(crs: str, sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        grid_for(Area(bbox=(5, 50, 6, 51), crs=crs))


def test_a_geojson_in_metres(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "Point", "coordinates": [700000, 5600000]}))
    with pytest.raises(MdicoError, match="coordinates are not degrees"):
        grid_for(Area(geojson=path))
