"""The page of the Python interface in, the same with every public name of the package out; mkdocs reads this file."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import mdico_cube as mdico
from mdico_cube import _HOMES

MARK = "<!-- the public names stand here: docs/api_pages.py writes them when the site is built -->"
ROOMS = {
    "journey": "Stages",
    "recipe": "Recipes",
    "cube": "Cubes and catalogs",
    "accessor": "`cube.mdico`",
    "patches": "Samples",
    "colearn": "Models",
    "maps": "Maps and pictures",
    "explorer": "The explorer",
    "benchmarks": "Comparisons",
    "demo": "The simulated region",
    "doctor": "This machine",
    "errors": "Faults",
}
"""Room of the package -> its heading, in the order of the page."""
CLASSES = ("mdico_cube.accessor.CubeAccessor",)
"""Documented though not handed out by name."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the public names where the page wants them."""
    return markdown.replace(MARK, reference()) if page.file.src_uri == "api.md" else markdown


def reference() -> str:
    """Markdown that mkdocstrings turns into the reference."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name in mdico.__all__:
        if name in _HOMES:
            rooms[_HOMES[name].split(".")[1]].append(f"{_HOMES[name]}.{name}")
    for path in CLASSES:
        rooms[path.split(".")[1]].append(path)
    lines = []
    for room, title in ROOMS.items():
        lines += ["", f"## {title}", "", *(f"::: {path}\n" for path in rooms.pop(room, ()))]
    assert not rooms, f"docs/api_pages.py: no heading for {', '.join(rooms)}"
    return "\n".join(lines)
