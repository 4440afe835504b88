"""A cube and a plan or a recipe in, every shard that a build would do and why out, before anything is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mdico_cube.cube.address import is_remote
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.items import read_items
from mdico_cube.cube.job import Key, job_parts, unfinished
from mdico_cube.cube.ledger import FAILED, GAPS, MISSING, Entry, Ledger, Origin
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.cube.update import cover
from mdico_cube.errors import MdicoError, some
from mdico_cube.recipe import Recipe, parse_recipe


@dataclass(frozen=True, slots=True)
class Due:
    """One shard that a build would do."""

    modality: str
    row: int
    column: int
    kind: str
    """missing, failed, gaps or stale."""
    why: str
    """What is different, in one line."""


def due_shards(path: Location, plan: BuildPlan) -> list[Due]:
    """Every shard that is to be built, and why. A modality that the cube lacks counts as missing."""
    reader = open_reader(path)
    moved = reader.geobox != plan.geobox
    found = []
    for key in unfinished(path, plan, known=() if moved else tuple(reader.layers)):
        origin, items = job_parts(plan, key)
        if moved or key.modality not in reader.layers:
            entry = Entry(MISSING)
        else:
            entry = Ledger(path, key.modality).read(key.row, key.column)
        one = _due(key, entry, origin, items)
        found.append(replace(one, why="the cube stands on another area; --update lets it grow") if moved else one)
    return found


def stale_shards(path: Location, recipe: Recipe | None = None) -> list[Due]:
    """Shards that stand, but that a build of a recipe would make anew from the items the cube keeps, and why.

    Args:
        path: the cube.
        recipe: default = the one that is recorded in the cube. No catalog is searched.

    Raises:
        MdicoError: there is no cube, or the recipe asks for what the cube has no items of.
    """
    reader = open_reader(path)
    recorded = json.loads(str(reader.attrs["mdico_recipe"]))
    recipe = recipe or parse_recipe({**recorded, "output": "."}, name=f"the recipe in {reader.path}")
    same_area = recipe.area.model_dump(mode="json") == recorded.get("area")
    geobox = cover(reader.geobox, grid_for(recipe.area), reader.shard) if same_area else None
    try:
        plan = plan_build(recipe, read_items(reader.path), geobox=geobox)
    except MdicoError as error:
        if recipe.href is None or is_remote(recipe.href) or Path(recipe.href).exists():
            raise
        raise MdicoError(
            f"{error} The cube was built from {recipe.href}, which is not there any more: where it was moved, name a "
            "recipe that says so by --recipe."
        ) from error
    return [one for one in due_shards(reader.path, plan) if one.kind == "stale"]


def _due(key: Key, entry: Entry, origin: Origin, items: Sequence[str]) -> Due:
    place = (key.modality, key.row, key.column)
    if entry.state == MISSING:
        return Due(*place, "missing", "not built yet")
    if entry.state == FAILED:
        return Due(*place, "failed", entry.error)
    if entry.state == GAPS and entry.digest == origin.digest:
        return Due(*place, "gaps", f"{some(len(entry.failed_reads), 'read')} failed for good")
    return Due(*place, "stale", why_stale(entry, origin, items))


def why_stale(entry: Entry, origin: Origin, items: Sequence[str]) -> str:
    """What of a shard's origin is different now."""
    reasons = [
        f"{name} was {entry.settings.get(name, 'not set')}, is {origin.settings.get(name, 'not set')}"
        for name in sorted({*entry.settings, *origin.settings})
        if entry.settings.get(name) != origin.settings.get(name)
    ]
    if entry.grid != origin.grid:
        reasons.append("its part of the grid is another")
    new = [step for step in origin.steps if step not in entry.steps]
    gone = [step for step in entry.steps if step not in origin.steps]
    changed = [step for step in origin.steps if step in entry.steps and entry.steps[step] != origin.steps[step]]
    reasons += [f"new steps {', '.join(new)}"] if new else []
    reasons += [f"steps {', '.join(gone)} are gone"] if gone else []
    if changed:
        more, fewer = sorted({*items} - {*entry.items}), sorted({*entry.items} - {*items})
        said = [f"{sign}{len(ids)} ({ids[0]} ...)" for sign, ids in (("+", more), ("-", fewer)) if ids]
        steps = ", ".join(step for step in changed if step)  # what has no time is one step without a name
        reasons.append(f"scenes{' of ' if steps else ''}{steps}: {' '.join(said) or 'other offsets or addresses'}")
    return "; ".join(reasons) or "made by another version"


def counted(due: Sequence[Due]) -> dict[str, dict[str, int]]:
    """Modality -> why -> shards."""
    found: dict[str, Counter[str]] = {}
    for one in due:
        kind = "with gaps" if one.kind == "gaps" else one.kind
        found.setdefault(one.modality, Counter())[f"{kind}: {one.why}"] += 1
    return {name: dict(count.most_common()) for name, count in found.items()}
