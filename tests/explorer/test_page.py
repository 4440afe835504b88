"""The explorer's page in a real browser: it loads clean, a click tells a pixel, the swipe moves, keys and phones do."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import rasterio

from mdico_cube.maps.write import open_map

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`")
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    """The page, loaded; whatever it complained about fails the test at its end."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("request", lambda r: None if r.url.startswith((address, "blob:", "data:")) else complaints.append(r.url))
    page.goto(f"{address}/")
    page.wait_for_selector("body[data-ready=yes]")
    settle(page)
    yield page
    page.close()
    assert complaints == []


def settle(page: playwright.Page) -> None:
    """Wait until no tile is under way."""
    page.wait_for_function("() => Object.values(state.sides).every((side) => !side.tiles || !side.tiles.isLoading())")
    page.wait_for_load_state("networkidle")


def seen(page: playwright.Page) -> np.ndarray:
    """(h, w, 3) of the map as it is drawn, without its notes and handles."""
    hide = "(how) => document.querySelectorAll('.note, #swipe, #where').forEach((e) => { e.style.visibility = how; })"
    page.evaluate(hide, "hidden")
    picture = matplotlib.image.imread(io.BytesIO(page.locator("#map").screenshot()), format="png")[..., :3]
    page.evaluate(hide, "")
    return picture


def click(page: playwright.Page, row: float, column: float) -> None:
    """Click into the middle of a pixel of the cube."""
    x, y = page.evaluate(
        "(at) => { const point = state.map.latLngToContainerPoint(at); return [point.x, point.y]; }",
        [row + 0.5, column + 0.5],
    )
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_selector("#panel .actions")


def test_it_opens_with_one_map_left_and_the_other_right(page: playwright.Page) -> None:
    assert page.locator("#left select.layer").input_value() == "map0"
    assert page.locator("#right select.layer").input_value() == "map1"
    assert page.locator(".leaflet-tile-loaded").count() >= 2
    names = page.locator("#note-left .classes span").all_inner_texts()
    assert names == ["wheat", "maize & beet", "forest"]


def test_a_click_tells_every_series_and_probability(page: playwright.Page, maps: list[Path]) -> None:
    click(page, 20, 31)
    heads = page.locator("#panel h3").all_inner_texts()
    stored = [open_map(path).isel(y=20, x=31) for path in maps]
    for head, told in zip(heads, stored, strict=False):
        name = next(e["name"] for e in told.attrs["legend"] if e["value"] == int(told["class"]))
        assert f": {name} {int(told.confidence)} %" in head
    assert [head.split()[0] for head in heads[2:]] == ["Sentinel-1", "Sentinel-2", "Terrain"]
    assert page.locator("#panel .uplot canvas").count() == 2
    inks = page.evaluate(
        "() => [...document.querySelectorAll('#panel canvas')].map((c) => new Set(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data).size)"
    )
    assert min(inks) > 20, "lines were drawn"
    assert page.locator("#panel .percent").all_inner_texts()[:3] == [
        f"{share} %" for share in stored[0].probabilities.values.tolist()
    ]


def test_the_swipe_moves_the_border_between_the_sides(page: playwright.Page) -> None:
    handle, box = page.locator("#swipe"), page.locator("#map").bounding_box()
    middle = box["y"] + box["height"] / 2
    pictures = []
    for share in (0.95, 0.05):
        start = handle.bounding_box()
        page.mouse.move(start["x"] + start["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], middle, steps=5)
        page.mouse.up()
        assert abs(int(handle.get_attribute("aria-valuenow")) - 100 * share) <= 1
        pictures.append(seen(page))
    left, right = pictures
    _, width, _ = left.shape
    inner = slice(int(0.1 * width), int(0.9 * width))
    assert (left[:, inner] != right[:, inner]).any(axis=-1).mean() > 0.1, "the whole map shows the other side"
    page.select_option("#right select.layer", "map0")
    settle(page)
    same = seen(page)
    assert np.array_equal(same[:, inner], left[:, inner]), "the same layer on both sides: no border, no shift"


def test_everything_goes_by_keyboard(page: playwright.Page) -> None:
    page.locator("#swipe").focus()
    for key, value in (("ArrowLeft", "48"), ("End", "100"), ("PageDown", "90"), ("Home", "0")):
        page.keyboard.press(key)
        assert page.locator("#swipe").get_attribute("aria-valuenow") == value
    page.locator("#map").focus()
    zoom = page.evaluate("() => state.map.getZoom()")
    page.keyboard.press("+")
    assert page.evaluate("() => state.map.getZoom()") > zoom
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel .uplot")
    assert "row 22, column 26" in page.locator("#panel .facts").first.inner_text()
    page.locator("#left select.layer").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#left select.layer").input_value() == "map0-confidence"
    day = page.locator("#day").inner_text()
    page.locator("#time").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#day").inner_text() < day


def test_steps_and_bands_change_the_picture(page: playwright.Page) -> None:
    page.select_option("#left select.layer", "sentinel2")
    page.select_option("#right select.layer", "sentinel2")
    settle(page)
    pictures = [seen(page)]
    page.click("#after")
    settle(page)
    pictures.append(seen(page))
    for name in ("left", "right"):
        page.select_option(f"#{name} select.look", "own")
        page.locator(f"#{name} select.band").first.select_option("B08")
    settle(page)
    pictures.append(seen(page)[: len(pictures[0])])
    assert page.evaluate("() => lookOf(state.sides.left)") == "rgb:B08,B03,B02"
    pictures = [picture[: len(pictures[-1])] for picture in pictures]
    assert all((one != other).any(axis=-1).mean() > 0.1 for one, other in pairwise(pictures))
    page.select_option("#left select.look", "difference:B08,B04")
    settle(page)
    assert "0.9" in page.locator("#note-left .ends").inner_text()


def test_a_phone_sees_everything_without_scrolling_sideways(page: playwright.Page) -> None:
    page.set_viewport_size({"width": 360, "height": 720})
    page.wait_for_function("() => state.map.getSize().x === 360")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    stage, panel = (page.locator(name).bounding_box() for name in ("#stage", "#panel"))
    assert stage["height"] > 250
    assert panel["y"] >= stage["y"] + stage["height"] - 1
    assert page.locator("#key").inner_text().split("\n") == ["wheat", "maize & beet", "forest"], "told once"
    page.select_option("#left select.layer", "sentinel2")
    page.select_option("#right select.layer", "sentinel1")
    assert not page.locator("#key").is_visible()
    click(page, 20, 18)
    assert page.locator("#panel .uplot").first.bounding_box()["width"] <= 360


@pytest.mark.parametrize(
    ("every", "label"), [(86400, "12 Mar"), (5 * 86400, "14 Mar"), (31 * 86400, "May"), (6 * 3600, "06:00")]
)
def test_the_days_of_a_series_read_alike_everywhere(page: playwright.Page, every: int, label: str) -> None:
    start = 1_615_248_000  # 2021-03-09
    series = {"times": [start + k * every for k in range(6)], "bands": [{"name": "vv", "values": [1, 2, 3, 4, 5, 6]}]}
    drawn = page.evaluate(
        "(series) => { const told = []; const old = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...at) { told.push(text); };"
        "const made = chart(document.body.appendChild(document.createElement('div')), series);"
        "return new Promise((done) => setTimeout(() => { CanvasRenderingContext2D.prototype.fillText = old; "
        "made.destroy(); done(told); }, 200)); }",
        series,
    )
    assert label in drawn
    assert not [text for text in drawn if "/" in text or "am" in text], "no month/day, no am and pm"


def test_what_is_downloaded_is_the_view(page: playwright.Page, maps: list[Path], tmp_path: Path) -> None:
    click(page, 20, 31)
    with page.expect_download() as found:
        page.get_by_text("This pixel as CSV").click()
    found.value.save_as(tmp_path / "series.csv")
    assert (tmp_path / "series.csv").read_text().startswith("modality,time,band,value,unit")
    with page.expect_download() as found:
        page.get_by_text("View as GeoTIFF (left)").click()
    found.value.save_as(tmp_path / "map0.tif")
    with rasterio.open(tmp_path / "map0.tif") as file:
        assert file.shape == open_map(maps[0])["class"].shape
