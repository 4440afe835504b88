"""A card shows what it is given and lets nothing out of a text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.journey.demo import pipeline_folder
from mdico_cube.markup import Card, Table
from mdico_cube.recipe import load_recipe

TEXT = st.text(alphabet="<>&\"'/= ascriptonload:()#\n", max_size=30)


class Parsed(HTMLParser):
    """Names of tags and attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(f"{tag}.{name}" for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def card(text: str) -> Card:
    return Card(
        title=text,
        kind=text,
        facts=[(text, text)],
        tables=[Table((text,), [(text,)])],
        legend=[(text, text)],
        pictures=[(text, text)],
        steps=[text],
        calendar=[(text, [0.5, None])],
        note=text or "x",
    )


@given(TEXT)
def test_no_text_becomes_a_tag_or_an_attribute(text: str) -> None:
    assert Parsed(card(text).html()).names == Parsed(card("x").html()).names


def test_what_is_given_is_shown() -> None:
    parsed = Parsed(card("a < b & c").html())
    assert sum("a < b & c" in text for text in parsed.texts) >= 7
    assert "50" in parsed.texts


def test_a_recipe_shows_its_choices() -> None:
    html = load_recipe(pipeline_folder() / "demo.yml")._repr_html_()
    for text in (
        "demo",
        "bounds 709380, 5617480, 714500, 5622600",
        "12 steps",
        "independent, mdico",
        "winter wheat",
        "#e8c24a",
    ):
        assert text in html


def test_only_colours_and_pictures_pass() -> None:
    html = Card("t", "k", legend=[("good", "#12ab34"), ("bad", "red;background:url(//x)")]).html()
    assert "background:#12ab34" in html
    assert "background:#888888" in html
    assert "url(" not in html
    assert 'src=""' in Card("t", "k", pictures=[("p", "https://x/y.png")]).html()
    assert "https" not in Card("t", "k", pictures=[("p", "https://x/y.png")]).html()
