"""Items as catalogs really write them, by hand: one test per trap of offsets, products, processings and time."""

from __future__ import annotations

from typing import Any

import pystac
import pytest
from odc.geo.geobox import GeoBox

from mdico_cube.cube.catalog import load_catalog
from mdico_cube.cube.check import Verdict, judge_item
from mdico_cube.cube.duplicates import newest
from mdico_cube.cube.plan import _assign
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.spec import Period

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(
    catalog: str, modality: str, properties: dict[str, Any], band: dict[str, Any] | None = None, **asset: Any
) -> pystac.Item:
    """An item with every asset the catalog's file names, each with the same fields."""
    source = load_catalog(catalog).modalities[modality]
    sensor = get_sensor(modality)
    when = pystac.utils.str_to_datetime(properties.pop("datetime", "2021-06-01T10:30:00Z"))
    one = pystac.Item("x", None, None, when, properties, collection=source.collection)
    fields = {**({"raster:bands": [band]} if band else {}), **asset}
    for key in [*(source.assets.get(b, b) for b in sensor.reads or sensor.defaults), *filter(None, [source.quality])]:
        one.add_asset(key, pystac.Asset("https://example.org/x.tif", media_type=TIFF, extra_fields=dict(fields)))
    return one


def judge(catalog: str, modality: str, one: pystac.Item) -> Verdict:
    return judge_item(one, load_catalog(catalog).modalities[modality], get_sensor(modality))


@pytest.mark.parametrize(
    ("catalog", "properties", "band", "offset"),
    [
        ("planetary-computer", {"s2:processing_baseline": "02.12"}, None, "+0"),
        ("planetary-computer", {"s2:processing_baseline": "05.11"}, None, "-0.1"),
        # an old scene that was processed again, and a new one that was not: the date says nothing
        ("planetary-computer", {"datetime": "2016-06-01T10:30:00Z", "s2:processing_baseline": "05.00"}, None, "-0.1"),
        ("planetary-computer", {"datetime": "2022-03-01T10:30:00Z", "s2:processing_baseline": "03.01"}, None, "+0"),
        # Earth Search v1 declares -0.1 on counts that were shifted back already
        ("earth-search", {"earthsearch:boa_offset_applied": True}, {"scale": 1e-4, "offset": -0.1}, "+0"),
        ("earth-search", {"earthsearch:boa_offset_applied": False}, {"scale": 1e-4, "offset": -0.1}, "-0.1"),
        ("earth-search", {"earthsearch:boa_offset_applied": False}, {"scale": 1e-4, "offset": 0}, "+0"),
        ("earth-search-c1", {"s2:processing_baseline": "05.00"}, {"scale": 1e-4, "offset": -0.1}, "-0.1"),
    ],
)
def test_sentinel2_offsets(catalog: str, properties: dict[str, Any], band: dict[str, Any] | None, offset: str) -> None:
    verdict = judge(catalog, "sentinel2", item(catalog, "sentinel2", dict(properties), band))
    assert verdict.radiometry.split()[0] == offset
    assert not verdict.refused


def test_stac_1_1_declares_the_offset_beside_the_bands() -> None:
    fields = {"bands": [{"name": "B02"}], "raster:offset": -0.1, "raster:scale": 1e-4, "proj:code": "EPSG:32635"}
    verdict = judge("cdse", "sentinel2", item("cdse", "sentinel2", {}, **fields))
    assert verdict.radiometry == "-0.1 (declared by the item)"


def test_a_landsat_scene_without_thermal_bands_is_fine() -> None:
    one = item("planetary-computer", "landsat", {"landsat:correction": "L2SR"}, {"scale": 2.75e-5, "offset": -0.2})
    assert judge("planetary-computer", "landsat", one).radiometry == "-0.2 (Collection 2 Level 2, as declared)"


def test_old_items_of_landsatlook_are_refused_by_name() -> None:
    """STAC 0.7 and 1.0.0-beta: other asset names, no CRS."""
    one = pystac.Item("x", None, None, pystac.utils.str_to_datetime("2015-07-10T00:00:00Z"), {}, collection="c")
    for number in range(1, 8):
        one.add_asset(f"SR_B{number}.TIF", pystac.Asset("https://example.org/x.tif"))
    verdict = judge("usgs-landsatlook", "landsat", one)
    assert verdict.missing[:2] == ("blue", "green")
    assert verdict.refused.startswith("has no asset blue")


@pytest.mark.parametrize(("collection", "refused"), [("sentinel-1-grd", True), ("sentinel-1-rtc", False)])
def test_grd_is_refused_whatever_its_projection_says(collection: str, refused: bool) -> None:
    properties = {"sar:product_type": "GRD", "proj:epsg": 4326}
    one = item("planetary-computer", "sentinel1", properties)
    source = load_catalog("planetary-computer").modalities["sentinel1"].model_copy(update={"collection": collection})
    verdict = judge_item(one, source, get_sensor("sentinel1"))
    assert bool(verdict.refused) is refused
    assert ("RTC" in verdict.refused) is refused


def same(name: str, when: str, **properties: Any) -> pystac.Item:
    return pystac.Item(name, None, None, pystac.utils.str_to_datetime(when), properties, collection="c")


def test_the_same_acquisition_twice() -> None:
    """Earth Search counts them _0 and _1, a millisecond apart; Landsat's real-time scenes are replaced by tier 1."""
    tile = {"grid:code": "MGRS-32TMT", "platform": "sentinel-2a"}
    landsat = {"landsat:wrs_path": "044", "landsat:wrs_row": "034", "platform": "landsat-8"}
    items = [
        same("S2A_0", "2020-03-02T10:27:44.563Z", **tile, **{"s2:processing_baseline": "02.14"}),
        same("S2A_1", "2020-03-02T10:27:44.564Z", **tile, **{"s2:processing_baseline": "05.00"}),
        same("LC08_T1", "2021-03-29T18:00:00Z", **landsat, **{"landsat:collection_category": "T1", "created": "1"}),
        same("LC08_RT", "2021-03-29T18:00:00Z", **landsat, **{"landsat:collection_category": "RT", "created": "2"}),
        same("LC08_next_row", "2021-03-29T18:00:00Z", **{**landsat, "landsat:wrs_row": "035"}),
    ]
    assert [one.id for one in newest(items)[0]] == ["S2A_1", "LC08_T1", "LC08_next_row"]


def test_the_local_solar_day_decides_the_month() -> None:
    """22:40 UTC on the last of January is the first of February in New South Wales."""
    grid = GeoBox.from_bbox((700000, 6200000, 700640, 6200640), "EPSG:32755", resolution=10)
    period = Period("2021-01-01", "2021-02-28")
    shape = grid.extent.to_crs("EPSG:4326").json
    items = [same("late", "2021-01-31T22:40:00Z"), same("early", "2021-01-31T10:00:00Z")]
    for one in items:
        one.geometry = shape
    steps, scenes = period.steps(), _assign(items, grid, period.intervals())
    assert {scene.item.id: steps[scene.step] for scene in scenes} == {"late": "2021-02-01", "early": "2021-01-01"}
