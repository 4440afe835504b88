"""Items as catalogs really write them, by hand: one test per trap, here or where TRAPS points to.

What hurts people who build cubes from STAC today, as measured on real items and read in the issues of odc-stac,
stackstac, Earth Search and others; each must stay mended.
"""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import Affine
from servers import FileServer
from shapely import MultiPolygon, box
from toy_world import World

from mdico_cube.cube import pages
from mdico_cube.cube.catalog import load_catalog
from mdico_cube.cube.check import Verdict, judge_item
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.duplicates import newest
from mdico_cube.cube.items import Answer, pack_items, unpack_items
from mdico_cube.cube.links import read_item
from mdico_cube.cube.place import item_crs
from mdico_cube.cube.planning import _assign, plan_build, usable
from mdico_cube.cube.search import recall
from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.recipe import Source, parse_recipe
from mdico_cube.sensors.registry import get_sensor

HERE = "cube/test_traps.py"
TRAPS = {
    "the reader ignores scale and offset of raster:bands, or the file has its own": (
        "cube/test_missions.py::test_a_scale_in_the_file_itself_is_not_applied_as_well"
    ),
    "Sentinel-2's offset depends on item and catalog, never on the date": f"{HERE}::test_sentinel2_offsets",
    "STAC 1.1 declares the offset beside the bands": f"{HERE}::test_stac_1_1_declares_the_offset_beside_the_bands",
    "an offset decided against the item's own processing": f"{HERE}::test_a_contradicted_offset_is_doubted",
    "an offset that is wrong in spite of its metadata": (
        "cube/test_optical.py::test_the_ledger_doubts_a_wrong_offset",
        "cube/test_optical.py::test_a_second_subtraction_is_doubted",
    ),
    "Landsat's scales": "sensors/test_landsat.py::test_another_scale_is_refused",
    "Landsat's bits": "sensors/test_quality.py::test_landsat_bits",
    "scenes of reflectance only lack thermal assets": (
        f"{HERE}::test_a_landsat_scene_without_thermal_bands_is_fine",
        "cube/test_missions.py::test_every_mission_of_landsat_gives_reflectance_and_temperature",
    ),
    "gaps of the broken scan line corrector": (
        "cube/test_missions.py::test_stripes_of_a_broken_scanner_stay_gaps_in_both"
    ),
    "radar is averaged as power": "cube/test_missions.py::test_orbit_directions",
    "radar's no data and shadows": "sensors/test_rules.py::test_sentinel1_stores_decibels_of_the_power",
    "proj:epsg, proj:code, on the assets only, or none": "cube/test_place.py::test_where_the_crs_stands",
    "GRD with a CRS it does not have": f"{HERE}::test_grd_is_refused_whatever_its_projection_says",
    "the same acquisition twice, a millisecond apart": (
        f"{HERE}::test_the_same_acquisition_twice",
        "cube/test_search.py::test_processings_a_millisecond_apart_are_one_acquisition",
        "cube/test_items.py::test_what_was_left_out_is_in_the_file_with_the_reason",
    ),
    "EPSG:3271 where 32701 is meant": (
        "cube/test_place.py::test_a_zone_without_its_zero_is_mended_by_where_the_item_is",
        f"{HERE}::test_a_mended_crs_does_not_get_into_the_saved_items",
    ),
    "footprints in two parts over the antimeridian": f"{HERE}::test_a_footprint_over_the_antimeridian",
    "assets without an address": f"{HERE}::test_an_asset_without_an_address_is_none",
    "links from the web to this machine's files": (
        f"{HERE}::test_a_catalog_of_the_web_does_not_link_to_files_of_this_machine",
        "cube/test_search.py::test_a_remote_catalog_cannot_make_us_read_local_files",
    ),
    "footprints with an empty part": f"{HERE}::test_an_empty_part_of_a_footprint_is_left_out_of_the_file",
    "elevation tiles at the pole with pixels ten times as wide as high": f"{HERE}::test_a_tile_at_the_pole",
    "STAC 0.7 and 1.0.0-beta beside 1.0": f"{HERE}::test_old_items_of_landsatlook_are_refused_by_name",
    "the local solar day": f"{HERE}::test_the_local_solar_day_decides_the_month",
    "weather's longitudes from 0 to 359.75": "cube/test_weather_read.py::test_areas_on_the_seam_of_longitudes",
    "signed addresses expire": "cube/test_web.py::test_expired_signatures_are_renewed",
    "flaky servers": "cube/test_web.py::test_passing_faults_leave_no_trace",
    "flaky catalogs: what was found is kept": "cube/test_items.py::test_going_on_does_not_ask_the_catalog_again",
    "one bad file kills the job and nobody can tell which": (
        "cube/test_build.py::test_a_truncated_file_is_named_and_the_rest_is_built"
    ),
    "a build that dies starts again from nothing": "cube/test_build.py::test_resume_after_a_stop_gives_the_same_cube",
    "silent gaps": "cube/test_web.py::test_gaps_are_built_of_the_other_scenes_and_said_exactly",
    "two zones in one region": "cube/test_build.py::test_two_granules_in_two_zones_count_as_one_overpass",
    "an API that ignores filters silently": "cube/test_search.py::test_queries_are_checked_on_every_item",
}
"""Trap -> the tests that keep it shut."""
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_its_test(trap: str) -> None:
    tests = TRAPS[trap] if isinstance(TRAPS[trap], tuple) else (TRAPS[trap],)
    for test in tests:
        path, _, name = test.partition("::")
        tree = ast.parse((Path(__file__).resolve().parents[1] / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def item(
    catalog: str, modality: str, properties: dict[str, Any], band: dict[str, Any] | None = None, **asset: Any
) -> pystac.Item:
    """An item with every asset the catalog's file names, each with the same fields."""
    source = load_catalog(catalog).modalities[modality]
    sensor = get_sensor(modality)
    when = pystac.utils.str_to_datetime(properties.pop("datetime", "2021-06-01T10:30:00Z"))
    one = pystac.Item("x", None, None, when, properties, collection=source.collection)
    fields = {**({"raster:bands": [band]} if band else {}), **asset}
    for key in [*(source.keys(b)[0] for b in sensor.reads or sensor.defaults), *source.quality_keys[:1]]:
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


@pytest.mark.parametrize(
    ("properties", "offset", "doubt"),
    [
        ({"s2:processing_baseline": "05.11"}, -0.1, ""),
        ({"s2:processing_baseline": "05.11"}, 0, "adds an offset, and none is taken out"),
        ({"s2:processing_baseline": "02.12"}, 0, ""),
        ({"s2:processing_baseline": "02.12"}, -0.1, "its processing never added"),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True}, -0.1, ""),
        ({}, -0.1, ""),
    ],
)
def test_a_contradicted_offset_is_doubted(properties: dict[str, Any], offset: float, doubt: str) -> None:
    one = item("earth-search", "sentinel2", dict(properties), {"scale": 1e-4, "offset": offset})
    verdict = judge("earth-search", "sentinel2", one)
    assert verdict.doubt.endswith(doubt)
    assert bool(verdict.doubt) == bool(doubt)


@pytest.mark.parametrize("has_box", [True, False])
def test_a_mended_crs_does_not_get_into_the_saved_items(has_box: bool) -> None:
    """Saved items are as the catalog gave them: what is mended is mended again at every plan."""
    bbox = [-177.74, -45.68, -174.68, -43.52]
    raster = {"proj:transform": [30, 0, 442485, 0, -30, 5179315], "proj:shape": [7951, 7941]}
    one = item("planetary-computer", "landsat", {"proj:epsg": 3271}, **raster)
    one.bbox, one.geometry = bbox if has_box else None, box(*bbox).__geo_interface__  # nine real items have no bbox
    answer = Answer("https://example.org", "", (one,))
    source, sensor = load_catalog("planetary-computer").modalities["landsat"], get_sensor("landsat")
    (mended,), left_out = usable(answer.items, source, sensor, ("red",))
    assert (mended.properties["proj:epsg"], left_out) == (32701, {})
    (back,) = unpack_items(pack_items({"landsat": answer}, {}), "x")["landsat"].items
    assert (back.bbox or None) == one.bbox
    assert item_crs(back, "red") == item_crs(one, "red") == "EPSG:3271"
    assert usable((back,), source, sensor, ("red",))[0][0].properties["proj:epsg"] == 32701


def test_a_footprint_over_the_antimeridian() -> None:
    """Two parts, one at each end of the world: the scene touches blocks on both sides and none elsewhere."""
    one = same("x", "2021-06-01T22:30:00Z")
    one.geometry = MultiPolygon([box(179.4, -17.2, 180, -16.2), box(-180, -17.2, -179.6, -16.2)]).__geo_interface__
    for lon, touches in ((179.6, True), (179.95, True), (-179.8, True), (179.0, False), (-179.0, False)):
        x, y = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(lon, -16.7)
        grid = GeoBox.from_bbox((x, y, x + 640, y + 640), "EPSG:32760", resolution=10)
        scenes = _assign([one], grid, Period("2021-06-01", "2021-06-30").intervals())
        assert bool(scenes and scenes[0].footprint.intersects(grid.extent)) is touches, lon
        _, strange = recall(Answer("c", "", (one,)), "c", Source(collection="c"), grid, None)
        assert (not strange) is touches, lon


def test_an_empty_part_of_a_footprint_is_left_out_of_the_file() -> None:
    one = same("x", "2021-06-01T10:30:00Z")
    ring = [[5.0, 50.0], [6.0, 50.0], [6.0, 51.0], [5.0, 50.0]]
    one.geometry, one.bbox = {"type": "MultiPolygon", "coordinates": [[], [ring]]}, [5.0, 50.0, 6.0, 51.0]
    content = pack_items({"sentinel1": Answer("c", "", (one,))}, {})
    assert [part.area for part in geopandas.read_parquet(io.BytesIO(content)).geometry] == [0.5]
    assert unpack_items(content, "x")["sentinel1"].items[0].geometry == one.geometry


def test_a_tile_at_the_pole(tmp_path: Path, recipe_facts: dict[str, Any]) -> None:
    """Copernicus tiles thin out their columns towards the poles; slope and aspect must not notice."""
    tile = GeoBox((720, 72), Affine(1 / 360, 0, -44.1, 0, -1 / 3600, -84.9), "EPSG:4326")  # ten times as wide as high
    world = World(tmp_path / "pole", tile)
    latitude = -84.9 - (np.arange(720) + 0.5) / 3600
    height = np.repeat((3000 + 0.1 * (latitude + 85) * 111_700)[:, None], 72, axis=1)  # rises a tenth northwards
    world.item(
        world.collection("cop-dem-glo-30"), "tile", "2021-01-01T00:00:00Z", {"data": height.astype(np.float32)},
        nodata=-32767,
    )  # fmt: skip
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True).transform(-44.0, -85.0)
    facts = {**recipe_facts, "href": str(world.save())}
    facts["area"] = {"bounds": [x - 480, y - 480, x + 480, y + 480], "crs": "EPSG:3031", "resolution": 30}
    facts |= {"modalities": {"dem": {}, "sentinel1": {}}}
    facts["colearn"]["modalities"] = ["dem", "sentinel1"]
    recipe = parse_recipe(facts)
    dem = recipe.model_copy(update={"modalities": {"dem": recipe.modalities["dem"]}})
    plan = plan_build(dem)
    terrain = compute_block(plan.layers[0], plan.geobox)[0][:, 2:-2, 2:-2]
    assert np.isfinite(terrain).all()
    np.testing.assert_allclose(np.median(terrain[1]), np.degrees(np.arctan(0.1)), rtol=1e-3)  # its metres are 2.7 % off
    np.testing.assert_allclose(terrain[2], -1, atol=1e-3)  # it falls southwards, whichever way the grid's up points


def test_an_asset_without_an_address_is_none() -> None:
    """Reflectance-only scenes of the Planetary Computer's landsat-8-c2-l2 carry thermal assets that lead nowhere."""
    one = item("planetary-computer", "landsat_st", {"landsat:correction": "L2SR"})
    facts = one.to_dict(include_self_link=False)
    assert one.assets.keys() == {"lwir11", "qa_pixel"}
    del facts["assets"]["lwir11"]["href"]
    back = read_item(facts)
    assert back.assets.keys() == {"qa_pixel"}
    assert judge("planetary-computer", "landsat_st", back).missing == ("lwir11",)


def test_a_catalog_of_the_web_does_not_link_to_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"password": "hush-hush"}')
    page = {"type": "Catalog", "id": "c", "description": "", "stac_version": "1.0.0"}
    for href in (str(tmp_path / "secret.json"), (tmp_path / "secret.json").as_uri(), "/vsicurl/http://x/secret.json"):
        page["links"] = [{"rel": "child", "href": href}]
        (tmp_path / "catalog.json").write_text(json.dumps(page))
        with FileServer(tmp_path) as server, pytest.raises(MdicoError) as caught:
            pages.static_collection(f"{server.address}/catalog.json", Source(collection="x"))
        assert "hush" not in str(caught.value)
        assert "a remote catalog may not ask for" in str(caught.value) or "cannot be read" in str(caught.value)
        assert server.count("secret") == 0
