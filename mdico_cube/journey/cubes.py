"""A recipe in, its plan, its cube or its scenes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from mdico_cube.cube.build import build_cube, check_free
from mdico_cube.cube.estimate import estimate
from mdico_cube.cube.execute import cluster_for
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.items import ITEMS, Change, compare_items, read_items
from mdico_cube.cube.job import Retry
from mdico_cube.cube.lazy import lazy_scenes, lazy_weather
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.stale import counted, due_shards
from mdico_cube.cube.target import Location, cube_location, exists
from mdico_cube.cube.update import cover
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.errors import MdicoError
from mdico_cube.journey.checks import check_methods
from mdico_cube.journey.places import Places
from mdico_cube.patches.labels import check_labels, label_cube
from mdico_cube.progress import say
from mdico_cube.recipe import Recipe


def plan(recipe: Recipe, items: Path | str | None = None) -> BuildPlan:
    """Search the catalog and say what a build would do; no pixel is read.

    Args:
        recipe: what to build.
        items: saved items (items.parquet, or a cube that keeps them) to plan from; the catalog is then not asked.

    Raises:
        MdicoError: bad input; the text names it.
    """
    check_methods(recipe)
    return plan_build(recipe, None if items is None else read_items(items), geobox=_grid(recipe, update=False))


def foresee(recipe: Recipe, planned: BuildPlan, calibrate: bool = False) -> dict[str, Any]:
    """What a build will cost, and where a cube stands, which shards it would do and why; nothing is written.

    Args:
        recipe: the plan's recipe.
        planned: what `plan` gave.
        calibrate: read one time step of one shard per modality to foresee the time.

    Returns:
        Requests, tasks, memory, seconds and warnings; and `due`: modality -> why -> shards.

    Raises:
        MdicoError: the cube that stands cannot be read.
    """
    place = cube_location(recipe)
    due = counted(due_shards(place, planned)) if exists(place) else None
    return {**estimate(planned, recipe, calibrate), "due": due}


def refresh(recipe: Recipe) -> tuple[BuildPlan, list[Change]]:
    """Search again: the plan, and what is new, changed or gone since the items beside the cube were saved.

    Raises:
        MdicoError: bad input, or no saved items.
    """
    before = read_items(recipe.output / ITEMS)
    planned = plan(recipe)
    return planned, compare_items(before, planned.answers)


def _planned(recipe: Recipe, resume: bool, items: Path | str | None, again: bool, update: bool = False) -> BuildPlan:
    """The plan of a build: from given items, from those beside the cube where it goes on, else from a search."""
    check_methods(recipe)
    saved = recipe.output / ITEMS
    if items is not None:
        if again:
            raise MdicoError("--items takes saved items and --refresh searches for new ones: give one of them.")
        return plan(recipe, items)
    if again and saved.exists():
        planned, changes = refresh(recipe)
        for change in changes:
            say(f"{change.modality}: {change.item} is {change.kind}")
        return planned
    if resume and not again and saved.exists():
        return plan_build(recipe, read_items(saved), reuse=True, geobox=_grid(recipe, update))
    return plan_build(recipe, geobox=_grid(recipe, update) if resume else None)


def _grid(recipe: Recipe, update: bool) -> GeoBox | None:
    """The grid of the cube that stands, grown to the recipe's area when asked; None where the area is another."""
    place = cube_location(recipe)
    if not exists(place):
        return None
    reader = open_reader(place)
    asked = json.loads(str(reader.attrs.get("mdico_recipe", "{}"))).get("area")
    if not update and asked != recipe.area.model_dump(mode="json"):
        return None
    return cover(reader.geobox, grid_for(recipe.area), reader.shard)


def scenes(recipe: Recipe, modality: str, chunk: int = 512) -> xr.Dataset:
    """Every scene of one modality on the cube's grid, lazily: (time, y, x) per asset in the source's counts.

    One time step is one STAC item, named by the coordinate `item`; no offset is applied and no pixel is read yet. For
    looking around before a build. Weather comes as it stands in its first store: the cells around the area, by time,
    latitude and longitude in the source's units.

    Args:
        recipe: where, when and from which catalog.
        modality: one of the recipe's modalities.
        chunk: side of a Dask chunk in pixels.

    Raises:
        MdicoError: the recipe has no such modality, or nothing was found.
    """
    if modality not in recipe.modalities:
        raise MdicoError(f"the recipe has no modality {modality!r}: it has {', '.join(recipe.modalities)}.")
    planned = plan_build(recipe)
    layer = planned.layer(modality)
    if isinstance(layer, WeatherPlan):
        return lazy_weather(layer, planned.geobox)
    return lazy_scenes(layer, planned.geobox, chunk)


def build(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    items: Path | str | None = None,
    refresh: bool = False,
    retry: Sequence[Retry] = (),
    update: bool = False,
) -> Location:
    """Build the cube and put the labels on its grid; a recipe without labels builds a cube without.

    Going on with a cube takes the items that were saved beside it, where the recipe still asks for the same.

    Args:
        recipe: what to build.
        overwrite: replace a cube that stands there.
        resume: go on with it; finished shards are skipped.
        workers: shards built at once, in place of the recipe's cluster.workers.
        scheduler: address of a running Dask scheduler, in place of the recipe's cluster.
        items: build from exactly these saved items (items.parquet, or a cube that keeps them).
        refresh: go on, but search again and say what is new, changed or gone; only what it touches is built.
        retry: of a cube that stands, build only the shards that "failed", have "gaps" or are "stale".
        update: let the cube grow to the recipe's area, period and modalities; what stands is not read again.

    Raises:
        MdicoError: bad input, an existing cube without overwrite or resume, or shards that could not be read.
    """
    places = Places.of(recipe)
    resume = resume or refresh or update or bool(retry)
    check_free(places.cube, overwrite, resume)
    planned = _planned(recipe, resume and not overwrite, items, refresh, update)
    if recipe.labelling is not None:
        check_labels(recipe.labelling, planned.geobox)
    cluster = cluster_for(recipe.cluster, workers, scheduler)
    path = build_cube(recipe, overwrite, resume, cluster, planned, retry, update)
    if recipe.labelling is not None:
        label_cube(path, recipe.labelling)
    return path
