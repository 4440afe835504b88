from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.evaluate import evaluate
from mdico_cube.maps.gallery import write_poster
from mdico_cube.maps.report import verdict, write_report
from mdico_cube.maps.scores import Gain, Spread
from mdico_cube.recipe import parse_recipe


class Page(HTMLParser):
    """Collects what a browser would load, what it shows in place of pictures, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.sections: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.loads += [facts[name] for name in ("src", "href", "srcset", "data") if name in facts]
        if tag == "img":
            self.alts.append(facts.get("alt", ""))
        if tag == "section":
            self.sections.append(facts["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def scored(mapped):
    folder = mapped.out / "models" / "mdico" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,train_loss,val_loss,val_f1_sentinel1\n0,2.5,2.0,0.1\n1,2.0,1.5,0.2\n")
    evaluate(mapped.out)
    return mapped


@pytest.fixture
def recipe():
    return parse_recipe(
        {
            "name": "small",
            "output": "out",
            "area": {"bbox": [3, 50, 3.1, 50.1]},
            "period": {"start": "2021-04-01", "end": "2021-07-31"},
            "catalog": "local",
            "modalities": {"sentinel1": {}, "sentinel2": {}, "dem": {}},
            "labels": {"path": "x.tif", "classes": [{"name": item} for item in ("wheat", "maize & beet", "forest")]},
            "colearn": {"modalities": ["sentinel1", "sentinel2"]},
        }
    )


def test_the_report_is_one_file_that_loads_nothing(scored, recipe):
    path = write_report(scored.out, recipe, {"build": 12.3})
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert page.loads
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in page.loads)
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|@import|<script|<link|url\(", without_pictures)


def test_every_section_is_there_and_every_picture_has_words(scored, recipe):
    page = Page(write_report(scored.out, recipe).read_text())
    assert page.sections == [
        "scores", "sensors", "availability", "labels", "maps", "confusion", "classes", "training", "sources",
        "provenance",
    ]  # fmt: skip
    assert len(page.alts) == 9
    assert all(len(alt) > 10 for alt in page.alts)


def test_a_report_of_one_method_speaks_of_no_other(scored, recipe):
    assert "The right panel compares the two" in write_report(scored.out, recipe).read_text()
    for path in (scored.out / "maps").glob("mdico-*.zarr"):
        shutil.rmtree(path)
    evaluate(scored.out, overwrite=True)
    text = write_report(scored.out, recipe, overwrite=True).read_text()
    assert "Each map was made with one sensor alone." in text
    assert "compares the two" not in text


def test_the_report_shows_offsets_doubts_and_what_was_left_out(scored, recipe, monkeypatch):
    cube = scored.out / "cube.zarr"
    doubt = "-0.1 (declared by the item) - darker than any ground: was the offset subtracted twice?"
    entry = Entry(
        DONE,
        items=("a", "b", "<c>"),
        offsets={"a": "-0.1 (declared by the item)", "b": "+0 (declared by the item)", "<c>": doubt},
        floors={"a": 0.012, "b": 0.02, "<c>": -0.06},
    )
    Ledger(cube, "sentinel2", "r+").record(0, 0, entry)
    left_out = {"old": "replaced by a: processing baseline 05.00 after 02.14"}
    monkeypatch.setattr("mdico_cube.cube.inspect.uses", lambda cube: {"sentinel2": left_out})
    text = write_report(scored.out, recipe).read_text()
    assert "-0.1 (declared by the item): 2 items; +0 (declared by the item): 1 item" in text
    assert "1 item in doubt (darkest ground of 3 items: reflectance -0.060 to 0.020)" in text
    assert "&lt;c&gt;: darker than any ground: was the offset subtracted twice?" in text
    assert "processing baseline 05.00 after 02.14: 1 item" in text
    assert "not checked" in text, "radar has no offset"
    shown = CliRunner().invoke(app, ["inspect", str(cube)]).output
    assert "sentinel2: offset check: 1 item in doubt (darkest ground of 3 items" in shown
    status = next(each for each in inspect_cube(cube) if each.modality == "sentinel2")
    assert replace(status, doubts={}).watch().startswith("looks right (darkest ground of 3 items")
    assert replace(status, floors={}).watch() == ""


def test_the_report_says_who_gained_and_by_how_much(scored, recipe):
    text = write_report(scored.out, recipe, {"build": 12.3}).read_text()
    for gain in evaluate(scored.out, overwrite=True).gains:
        assert verdict(gain).sentence in text
    assert "build 12 s" in text
    assert "maize &amp; beet" in text
    assert "maize & beet" not in text


@pytest.mark.parametrize(
    ("spread", "kind", "words"),
    [
        (Spread(0.03, 0.01, 5), "gain", "gained 0.030 in macro F1"),
        (Spread(-0.03, 0.01, 5), "loss", "lost 0.030 in macro F1"),
        (Spread(0.01, 0.02, 5), "even", "gained 0.010 in macro F1 against independent training (mean of 5 seeds"),
        (Spread(0.0001, 0.02, 5), "even", "neither gained nor lost"),
        (Spread(0.03, None, 1), "even", "One seed only"),
        (Spread(-0.03, None, 1), "even", "lost 0.030 in macro F1"),
    ],
)
def test_verdicts_follow_the_figures(spread, kind, words):
    got = verdict(Gain("mdico", "sentinel1", "Sentinel-1", spread, spread, 3))
    assert got.kind == kind
    assert words in got.sentence
    assert got.sentence.startswith("With Sentinel-1 alone, MDiCo")


def test_an_existing_report_is_refused_or_replaced(scored, recipe):
    write_report(scored.out, recipe)
    with pytest.raises(MdicoError, match=r"exists already.*--overwrite"):
        write_report(scored.out, recipe)
    write_report(scored.out, recipe, overwrite=True)


def test_a_report_without_scores_is_one_sentence(run, recipe):
    with pytest.raises(MdicoError, match="mdico evaluate first"):
        write_report(run.out, recipe)
    assert not (run.out / "report.html").exists()


def test_the_poster_is_a_picture(scored):
    path = write_poster(scored.out, scored.out / "poster.png")
    assert path.read_bytes().startswith(b"\x89PNG")
