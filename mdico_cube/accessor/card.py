"""A cube and its sensors in, the card that a notebook shows of it out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.image import imsave

from mdico_cube.accessor.view import View, metres
from mdico_cube.maps.charts import step_names
from mdico_cube.maps.images import Image, QuickLook
from mdico_cube.markup import Card, Table

MOST = 2048 * 2048
"""Pixels up to which a card looks at the cube itself; of a larger one it tells only what stands in its metadata."""
_SMALL = 220  # pixels a side of the pictures


def cube_text(tree: xr.DataTree, views: Mapping[str, View]) -> str:
    """What a terminal shows of it: where and when, the sensors with bands and units, the classes; no pixel is read."""
    facts = [
        *_facts(tree.root, views),
        *((f"{row[0]}:", f"{row[2]} ({row[3]}), steps: {row[4]}") for row in map(_row, views.values())),
    ]
    classes = ", ".join(str(each["name"]) for each in _legend(tree.root))
    lines = [f"{name:<6} {text}" for name, text in facts] + ([f"classes: {classes}"] if classes else [])
    return "\n".join([_kind(tree), *(f"    {line}" for line in lines)])


def _kind(tree: xr.DataTree) -> str:
    return "mdico cube" if tree is tree.root else "group of an mdico cube"


def cube_card(tree: xr.DataTree, views: Mapping[str, View]) -> Card:
    """Where and when, the sensors with bands and units, the classes; of a small cube also pictures and a calendar."""
    root = tree.root
    height, width = root.sizes.get("y", 0), root.sizes.get("x", 0)
    small = height * width <= MOST
    looks = {name: view.looked_at() for name, view in views.items() if view.on_grid} if small else {}
    steps = sorted({step for name in looks for step in looks[name].steps if step})
    return Card(
        title=str(root.encoding.get("source", tree.name or "cube")).rstrip("/").rsplit("/", 1)[-1],
        kind=_kind(tree),
        facts=list(_facts(root, views)),
        tables=[Table(("sensor", "variable", "bands", "unit", "steps"), [_row(view) for view in views.values()])],
        legend=[(str(each["name"]), str(each["color"])) for each in _legend(root)],
        pictures=[(look.title.replace("\n", ", "), _address(look.image)) for look in looks.values()],
        steps=step_names(tuple(steps)) if steps else (),
        calendar=[(views[name].title, _shares(look, steps)) for name, look in looks.items() if any(look.steps)],
        note="" if small else "A large cube: `.availability()` and `.quicklook()` look at its pixels.",
    )


def _facts(root: xr.DataTree, views: Mapping[str, View]) -> Iterator[tuple[str, str]]:
    height, width = root.sizes.get("y", 0), root.sizes.get("x", 0)
    on_grid = [view for view in views.values() if view.on_grid]
    if on_grid:
        size = metres(on_grid[0].array)
        yield "grid", f"{width} x {height} pixels{f' of {size:g} m' if size else ''}, {on_grid[0].crs}"
    days = [step for view in views.values() for step in view.steps if step]
    if days:
        yield "time", f"steps from {min(days)} to {max(days)}"
    source = root.encoding.get("source")
    if source:
        yield "where", str(source)


def _row(view: View) -> tuple[str, str, str, str, str]:
    steps = [step for step in view.steps if step]
    units = ", ".join(dict.fromkeys(view.modality.units))
    names = ", ".join(view.modality.band_names)
    return view.title, f"{view.modality.name}/{view.modality.variable}", names, units, str(len(steps) or "none")


def _legend(root: xr.DataTree) -> list[dict[str, Any]]:
    labels = root.children.get("labels")
    return list(labels.attrs.get("legend", ())) if labels is not None else []


def _shares(look: QuickLook, steps: list[str]) -> list[float | None]:
    known = dict(zip(look.steps, look.availability, strict=True))
    return [known.get(step) for step in steps]


def _address(image: Image) -> str:
    """The picture, thinned, as an address that holds it."""
    step = max(1, -(-max(image.shape[:2]) // _SMALL))
    buffer = BytesIO()
    imsave(buffer, np.rint(255 * image[::step, ::step]).astype(np.uint8), format="png")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
