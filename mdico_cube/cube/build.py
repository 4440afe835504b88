"""A plan in, a cube on disk out: one job = one modality x one shard, each written whole and recorded last."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube import __version__
from mdico_cube.cube.change import writing
from mdico_cube.cube.composite import mosaic, reduce_step
from mdico_cube.cube.execute import crew_for, execute, threads_each
from mdico_cube.cube.grid import Shard
from mdico_cube.cube.items import save_items, without_queries
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, DOUBT, FAILED, GAPS, Entry, Ledger, Origin
from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene, plan_build
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.scenes import Notes, read_calibrated
from mdico_cube.cube.store import create_cube, keep_recipe
from mdico_cube.cube.target import Location, exists
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_job import run_weather
from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError
from mdico_cube.progress import meter, say
from mdico_cube.recipe import ClusterSection, Recipe
from mdico_cube.sensors.offsets import judge_floors
from mdico_cube.spec import Array, Bools


@dataclass(frozen=True)
class Job:
    """One modality of one shard."""

    layer: LayerPlan
    shard: Shard
    block: GeoBox
    origin: Origin

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides its pixels."""
        return self.origin.digest


@dataclass(frozen=True, slots=True)
class Key:
    """Which job: small enough to travel to a worker a million times."""

    modality: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a job."""

    error: str = ""
    """Why the shard could not be built."""
    bytes_written: int = 0
    failed_reads: int = 0
    """Files that could not be read for good; the shard was composed of the others."""
    stand_ins: tuple[str, ...] = ()
    """Items in whose place the same acquisition of another catalog was read."""
    notes: tuple[str, ...] = ()
    """What the person watching should know."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The one function of every build: a key in, its shard on disk. The plan is loaded once per worker process."""

    cube: Path
    plan: str
    """Name of the plan in the cube's work folder."""
    threads: int
    """Files read at once."""

    def __call__(self, key: Key) -> Built:
        """Build one shard, or one coarse modality."""
        plan = _plan(self.cube, self.plan)
        layer = plan.layer(key.modality)
        if isinstance(layer, WeatherPlan):
            error, size = run_weather(self.cube, layer, plan.geobox)
            return Built(error, size)
        return run_job(self.cube, _job(plan, layer, key), self.threads)


def build_cube(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    cluster: ClusterSection | None = None,
    plan: BuildPlan | None = None,
) -> Path:
    """Build the recipe's cube and return its path.

    Args:
        recipe: what to build.
        overwrite: replace a cube that stands there.
        resume: go on with it: only shards that are missing, failed or stale are built.
        cluster: where the shards are built; default = the recipe's cluster section.
        plan: a plan made before; default = plan_build(recipe).

    Raises:
        MdicoError: bad input, an existing cube without overwrite or resume, or shards that could not be read (the
            others are kept, and resume tries again).
    """
    path = recipe.output / "cube.zarr"
    check_free(path, overwrite, resume)
    plan = plan or plan_build(recipe)
    for name, steps in plan.gaps().items():
        say(f"{name}: no scene in {', '.join(steps)}: these steps stay missing")
    keys = list(_keys(plan))
    for layer in plan.every:
        layer.check()
    if path.exists() and not overwrite:
        _check_same(path, plan)
        keep_recipe(path, _recipe_text(recipe))
    else:
        _create(path, plan, recipe, overwrite)
    with writing(path):
        save_items(plan.items_file(), recipe.output, path)
    _run(path, plan, _unfinished(path, plan, keys), cluster or recipe.cluster)
    return path


def _recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON for the cube: without places, and without queries and cluster options, which may be secret."""
    return json.dumps(without_queries(recipe.model_dump(mode="json", exclude={"output", "cluster"})))


def _run(path: Path, plan: BuildPlan, keys: list[Key], cluster: ClusterSection) -> None:
    """Build the shards and raise MdicoError when some could not be."""
    if not keys:
        return
    work, name = WorkFolder(path), uuid4().hex
    failed: list[str] = []
    gaps: list[int] = []
    elsewhere: set[str] = set()
    with ExitStack() as stack:
        crew = stack.enter_context(crew_for(cluster))
        if crew.here:
            _PLANS[name] = plan
        else:
            with writing(path):
                work.write(f"plan/{name}", dump_plan(plan))
        stack.callback(_PLANS.pop, name, None)
        stack.callback(work.clear)
        gauge = stack.enter_context(meter("build", len(keys)))
        for _, built in execute(crew, ShardTask(path, name, threads_each(cluster)), keys):
            gauge.add(built.bytes_written, bool(built.error))
            failed += [built.error] if built.error else []
            gaps += [built.failed_reads] if built.failed_reads else []
            elsewhere.update(built.stand_ins)
            for note in built.notes:
                say(note)
    if elsewhere:
        say(f"{len(elsewhere)} scenes were read from another catalog: `mdico inspect` lists them.")
    if gaps:
        say(
            f"{len(gaps)} of {len(keys)} shards have gaps: {sum(gaps)} reads failed for good. `mdico inspect` lists "
            "them; --resume tries them again."
        )
    if failed:
        raise MdicoError(f"{len(failed)} of {len(keys)} shards could not be built, the others are kept. {failed[0]}")


_PLANS: dict[str, BuildPlan] = {}
"""Plans this process knows, by name."""


def _plan(cube: Path, name: str) -> BuildPlan:
    """A plan by name, read from the cube's work folder when this process meets it first."""
    if name not in _PLANS:
        text = WorkFolder(cube).read(f"plan/{name}")
        if text is None:
            raise MdicoError(f"{cube}: the build that this job belongs to has ended.")
        _PLANS[name] = load_plan(text)
    return _PLANS[name]


def check_free(path: Location, overwrite: bool, resume: bool) -> None:
    """Raise MdicoError where an output stands already and neither overwrite nor resume was asked for."""
    if not (overwrite or resume) and exists(path):
        raise MdicoError(f"{path}: exists already. Use --resume to go on with it or --overwrite to replace it.")


def _create(path: Path, plan: BuildPlan, recipe: Recipe, overwrite: bool) -> None:
    create_cube(
        path,
        plan.geobox,
        [layer.layer for layer in plan.every],
        recipe.store.chunk,
        recipe.store.shard,
        {"mdico_recipe": _recipe_text(recipe), "mdico_version": __version__},
        ledger_shape=_shard_counts(plan),
        overwrite=overwrite,
    )


def _shard_counts(plan: BuildPlan) -> tuple[int, int]:
    return -(-plan.geobox.shape.y // plan.shard), -(-plan.geobox.shape.x // plan.shard)


def _check_same(path: Path, plan: BuildPlan) -> None:
    reader = open_reader(path)
    came = {layer.modality.name: _outline(layer.layer) for layer in plan.every}
    stands = {name: _outline(layer) for name, layer in reader.layers.items()}
    if reader.geobox != plan.geobox or reader.shard != plan.shard:
        raise MdicoError(f"{path}: stands on another grid than the recipe's area. Use --overwrite to replace it.")
    if came != stands:
        differing = [name for name in {**came, **stands} if came.get(name) != stands.get(name)]
        raise MdicoError(
            f"{path}: was built with other bands or steps of {', '.join(differing)}, or from a source with other "
            "cells. Use --overwrite to replace it."
        )


def _outline(layer: Layer) -> tuple[object, ...]:
    """What of a layer cannot be changed by building it again."""
    return layer.modality.band_names, layer.steps, layer.stops, layer.latitudes, layer.longitudes


def _keys(plan: BuildPlan) -> Iterator[Key]:
    for weather in plan.weather:
        yield Key(weather.modality.name, 0, 0)
    for shard in plan.shards():
        for layer in plan.layers:
            yield Key(layer.modality.name, shard.row, shard.column)


def _digest(plan: BuildPlan, key: Key) -> str:
    """SHA-256 of everything that decides what a job writes."""
    layer = plan.layer(key.modality)
    return layer.origin.digest if isinstance(layer, WeatherPlan) else _job(plan, layer, key).digest


def _job(plan: BuildPlan, layer: LayerPlan, key: Key) -> Job:
    shard = plan.shard_at(key.row, key.column)
    block = plan.block(shard)
    return Job(layer, shard, block, layer.origin(block))


def _unfinished(path: Path, plan: BuildPlan, keys: list[Key]) -> list[Key]:
    """Jobs whose shard is missing, failed or stale."""
    standing = {layer.modality.name: Ledger(path, layer.modality.name).digests() for layer in plan.every}
    return [key for key in keys if standing[key.modality][key.row, key.column].tobytes() != _digest(plan, key).encode()]


def run_job(path: Path, job: Job, threads: int) -> Built:
    """Compute one shard, write it whole, record it last."""
    start = time.monotonic()
    name = job.layer.modality.name
    ledger = Ledger(path, name, mode="r+")
    scenes = job.layer.scenes_of(job.block)
    ids = tuple(scene.item.id for scene in scenes)
    notes = Notes()
    try:
        stored = compute_block(job.layer, job.block, threads, notes)
    except MdicoError as error:
        entry = Entry(FAILED, job.digest, ids, error=str(error), failed_reads=tuple(notes.failed))
        with writing(path):
            ledger.record(job.shard.row, job.shard.column, entry)
        return Built(str(error))
    stands = ledger.read(job.shard.row, job.shard.column)
    if stands.state == GAPS and stands.digest == job.digest and len(stands.failed_reads) <= len(notes.failed):
        return Built(failed_reads=len(stands.failed_reads))  # what stands has no more gaps than this
    offsets, doubts = _offsets(job.layer, scenes, notes)
    observed = job.layer.modality.storage.observed(stored)
    with writing(path):
        array = zarr.open_group(path, mode="r+", zarr_format=3)[f"{name}/{job.layer.modality.variable}"]
        assert isinstance(array, zarr.Array)
        ledger.forget(job.shard.row, job.shard.column)
        array[..., job.shard.y, job.shard.x] = stored if job.layer.modality.temporal else stored[0]
        entry = Entry(
            GAPS if notes.failed else DONE,
            job.digest,
            ids,
            offsets=offsets,
            floors={item: round(floor, 4) for item, floor in notes.floors.items() if np.isfinite(floor)},
            failed_reads=tuple(notes.failed),
            stand_ins=notes.stand_ins,
            valid_fraction=float(observed.all(axis=1).mean()),
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


def compute_block(layer: LayerPlan, block: GeoBox, threads: int = 1, notes: Notes | None = None) -> Array:
    """Stored values (T, C, h, w) of one modality on any block of the cube's grid.

    The values do not depend on how the grid is cut into blocks, whatever CRS the scenes come in.

    Args:
        layer: what to compute.
        block: where.
        threads: files read at once.
        notes: filled with what else is to be told: dark floors, failed reads.

    Raises:
        MdicoError: a file cannot be read and the recipe does not allow gaps.
    """
    sensor, storage, bands = layer.sensor, layer.modality.storage, layer.modality.band_names
    padded = block.pad(sensor.halo) if sensor.halo else block
    scenes = sorted(layer.scenes_of(padded), key=lambda scene: (scene.step, str(scene.overpass)))
    out = np.full((len(layer.steps), len(bands), *block.shape), storage.missing, dtype=storage.dtype)
    for step, group in groupby(scenes, key=lambda scene: scene.step):
        composite = _composite(layer, list(group), padded, threads, notes or Notes())
        if composite is None:
            continue
        if layer.reducer == "count":
            out[step] = np.where(composite[1], composite[0], storage.missing)
            continue
        stored = sensor.finish(*composite)
        if sensor.derive is not None:
            every = sensor.derive(stored[0], *_metres(block))
            stored = every[[sensor.modality.band_names.index(band) for band in bands]]
        out[step] = stored
    return out


def _composite(
    layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int, notes: Notes
) -> tuple[Array, Bools] | None:
    """Scenes of one step to one composite: calibrated per item, fused per overpass, reduced over overpasses.

    None where no scene could be read and the recipe allows gaps.
    """
    passes: list[tuple[Array, Bools]] = []
    for _, group in groupby(read_calibrated(layer, scenes, geobox, threads, notes), key=lambda one: one.scene.overpass):
        members = list(group)
        passes.append(mosaic([one.work for one in members], [one.observed for one in members]))
    if not passes:
        return None
    return reduce_step([work for work, _ in passes], [observed for _, observed in passes], layer.reducer)


def _metres(block: GeoBox) -> tuple[float, float]:
    """Metres per pixel in x and y at the block's centre."""
    x, y = abs(block.resolution.x), abs(block.resolution.y)
    if block.crs is None or not block.crs.geographic:
        return x, y
    latitude = np.radians(block.extent.centroid.coords[0][1])
    return x * 111_320 * float(np.cos(latitude)), y * 110_574
