"""A real STAC API on loopback holding the toy region: it and the static catalog give the same items for a search."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pystac_client import Client
from servers import FileServer
from stac_servers import pgstac_api, published, rustac_api
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.items import plain_item
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.query import asked_of
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe

SERVICES = "MDICO_SERVICES"
"""Environment variable with the folder of the environment that has stac-fastapi.pgstac and pypgstac."""


@pytest.fixture(scope="module")
def files(toy_catalog: Path) -> Iterator[FileServer]:
    """The toy's GeoTIFFs over HTTP."""
    with FileServer(toy_catalog.parent) as server:
        yield server


@pytest.fixture(scope="module", params=["rustac", pytest.param("pgstac", marks=pytest.mark.services)])
def api(
    request: pytest.FixtureRequest, toy_catalog: Path, files: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of an API that holds the toy catalog."""
    collections, items = published(toy_catalog, files.address)
    if request.param == "rustac":
        with rustac_api(tmp_path_factory.mktemp("rustac"), collections, items) as url:
            yield url
        return
    place = os.environ.get(SERVICES)
    if place is None:
        pytest.skip(f"{SERVICES} does not name the environment of stac-fastapi.pgstac; .ci/run makes it")
    folder = tmp_path_factory.mktemp("pgstac")
    with pgstac_api(folder, Path(place) / "bin", collections, items) as url:
        yield url


@pytest.fixture
def pgstac(request: pytest.FixtureRequest, api: str) -> str:
    if "pgstac" not in request.node.name:
        pytest.skip("this API knows no filter")
    return api


@pytest.fixture
def facts(recipe_facts: dict[str, Any]) -> dict[str, Any]:
    return recipe_facts


def on(api: str, facts: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe's facts on the API instead of the static catalog."""
    path = tmp_path / "api.yml"
    local = Path(__file__).resolve().parents[2] / "catalogs/local.yml"
    path.write_text(local.read_text().replace("name: local", "name: api").replace("kind: static", "kind: auto"))
    return {**facts, "catalog": str(path), "href": api}


def found(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that a plan's searches found: "modality/item" -> the item without its assets' addresses."""
    plan = plan_build(parse_recipe(facts))
    items = {}
    for name, answer in plan.answers.items():
        for item in answer.items:
            plain = plain_item(item)
            plain["assets"] = {key: asset.get("type") for key, asset in plain["assets"].items()}
            items[f"{name}/{item.id}"] = json.loads(json.dumps(plain, sort_keys=True))
    return items


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"period": {"start": "2021-02-01", "end": "2021-02-28"}},
        {"period": {"start": "2021-01-15", "end": "2021-03-15", "step": "10D"}},
        {"area": {"bbox": [5.822, 50.516, 5.826, 50.519]}},
        {"modalities": {"sentinel1": {"orbit": "ascending"}, "sentinel2": {"bands": ["B04"]}}},
        {
            "modalities": {
                "sentinel1": {},
                "sentinel2": {"bands": ["B04"], "source": {"query": {"s2:processing_baseline": "04.00"}}},
            }
        },
        {
            "modalities": {
                "sentinel1": {"source": {"query": {"sat:orbit_state": {"in": ["ascending", "both"]}}}},
                "sentinel2": {"bands": ["B04"], "source": {"query": {"s2:processing_baseline": {"lt": "04.00"}}}},
            }
        },
    ],
)
def test_static_catalog_and_api_give_the_same_items(
    api: str, facts: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    facts |= change
    static = found(facts)
    assert found(on(api, facts, tmp_path)) == static
    assert static


def test_a_cube_from_an_api_is_the_cube_from_disk(
    api: str, files: FileServer, facts: dict[str, Any], tmp_path: Path
) -> None:
    """Searched by the API, read by ranges over HTTP; only the addresses differ, and so the digests."""
    facts["store"] = {"chunk": 32, "shard": 128}
    here = {**facts, "output": str(tmp_path / "here")}
    there = {**on(api, facts, tmp_path), "output": str(tmp_path / "there")}
    one, other = (open_reader(build_cube(parse_recipe(each))) for each in (here, there))
    assert files.count(".tif") > 0
    for name in one.modalities:
        whole = (slice(0, one.shape[0]), slice(0, one.shape[1]))
        np.testing.assert_array_equal(one.stored(name, *whole), other.stored(name, *whole))


def test_nothing_is_found_twice_or_lost_between_pages(api: str) -> None:
    client = Client.open(api)
    search = client.search(collections=["sentinel-2-l2a"], limit=4)
    assert sorted(item.id for item in search.items()) == sorted(
        f"S2_2021{m:02d}{d:02d}" for m in (1, 2, 3) for d in (5, 15, 25)
    )
    (one,) = client.search(collections=["sentinel-2-l2a"], ids=["S2_20210215"]).items()
    assert one.id == "S2_20210215"
    box = client.search(collections=["sentinel-1-rtc"], bbox=[0, 0, 1, 1])
    assert list(box.items()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"period": {"start": "2019-01-01", "end": "2019-02-01"}}, "no item in http.* Check area and period"),
        (
            {"modalities": {"sentinel2": {"source": {"collection": "sentinel-2-l2b"}}, "sentinel1": {}}},
            "has no collection 'sentinel-2-l2b'.*Did you mean 'sentinel-2-l2a'",
        ),
        ({"modalities": {"sentinel1": {"orbit": "descending"}, "sentinel2": {}}}, "sentinel-1-rtc: no item"),
    ],
)
def test_what_an_api_does_not_have_is_said(
    api: str, facts: dict[str, Any], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MdicoError, match=sentence):
        plan_build(parse_recipe(on(api, {**facts, **change}, tmp_path)))


def test_an_api_is_checked_like_any_catalog(api: str, facts: dict[str, Any], tmp_path: Path) -> None:
    others = ", ".join(f"{band}: B04" for band in ("B02", "B03", "B05", "B06", "B07", "B8A", "B11", "B12"))
    path = tmp_path / "mine.yml"
    path.write_text(
        f"name: mine\ntitle: Mine\nhref: {api}\nmodalities:\n"
        f"  sentinel2: {{collection: sentinel-2-l2a, quality: SCL, offset: baseline, assets: {{{others}}}}}\n"
        "  dem: {collection: cop-dem-glo-30, assets: {elevation: data}}\n"
    )
    done = CliRunner().invoke(app, ["catalogs", "check", str(path)])
    assert done.exit_code == 0, done.output
    assert f"ok     reachable: {api}" in done.output
    assert "ok     sentinel2: offsets" in done.output
    path.write_text(path.read_text().replace("elevation: data", "elevation: height"))
    done = CliRunner().invoke(app, ["catalogs", "check", str(path)])
    assert done.exit_code == 2
    assert "FAILED dem: assets" in done.output


def posted(api: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """One page of Sentinel-2 items."""
    text = json.dumps({"collections": ["sentinel-2-l2a"], "limit": 50, **body}).encode()
    request = urllib.request.Request(f"{api}/search", text, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        page: dict[str, Any] = json.load(answer)
    return list(page["features"])


def test_a_complete_api_filters_sorts_and_thins_out(pgstac: str) -> None:
    """What the recipe's query becomes is what the API does: nothing else comes over the wire."""
    client = Client.open(pgstac)
    for query, expected in (
        ({"s2:processing_baseline": "04.00"}, 3),
        ({"s2:processing_baseline": {"neq": "04.00"}, "platform": "sentinel-2a"}, 6),
        ({"s2:processing_baseline": {"in": ["03.01", "05.00"]}}, 6),
        ({"platform": "sentinel-2b"}, 0),
    ):
        asked = asked_of(client, query)
        assert asked["filter_lang"] == "cql2-json"
        assert len(list(client.search(collections=["sentinel-2-l2a"], **asked).items())) == expected
    newest = posted(pgstac, {"sortby": [{"field": "datetime", "direction": "desc"}], "limit": 1})
    assert [item["id"] for item in newest] == ["S2_20210325"]
    thin = posted(pgstac, {"fields": {"include": ["id"], "exclude": ["assets", "geometry"]}})
    assert len(thin) == 9
    assert not any("assets" in item for item in thin)
    text = "filter=s2:processing_baseline%3D'04.00'&filter-lang=cql2-text&collections=sentinel-2-l2a"
    with urllib.request.urlopen(f"{pgstac}/search?{text}") as answer:
        assert len(json.load(answer)["features"]) == 3
