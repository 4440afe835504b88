"""Searching catalogs: what is found, and the sentence for what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac
import pytest

from mdico_cube.cube.catalog import catalog_folder, load_catalog
from mdico_cube.cube.duplicates import item_time, newest
from mdico_cube.cube.pages import check_hrefs
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.query import matches
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"area": {"bbox": [10, 40, 10.1, 40.1]}}, "no item in .* touches the area .*The collection covers"),
        ({"area": {"bbox": [179.9, -17, -179.9, -16.9]}}, r"the area \[179\.\d+, -17\.\d+, -179\.\d+, -16\.\d+\]"),
        ({"period": {"start": "2019-01-01", "end": "2019-02-01"}}, "between 2018-12-31 and 2019-02-01"),
        ({"href": "/nowhere/catalog.json"}, "no such file"),
        ({"catalog": "planetary-komputer"}, "no such file .*Did you mean 'planetary-computer'?"),
        ({"modalities": {"sentinel3": {}, "sentinel1": {}, "sentinel2": {}}}, "unknown modality 'sentinel3'"),
        ({"modalities": {"sentinel1": {"bands": ["hh"]}, "sentinel2": {}}}, "sentinel1: unknown band hh"),
        (
            {"modalities": {"sentinel2": {"source": {"collection": "s2"}}, "sentinel1": {}}},
            "has no collection 's2': it has cop-dem-glo-30, sentinel-1-rtc, sentinel-2-l2a",
        ),
        (
            {"modalities": {"sentinel2": {"source": {"collection": "sentinel2-l2a"}}, "sentinel1": {}}},
            "Did you mean 'sentinel-2-l2a'?",
        ),
        ({"modalities": {"sentinel1": {"orbit": "descending"}, "sentinel2": {}}}, "sentinel-1-rtc: no item"),
        (
            {"modalities": {"sentinel1": {"source": {"query": {"sat:orbit_state": "descending"}}}, "sentinel2": {}}},
            "sentinel-1-rtc: no item",
        ),
    ],
)
def test_what_cannot_be_found_is_said(recipe_facts: dict[str, Any], change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        plan_build(parse_recipe({**recipe_facts, **change}))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[]", "is JSON but no STAC catalog"),
        ('{"type": "FeatureCollection", "features": []}', "no STAC catalog \\(it says 'FeatureCollection'"),
    ],
)
def test_a_catalog_that_is_not_stac(recipe_facts: dict[str, Any], tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(content)
    with pytest.raises(MdicoError, match=sentence):
        plan_build(parse_recipe({**recipe_facts, "href": str(path)}))


def item(name: str, when: str = "2021-06-01T10:30:00Z", **properties: Any) -> pystac.Item:
    return pystac.Item(name, None, None, pystac.utils.str_to_datetime(when), properties, collection="s2")


@pytest.mark.parametrize("millisecond", [0, 499, 500, 999])
def test_processings_a_millisecond_apart_are_one_acquisition(millisecond: int) -> None:
    tile = {"s2:mgrs_tile": "31UGS", "platform": "a"}
    old = item("old", f"2021-06-01T10:30:00.{millisecond:03d}Z", **tile, **{"s2:processing_baseline": "02.14"})
    new = item("new", "2021-06-01T10:30:00.500Z", **tile, **{"s2:processing_baseline": "05.00"})
    assert [one.id for one in newest([old, new])[0]] == ["new"] == [one.id for one in newest([new, old])[0]]


@pytest.mark.parametrize(
    ("older", "newer", "why"),
    [
        ({"s2:processing_baseline": "02.14"}, {"s2:processing_baseline": "05.00"}, "baseline 05.00 after 02.14"),
        ({"processing:version": "04.00"}, {"processing:version": "05.09"}, "baseline 05.09 after 04.00"),
        ({"landsat:collection_category": "RT"}, {"landsat:collection_category": "T1"}, "tier T1 after RT"),
        ({"created": "2021-01-01"}, {"created": "2021-02-01"}, "made later (2021-02-01)"),
        ({}, {}, "the last id stays"),
    ],
)
def test_why_a_processing_went_is_told(older: dict[str, Any], newer: dict[str, Any], why: str) -> None:
    tile = {"grid:code": "MGRS-31UGS", "platform": "a"}
    items = [item("x_0", **tile, **older), item("x_1", **tile, **newer)]
    kept, gone = newest(items)
    assert ([one.id for one in kept], list(gone)) == (["x_1"], ["x_0"])
    assert gone["x_0"].startswith("replaced by x_1: ")
    assert gone["x_0"].endswith(why)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"eo:cloud_cover": 20}, True),
        ({"eo:cloud_cover": {"lt": 20}}, False),
        ({"eo:cloud_cover": {"gte": 20, "lte": 30}}, True),
        ({"eo:cloud_cover": {"neq": 20}}, False),
        ({"platform": {"in": ["a", "b"]}}, True),
        ({"platform": {"in": ["c"]}}, False),
        ({"platform": {"lt": 3}}, False),  # a text against a number
        ({"platform": {"gt": "Z"}}, True),
        ({"absent": {"neq": 1}}, False),
    ],
)
def test_queries_are_checked_on_every_item(query: dict[str, Any], found: bool) -> None:
    assert matches(item("x", **{"eo:cloud_cover": 20, "platform": "a"}), query) is found


def test_newest_keeps_one_item_per_tile_and_second() -> None:
    tile = {"s2:mgrs_tile": "31UGS", "platform": "a"}
    items = [
        item("old", **tile, **{"s2:processing_baseline": "02.14"}),
        item("new", "2021-06-01T10:30:00.400Z", **tile, **{"s2:processing_baseline": "05.00"}),
        item("neighbour", **{**tile, "s2:mgrs_tile": "31UGT"}, **{"s2:processing_baseline": "02.14"}),
        item("next", "2021-06-06T10:30:00Z", **tile, **{"s2:processing_baseline": "02.14"}),
        item("without-a-tile"),
        item("without-a-tile-either"),
    ]
    kept = {one.id for one in newest(items)[0]}
    assert kept == {"new", "neighbour", "next", "without-a-tile", "without-a-tile-either"}
    assert [one.id for one in newest(items)[0]] == [one.id for one in newest(reversed(items))[0]]


@pytest.mark.parametrize(
    ("catalog", "href", "fine"),
    [
        ("https://example.org/stac", "https://example.org/a.tif", True),
        ("https://example.org/stac", "s3://bucket/a.tif", True),
        ("https://example.org/stac", "/etc/passwd", False),
        ("https://example.org/stac", "file:///etc/passwd", False),
        ("https://example.org/stac", "/vsicurl/https://example.org/a.tif", False),
        ("https://example.org/stac", "https://example.org/a.vrt?x=1", False),
        ("https://example.org/stac", "<VRTDataset></VRTDataset>", False),
        ("/data/catalog.json", "/data/a.tif", True),
        ("/data/catalog.json", "/data/a.vrt", False),
    ],
)
def test_a_remote_catalog_cannot_make_us_read_local_files(catalog: str, href: str, fine: bool) -> None:
    one = item("x")
    one.add_asset("B04", pystac.Asset(href))
    if fine:
        check_hrefs(one, catalog)
    else:
        with pytest.raises(MdicoError, match="may not ask for"):
            check_hrefs(one, catalog)


def test_signatures_are_not_shown() -> None:
    one = item("x")
    one.add_asset("B04", pystac.Asset("file:///data/a.tif?sig=secret"))
    with pytest.raises(MdicoError) as caught:
        check_hrefs(one, "https://example.org/stac")
    assert "secret" not in str(caught.value)


def test_a_catalog_out_of_reach_does_not_show_its_query(recipe_facts: dict[str, Any]) -> None:
    href = "http://127.0.0.1:1/catalog.json?sig=secret"
    with pytest.raises(MdicoError, match="cannot be read") as caught:
        plan_build(parse_recipe({**recipe_facts, "href": href}))
    assert "secret" not in str(caught.value)


def test_an_item_without_a_time_is_named() -> None:
    with pytest.raises(MdicoError, match="item x has neither"):
        item_time(pystac.Item("x", None, None, None, {"start_datetime": None, "end_datetime": None}))


@pytest.mark.parametrize("path", sorted(catalog_folder().glob("*.yml")), ids=lambda path: path.stem)
def test_every_catalog_file_is_read(path: Path) -> None:
    catalog = load_catalog(path.stem)
    assert catalog.name == path.stem
    assert catalog.modalities


def test_a_catalog_file_with_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(json.dumps({"name": "mine", "title": "Mine", "modalities": {}, "colour": 1}))
    with pytest.raises(MdicoError, match="colour"):
        load_catalog(str(path))


def test_the_plan_counts_scenes_and_bytes(recipe_facts: dict[str, Any]) -> None:
    summary = plan_build(parse_recipe(recipe_facts)).summary()
    assert summary["modalities"]["sentinel2"]["scenes_per_step"] == [3, 3, 3]
    assert summary["modalities"]["sentinel2"]["bytes_stored"] == 64 * 96 * 3 * 2 * 2
    assert summary["modalities"]["sentinel2"]["bytes_read"] == pytest.approx(64 * 96 * 9 * (2 * 2 + 1), rel=0.01)
    assert summary["jobs"] == 18
    assert json.dumps(summary)
