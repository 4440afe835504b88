"""A plan in, a cube on disk out: one job = one modality x one shard, each written whole and recorded last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from mdico_cube import __version__
from mdico_cube.cube.block import settle, write_shards
from mdico_cube.cube.change import writing
from mdico_cube.cube.claims import Claims
from mdico_cube.cube.clusters import check_scheduler
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.execute import threads_each
from mdico_cube.cube.interchange import referring
from mdico_cube.cube.items import save_items, without_queries
from mdico_cube.cube.job import Built, Job, Retry, unfinished
from mdico_cube.cube.jobs import ShardTask, run_jobs
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, DOUBT, FAILED, GAPS, MISSING, Entry, Ledger
from mdico_cube.cube.packing import packed_as, packer
from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import forget_readers, open_reader
from mdico_cube.cube.scenes import Notes
from mdico_cube.cube.store import create_cube, keep_recipe
from mdico_cube.cube.target import Location, Target, cube_location, exists, note_location, open_group
from mdico_cube.cube.update import recover, update_cube
from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ClusterSection, Recipe
from mdico_cube.sensors.offsets import judge_floors

T = TypeVar("T")


def build_cube(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    cluster: ClusterSection | None = None,
    plan: BuildPlan | None = None,
    retry: Sequence[Retry] = (),
    update: bool = False,
) -> Location:
    """Build the recipe's cube and return its path.

    Several builders may work on one cube at once: each takes shards that no other has in hand.

    Args:
        recipe: what to build.
        overwrite: replace a cube that stands there.
        resume: go on with it: only shards that are missing, failed or stale are built.
        cluster: where the shards are built; default = the recipe's cluster section.
        plan: a plan made before; default = plan_build(recipe).
        retry: of a cube that stands, build only the shards that failed, have gaps or are stale; implies resume.
        update: let a cube that stands grow to the plan's area, period and modalities; implies resume.

    Raises:
        MdicoError: bad input, an existing cube without overwrite or resume, another recipe's build at work on it, or
            shards that could not be read (the others are kept, and resume tries again).
    """
    path, cluster, resume = cube_location(recipe), cluster or recipe.cluster, resume or update or bool(retry)
    check_free(path, overwrite, resume)
    check_scheduler(cluster)
    plan = plan or plan_build(recipe)
    for name, steps in plan.gaps().items():
        say(f"{name}: no scene in {', '.join(steps)}: these steps stay missing")
    for layer in plan.every:
        layer.check()
    task = partial(ShardTask, run_job, path, threads=threads_each(cluster), durable=recipe.store.durable)
    referred = referring(path, recipe.output, [each.modality.name for each in plan.every], recipe.store.references)
    with Claims(WorkFolder(path), plan.identity) as claims, referred:
        with claims.holding("cube"):
            if not claims.others() and recover(path) and open_reader(path).geobox != plan.geobox:
                raise MdicoError(f"{path}: an update that was stopped has been finished. Run the same command again.")
            if update and exists(path) and not overwrite:
                _update(path, plan, recipe, claims)
            if exists(path) and not overwrite:
                _check_same(path, plan)
                _say_packing(path, recipe)
                keep_recipe(path, _recipe_text(recipe))
            else:
                _create(path, plan, recipe, overwrite, claims)
            with writing(recipe.output):
                note_location(recipe.output, path)
            with writing(path):
                save_items(plan.items_file(), recipe.output, path)
        due = unfinished(path, plan, retry)
        if not due:
            say("build: every shard stands, skipped")
        run_jobs(path, plan, due, task, cluster, claims, recipe.store.wave)
    forget_readers()
    return path


def _recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON for the cube: without places, and without queries and cluster options, which may be secret."""
    facts = recipe.model_dump(mode="json", exclude={"output": True, "cluster": True, "store": {"target"}})
    facts["modalities"] = {  # what is not said is the sensor's and the catalog file's to say
        name: section.model_dump(mode="json", exclude_unset=True) for name, section in recipe.modalities.items()
    }
    return json.dumps(without_queries(facts))


def check_free(path: Location, overwrite: bool, resume: bool) -> None:
    """Raise MdicoError where an output stands already and neither overwrite nor resume was asked for."""
    if not (overwrite or resume) and exists(path):
        raise MdicoError(f"{path}: exists already. Use --resume to go on with it or --overwrite to replace it.")


def _update(path: Location, plan: BuildPlan, recipe: Recipe, claims: Claims) -> None:
    """Let the cube grow where the plan has more than stands."""
    reader = open_reader(path)
    stands = {name: _outline(layer) for name, layer in reader.layers.items()}
    if reader.geobox == plan.geobox and stands == {layer.modality.name: _outline(layer.layer) for layer in plan.every}:
        return
    if claims.others():
        raise MdicoError(f"{path}: another build is at work on it, so it cannot grow now. Wait until it is done.")
    update_cube(path, plan, recipe.store.chunk, _facts(recipe), packer(recipe.store.codec, recipe.store.level))


def _facts(recipe: Recipe) -> dict[str, str]:
    return {"mdico_recipe": _recipe_text(recipe), "mdico_version": __version__}


def _create(path: Location, plan: BuildPlan, recipe: Recipe, overwrite: bool, claims: Claims) -> None:
    if claims.others() and exists(path):
        raise MdicoError(f"{path}: another build is at work on it, so it is not replaced. Wait until it is done.")
    create_cube(
        path,
        plan.geobox,
        [layer.layer for layer in plan.every],
        recipe.store.chunk,
        recipe.store.shard,
        _facts(recipe),
        ledger_shape=_shard_counts(plan),
        overwrite=overwrite,
        packing={layer.modality.name: [packer(recipe.store.codec, recipe.store.level)] for layer in plan.every},
        sharded=recipe.store.layout == "sharded",
    )


def _shard_counts(plan: BuildPlan) -> tuple[int, int]:
    return -(-plan.geobox.shape.y // plan.shard), -(-plan.geobox.shape.x // plan.shard)


def _check_same(path: Location, plan: BuildPlan) -> None:
    reader = open_reader(path)
    came = {layer.modality.name: _outline(layer.layer) for layer in plan.every}
    stands = {name: _outline(layer) for name, layer in reader.layers.items()}
    if reader.geobox != plan.geobox or reader.shard != plan.shard:
        raise MdicoError(
            f"{path}: stands on another grid than the recipe's area. Use --update to let it grow, or "
            "--overwrite to replace it."
        )
    if new := [name for name in came if name not in stands]:
        raise MdicoError(f"{path}: has no {', '.join(new)} yet. Use --update to add it, or --overwrite to replace all.")
    if came != stands:
        differing = [name for name in {**came, **stands} if came.get(name) != stands.get(name)]
        raise MdicoError(
            f"{path}: was built with other bands or steps of {', '.join(differing)}, or from a source with other "
            "cells. Use --update to add steps or modalities, or --overwrite to replace it."
        )


def _say_packing(path: Location, recipe: Recipe) -> None:
    """A cube that stands keeps its codec: pixels are the same, so no shard is built anew for it."""
    reader, wanted = open_reader(path), recipe.store.codec
    stands = {packed_as(reader.array(name)) for name, modality in reader.modalities.items() if not modality.coarse}
    if "codec" in recipe.store.model_fields_set and stands - {wanted}:
        say(f"build: the cube stands packed by {', '.join(sorted(stands))} and stays so; --overwrite packs by {wanted}")


def _outline(layer: Layer) -> tuple[object, ...]:
    """What of a layer cannot be changed by building it again."""
    return layer.modality.band_names, layer.steps, layer.stops, layer.latitudes, layer.longitudes


def run_job(
    path: Target, job: Job, threads: int, holds: Callable[[], bool] = lambda: True, durable: bool = False
) -> Built:
    """Compute one shard, write it whole, record it last.

    Time steps that stand already, from the same scenes under the same rules, are kept and not read again.

    Args:
        path: the cube.
        job: which shard.
        threads: files read at once.
        holds: asked just before writing; False where another builder took the shard over.
        durable: wait until the shard is on the disk before it is recorded.
    """
    start = time.monotonic()
    name = job.layer.modality.name
    ledger = Ledger(path, name, mode="r+")
    scenes = job.layer.scenes_of(job.block)
    ids = tuple(scene.item.id for scene in scenes)
    notes = Notes()
    stands = ledger.read(job.shard.row, job.shard.column)
    kept = job.kept(stands)
    try:
        stored = compute_block(job.layer.without(kept), job.block, threads, notes)
    except MdicoError as error:
        entry = Entry(FAILED, job.digest, ids, error=str(error), failed_reads=tuple(notes.failed))
        with writing(path):
            if not holds():
                return Built(lost=True)
            ledger.record(job.shard.row, job.shard.column, entry)
        return Built(str(error))
    if stands.state == GAPS and stands.digest == job.digest and len(stands.failed_reads) <= len(notes.failed):
        return Built(failed_reads=len(stands.failed_reads))  # what stands has no more gaps than this
    with writing(path):
        array: Any = open_group(path, "r+")[f"{name}/{job.layer.modality.variable}"]
        if kept:
            stored[kept] = array[..., job.shard.y, job.shard.x][kept]
            _keep_notes(notes, stands, ids)
        offsets, doubts = _offsets(job.layer, scenes, notes)
        offsets = {**{item: said for item, said in stands.offsets.items() if kept and item in ids}, **offsets}
        seen = job.layer.modality.storage.observed
        per_step = np.array([seen(step).all(axis=0).mean() for step in stored])  # by turns: small arrays are faster
        if not holds():
            return Built(lost=True)
        if stands.state != MISSING:
            ledger.forget(job.shard.row, job.shard.column)
        write_shards(array, job.shard.y, job.shard.x, stored if job.layer.modality.temporal else stored[0])
        if durable:
            settle(array, job.shard.y, job.shard.x)
        entry = Entry(
            GAPS if notes.failed else DONE,
            job.digest,
            ids,
            offsets=offsets,
            floors={item: round(floor, 4) for item, floor in notes.floors.items() if np.isfinite(floor)},
            failed_reads=tuple(notes.failed),
            stand_ins=notes.stand_ins,
            valid_fraction=float(per_step.mean()),
            step_fractions=dict(zip(job.layer.steps, per_step.round(4).tolist(), strict=True)),
            seconds=round(time.monotonic() - start, 3),
            bytes_written=stored.nbytes,
            version=__version__,
            settings=job.origin.settings,
            grid=job.origin.grid,
            steps=job.origin.steps,
        )
        ledger.record(job.shard.row, job.shard.column, entry)
    return Built(
        bytes_written=stored.nbytes, failed_reads=len(notes.failed), stand_ins=tuple(notes.stand_ins), notes=doubts
    )


def _keep_notes(notes: Notes, stands: Entry, ids: Sequence[str]) -> None:
    """Add what was noted of the time steps that are kept."""
    notes.floors = {**{item: floor for item, floor in stands.floors.items() if item in ids}, **notes.floors}
    notes.stand_ins = {**{item: name for item, name in stands.stand_ins.items() if item in ids}, **notes.stand_ins}


def _offsets(layer: LayerPlan, scenes: Sequence[Scene], notes: Notes) -> tuple[dict[str, str], tuple[str, ...]]:
    """Item -> offset, why, and what the offset sentinel has against it; and a note on what it doubts."""
    sentinel = layer.sensor.sentinel
    doubts = (
        judge_floors(notes.floors, {s.item.id: sentinel.era(s.item.properties) for s in scenes}) if sentinel else {}
    )
    told = [
        f"{layer.modality.name}: the offset of {len(doubts)} scenes looks wrong, such as {name}: {doubt}"
        for name, doubt in sorted(doubts.items())[:1]
    ]
    offsets = {name: f"{rule}{DOUBT + doubts[name] if name in doubts else ''}" for name, rule in notes.rules.items()}
    return offsets, tuple(told)
