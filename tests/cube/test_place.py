"""Projection metadata as catalogs really write them: where they stand, what they get wrong, what is mended."""

from __future__ import annotations

from typing import Any

import pystac
import pytest

from mdico_cube.cube.place import item_crs, settle_crs
from mdico_cube.errors import MdicoError

CHATHAM = [-177.74, -45.68, -174.68, -43.52]
"""A Landsat scene in zone 1, south of the equator."""


def item(
    bbox: list[float], properties: dict[str, Any] | None = None, asset: dict[str, Any] | None = None
) -> pystac.Item:
    one = pystac.Item(
        "x", None, bbox, pystac.utils.str_to_datetime("2021-06-01T10:30:00Z"), properties or {}, collection="c"
    )
    one.add_asset("red", pystac.Asset("https://example.org/red.tif", extra_fields=asset or {}))
    return one


@pytest.mark.parametrize(
    ("properties", "asset", "crs"),
    [
        ({"proj:epsg": 32631}, {}, "EPSG:32631"),  # STAC 1.0
        ({"proj:code": "EPSG:32631"}, {}, "EPSG:32631"),  # STAC 1.1
        ({}, {"proj:code": "EPSG:32631"}, "EPSG:32631"),  # on assets only
        ({"proj:epsg": 32632}, {"proj:epsg": 32631}, "EPSG:32631"),  # the asset knows better
        ({"proj:epsg": None}, {}, None),
        ({}, {}, None),
    ],
)
def test_where_the_crs_stands(properties: dict[str, Any], asset: dict[str, Any], crs: str | None) -> None:
    one = item([2.0, 50.0, 4.0, 51.0], properties, asset)
    assert item_crs(one, "red") == crs
    assert settle_crs(one, "red") == crs


@pytest.mark.parametrize(
    ("top", "crs"),
    [(-4820685.0, 32601), (10000000.0 - 4820685.0, 32701)],  # negative northings, as USGS writes them; or false ones
)
def test_a_zone_without_its_zero_is_mended_by_where_the_item_is(top: float, crs: int) -> None:
    raster = {"proj:transform": [30, 0, 442485, 0, -30, top], "proj:shape": [7951, 7941]}
    one = item(CHATHAM, {"proj:epsg": 3271}, raster)
    assert settle_crs(one, "red") == f"EPSG:{crs}"
    assert one.properties["proj:epsg"] == crs
    assert settle_crs(one, "red") == f"EPSG:{crs}", "mending twice is mending once"


def test_without_a_raster_the_area_of_use_decides() -> None:
    one = item(CHATHAM, {"proj:epsg": 3271})
    assert settle_crs(one, "red") == "EPSG:32701"


@pytest.mark.parametrize(
    ("bbox", "crs"),
    [
        ([2.0, 50.0, 4.0, 51.0], "EPSG:3271"),
        ([2.0, 50.0, 4.0, 51.0], "EPSG:32731x"),
        ([100.0, 50.0, 102.0, 51.0], "EPSG:32631"),
    ],
)
def test_an_item_in_the_wrong_part_of_the_world_is_refused(bbox: list[float], crs: str) -> None:
    raster = {"proj:transform": [10, 0, 500000, 0, -10, 5600000], "proj:shape": [1000, 1000]}
    with pytest.raises(MdicoError, match=f"item x says {crs}, but in that CRS it does not lie at its own bounding box"):
        settle_crs(item(bbox, {"proj:code": crs}, raster), "red")


@pytest.mark.parametrize(
    ("bbox", "raster", "crs"),
    [
        # over the antimeridian, west to the right of east
        ([178.5, -20.0, -178.5, -18.0], {"proj:bbox": [160000, 7780000, 500000, 8000000]}, "EPSG:32701"),
        # over the antimeridian as one wide box
        ([-180.0, -20.0, 180.0, -18.0], {"proj:bbox": [160000, 7780000, 500000, 8000000]}, "EPSG:32701"),
        # Copernicus DEM at the pole: pixels ten times as wide as high
        (
            [-179.0014, -89.99986, -178.0014, -88.99986],
            {"proj:transform": [1 / 360, 0, -179.00139, 0, -1 / 3600, -88.99986], "proj:shape": [3600, 360]},
            "EPSG:4326",
        ),
        # degrees written into proj:bbox
        ([9.0, 44.157, 10.4, 45.154], {"proj:bbox": [9.0, 44.157, 10.4, 45.154]}, "EPSG:32632"),
        # three dimensions
        ([2.0, 50.0, 0.0, 4.0, 51.0, 100.0], {"proj:bbox": [500000, 5540000, 510000, 5650000]}, "EPSG:32631"),
    ],
)
def test_strange_but_right(bbox: list[float], raster: dict[str, Any], crs: str) -> None:
    assert settle_crs(item(bbox, {"proj:code": crs}, raster), "red") == crs
