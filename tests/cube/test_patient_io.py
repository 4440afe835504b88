"""Searching a catalog that fails, is slow, or is not there: asked again, in pieces, or elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from odc.geo.geobox import GeoBox
from servers import Faults, FileServer, SlowApi, publish

from mdico_cube.cube.catalog import load_catalog
from mdico_cube.cube.pages import UnreachableError, landing_page
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.search import search_items
from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.recipe import ReadSection, Source, parse_recipe

YEAR = Period("2021-01-01", "2021-12-31", "MS")
QUICK = ReadSection(retries=6, backoff=0.002, timeout=5)


@pytest.fixture
def web(toy_catalog: Path, tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "web", toy_catalog.parent) as served:
        publish(toy_catalog, tmp_path / "web", served.address)
        yield served


def items_of(grid: GeoBox, days: int) -> list[dict[str, Any]]:
    outline = grid.extent.to_crs("EPSG:4326")
    return [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"S2_{day:03d}", "collection": "s2",
            "geometry": outline.json, "bbox": list(outline.boundingbox.bbox), "links": [], "assets": {},
            "properties": {"datetime": f"2021-{1 + day // 28:02d}-{1 + day % 28:02d}T10:30:00Z"},
        }
        for day in range(days)
    ]  # fmt: skip


def test_a_catalog_over_a_failing_web_is_read_whole(web: FileServer, grid: GeoBox) -> None:
    web.faults = Faults(0.4, ("503", "429", "500"), seed=3, among=(".json",))
    source = Source(collection="sentinel-2-l2a")
    found = search_items(load_catalog("local"), f"{web.address}/catalog.json", source, grid, YEAR, reading=QUICK)
    assert len(found.items) == 9
    assert web.struck > 3


def test_a_long_wait_for_a_catalog_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    told: list[str] = []
    monkeypatch.setattr("mdico_cube.cube.patient_io.say", told.append)
    monkeypatch.setattr("mdico_cube.cube.patient_io.time.sleep", waits.append)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        href = f"http://127.0.0.1:{nobody.getsockname()[1]}/catalog.json?token=secret"
        with pytest.raises(UnreachableError, match="Connection refused"):
            landing_page(href, ReadSection(retries=4, backoff=1, timeout=5))
    assert len(told) == sum(wait >= 2 for wait in waits) > 0
    assert all("does not answer (Connection refused), asked again in" in text for text in told)
    assert not any("secret" in text for text in told)


def test_a_page_that_is_gone_is_asked_for_once_and_said(web: FileServer, grid: GeoBox) -> None:
    web.faults = Faults(paths={"S2_20210215.json": "404"}, among=(".json",))
    source = Source(collection="sentinel-2-l2a")
    with pytest.raises(UnreachableError, match=r"a linked file cannot be read \(.*S2_20210215.json.*404\)"):
        search_items(load_catalog("local"), f"{web.address}/catalog.json", source, grid, YEAR, reading=QUICK)
    assert web.count("S2_20210215.json") == 1


@pytest.mark.parametrize(
    ("page", "sentence"),
    [("nothere.json", r"cannot be read \(HTTP status 404\)"), ("S2_20210215/B04.tif", "is not a text file")],
)
def test_what_is_no_catalog_is_asked_for_once_and_said(web: FileServer, page: str, sentence: str) -> None:
    href = f"{web.address}/sentinel-2-l2a/{page}"
    with pytest.raises(MdicoError, match=sentence):
        landing_page(href, QUICK)
    assert web.count(page) == 1


def test_a_remote_catalog_that_links_to_this_machine_is_refused(
    web: FileServer, grid: GeoBox, toy_catalog: Path, tmp_path: Path
) -> None:
    page = tmp_path / "web" / "catalog.json"
    for there in (str(toy_catalog.parent), f"file://{toy_catalog.parent}"):
        publish(toy_catalog, tmp_path / "web", web.address)
        page.write_text(page.read_text().replace('"./sentinel', f'"{there}/sentinel'))
        with pytest.raises(MdicoError, match="a remote catalog may not ask for"):
            search_items(
                load_catalog("local"), f"{web.address}/catalog.json", Source(collection="x"), grid, YEAR, reading=QUICK
            )


def test_a_search_that_takes_too_long_is_asked_in_pieces(grid: GeoBox) -> None:
    every = items_of(grid, 300)
    with SlowApi(every, longest=timedelta(days=50), busy=3) as api:
        found = search_items(load_catalog("local").model_copy(update={"kind": "api"}), f"{api.address}/",
                             Source(collection="s2"), grid, YEAR, reading=QUICK)  # fmt: skip
        assert [item.id for item in found.items] == [item["id"] for item in every]
        assert api.searches.count(503) == 3
        assert api.searches.count(504) == 7, "a year, its halves and its quarters; an answer too slow is not repeated"
        assert api.searches.count(200) == 8


def test_an_unreachable_catalog_gives_way_to_the_next(
    recipe_facts: dict[str, Any], web: FileServer, toy_catalog: Path
) -> None:
    web.faults = Faults(paths={"catalog.json": "503"}, among=(".json",))
    facts = {
        **recipe_facts,
        "href": f"{web.address}/catalog.json",
        "read": {"retries": 1, "backoff": 0.001},
        "fallback": [{"catalog": "local", "href": str(toy_catalog)}],
    }
    plan = plan_build(parse_recipe(facts))
    assert len(plan.layer("sentinel2").scenes) == 9
    with pytest.raises(UnreachableError, match=r"cannot be read .*Check the address"):
        plan_build(parse_recipe({**facts, "fallback": []}))


def test_a_connection_that_is_lost_is_made_again_and_then_told(grid: GeoBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection has no status: it is tried again, and what is said is the network's own reason."""
    tried: list[str] = []
    send = requests.Session.send

    def count(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        tried.append(str(request.url))
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", count)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: nobody listens there
    reading = ReadSection(retries=2, backoff=0.001, timeout=2)
    with pytest.raises(UnreachableError, match=r"cannot be read \(Connection refused\)"):
        search_items(
            load_catalog("local"), f"http://127.0.0.1:{port}/catalog.json", Source(collection="s2"), grid, YEAR,
            reading=reading,
        )  # fmt: skip
    assert len(tried) == 3
