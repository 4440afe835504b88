"""A recipe and its bundles in, maps, scores and a report out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mdico_cube import __version__
from mdico_cube.colearn.bundle import CONFIG, add_scores
from mdico_cube.cube.execute import cluster_for
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.journey.places import Places
from mdico_cube.journey.timings import read_timings
from mdico_cube.journey.wanted import ready_maps, wanted_maps
from mdico_cube.maps.cog import write_cog
from mdico_cube.maps.estimate import MapCost, map_cost
from mdico_cube.maps.evaluate import AnyScores, read_scores
from mdico_cube.maps.evaluate import evaluate as evaluate_maps
from mdico_cube.maps.item import write_collection, write_item
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.polygons import VECTORS, write_polygons
from mdico_cube.maps.precision import record_int8, record_low_loss
from mdico_cube.maps.report import write_report
from mdico_cube.maps.scores import MapScores
from mdico_cube.maps.task_scores import MapFigures
from mdico_cube.maps.write import is_stale, write_map
from mdico_cube.patches.divide import stored_origin
from mdico_cube.patches.extract import check_origin
from mdico_cube.progress import say
from mdico_cube.recipe import TOGETHER, MapSection, Recipe
from mdico_cube.recipe.load import parse_section


def predict(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    **maps: Any,
) -> list[Path]:
    """Map the whole region with one sensor at a time: Zarr, Cloud-Optimized GeoTIFF and STAC item.

    With the modality "auto" each pixel takes the best sensor that was observed there, with "fused" all that were; such
    a map tells which in its layer `sensor`.

    Args:
        recipe: of the run.
        overwrite: replace maps that are there.
        resume: go on with them.
        workers: shards made at the same time, in place of the recipe's cluster section.
        scheduler: address of a Dask scheduler that runs, in place of the recipe's cluster section.
        maps: keys of the recipe's maps section that take the place of what it says.

    Returns:
        The maps (Zarr); beside each stand the GeoTIFF and the STAC item, with the suffixes .tif and .json.

    Raises:
        MdicoError: no bundle, one that does not fit the cube, or existing maps without overwrite or resume.
    """
    recipe = with_maps(recipe, maps)
    cluster = cluster_for(recipe.cluster, workers, scheduler)
    places, done = Places.of(recipe), []
    wanted = ready_maps(recipe)
    for one in wanted:  # what one of the maps cannot serve is refused before the first is made
        planned = plan_map(places.cube, one.bundle, **recipe.maps.options)
        if recipe.maps.polygons is not None and planned.task != "classes":
            raise MdicoError(f"maps.polygons: are of classes, and this is a map of {planned.task}. Leave polygons out.")
    for one in wanted:
        bundle, target = one.bundle, one.target
        judged = places.samples.exists() and not recipe.maps.bundles  # windows of other ground say nothing of a bundle
        if judged and recipe.maps.precision in ("bf16", "fp16") and isinstance(bundle, Path):
            record_low_loss(bundle, places.samples, places.cube, recipe.maps.precision)
        if judged and recipe.maps.precision == "int8":
            for folder in one.folders:
                record_int8(folder, places.samples, places.cube)
        options = recipe.maps.options
        stale = resume and is_stale(places.cube, bundle, target, **options)
        if stale:
            say(f"predict: {target.name} was made from another model or with other options, so it is made again")
        stood = _digests(target) if resume and not (overwrite or stale) else None
        write_map(places.cube, bundle, target, overwrite or stale, resume, cluster=cluster, **options)
        if stood is not None and stood.any(axis=-1).all() and np.array_equal(stood, _digests(target)):
            say(f"predict: {target.name} stands, skipped")
        else:
            for kind in VECTORS:  # of an earlier map
                target.with_suffix(kind).unlink(missing_ok=True)
        write_cog(target, target.with_suffix(".tif"), f"{recipe.name}: {one.title}")
        if recipe.maps.polygons is not None:
            write_polygons(target, target.with_suffix(f".{recipe.maps.polygons}"))
        write_item(target, places.cube, bundle)
        done.append(target)
    write_collection(recipe.output, recipe.name)
    return done


def _digests(target: Path) -> npt.NDArray[np.uint8]:
    """What every shard of a map was made from (rows, columns, 64); zeros where none stands."""
    return Ledger(target, LAYER).digests() if target.exists() else np.zeros((1, 1, 1), np.uint8)


def foresee_maps(recipe: Recipe, workers: int | None = None, **maps: Any) -> dict[str, MapCost]:
    """What the maps of a recipe will cost: pixels, shards, memory and time, from mapping a corner; nothing is written.

    Args:
        recipe: of the run.
        workers: shards made at the same time, in place of the recipe's cluster section.
        maps: keys of the recipe's maps section that take the place of what it says.

    Returns:
        Name of the map -> cost.

    Raises:
        MdicoError: no bundle, or one that does not fit the cube.
    """
    recipe = with_maps(recipe, maps)
    places, cluster, found = Places.of(recipe), cluster_for(recipe.cluster, workers), {}
    for one in ready_maps(recipe):
        planned = plan_map(places.cube, one.bundle, **recipe.maps.options)
        found[one.target.stem] = map_cost(planned, one.target, cluster)
    return found


def quantize(recipe: Recipe, force: bool = False) -> dict[str, float]:
    """Calibrate every bundle that maps for 8-bit integers.

    Args:
        recipe: of the run.
        force: keep a calibration that changes more than half a percent of the classes, and calibrate anew.

    Returns:
        Bundle -> share of the validation pixels that get another class.

    Raises:
        MdicoError: no model or no samples, a model that has no 8-bit form, or too many other classes.
    """
    places, found = Places.of(recipe), {}
    for one in ready_maps(recipe):
        if one.modality == "fused":
            continue
        for folder in one.folders:
            found[str(folder)] = record_int8(folder, places.samples, places.cube, force).changed
    return found


def with_maps(recipe: Recipe, maps: dict[str, Any]) -> Recipe:
    """The recipe with other keys in its maps section, checked as a whole.

    Raises:
        MdicoError: a key or a value that the section does not know.
    """
    if not maps:
        return recipe
    section = parse_section(MapSection, {**recipe.maps.model_dump(), **maps}, "maps")
    known = tuple(recipe.modalities) if recipe.learning is None else recipe.learning.modalities
    unknown = [name for name in section.alone if name not in known]
    if unknown:
        names = ", ".join((*known, *TOGETHER))
        raise MdicoError(f"maps.modalities: no model of {', '.join(unknown)} was trained. Use some of: {names}.")
    return recipe.model_copy(update={"maps": section})


def evaluate(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> AnyScores:
    """Score every map on the labelled pixels of the held-out blocks; write scores.json and each bundle's model card.

    With resume, scores that were made from these very maps, labels and blocks stand, and others are replaced.

    Raises:
        MdicoError: no maps, no held-out label, or scores exist already.
    """
    places = Places.of(recipe)
    wanted = [one.target for one in wanted_maps(recipe)]
    if all(path.exists() for path in wanted):
        check_origin(places.samples, open_reader(places.cube))
    made_from = _scores_from(places, wanted)
    if resume and not overwrite and _says(recipe.output / "scores.json", made_from):
        say("evaluate: scores stand, skipped")
        return read_scores(recipe.output)
    scores = evaluate_maps(recipe.output, overwrite or resume, wanted, made_from)
    for result in scores.maps:
        bundle = places.bundle(result.method, result.seed, result.modality)
        if (bundle / CONFIG).is_file():
            add_scores(bundle, _card_scores(result))
    return scores


def _card_scores(result: MapScores | MapFigures) -> dict[str, float]:
    if isinstance(result, MapFigures):  # a card has no place for what is not a number
        return {name: value for name, value in result.figures.items() if isfinite(value)} | {"pixels": result.pixels}
    names = ("f1_macro", "f1_weighted", "accuracy", "recall_macro", "kappa", "pixels")
    return {name: getattr(result, name) for name in names}


def report(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> Path:
    """Write report.html: one file with every picture inside.

    With resume, a report of these very scores and this recipe stands, and another is replaced.

    Raises:
        MdicoError: no scores, or the report exists already.
    """
    target, made_from = recipe.output / "report.html", _report_from(recipe)
    if resume and not overwrite and _says(target, made_from):
        say("report: stands, skipped")
        return target
    return write_report(recipe.output, recipe, read_timings(recipe), overwrite or resume, made_from)


def _scores_from(places: Places, maps: Sequence[Path]) -> str:
    """Digest of everything that decides the scores: maps, labels, held-out blocks; empty where a map cannot be read."""
    if not all(path.exists() for path in maps):
        return ""
    try:
        digests = [[path.relative_to(places.out).as_posix(), _digests(path).tobytes().hex()] for path in maps]
    except (OSError, KeyError, ValueError):
        return ""
    facts = [__version__, digests, open_reader(places.cube).label_facts, stored_origin(places.out / "split.zarr")]
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _report_from(recipe: Recipe) -> str:
    """Digest of everything that decides the report: scores and recipe; empty without scores."""
    scores = recipe.output / "scores.json"
    said = [__version__, recipe.model_dump_json(), scores.read_text(encoding="utf-8") if scores.is_file() else ""]
    return sha256(json.dumps(said).encode()).hexdigest() if said[-1] else ""


def _says(path: Path, made_from: str) -> bool:
    """True where a file carries this digest."""
    return bool(made_from) and path.is_file() and f'"{made_from}"' in path.read_text(encoding="utf-8")
