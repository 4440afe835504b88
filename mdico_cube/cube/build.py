"""A plan in, a cube on disk out: one job = one modality x one shard, each written whole and recorded last."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube import __version__
from mdico_cube.cube.composite import mosaic, reduce_step
from mdico_cube.cube.execute import crew_for, execute, threads_each
from mdico_cube.cube.grid import Shard
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger, Origin
from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene, plan_build
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.read import read_scenes
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.store import create_cube, keep_recipe, writing
from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError
from mdico_cube.progress import meter, say
from mdico_cube.recipe import ClusterSection, Recipe
from mdico_cube.sensors.offsets import dark_floor, judge_floors
from mdico_cube.sensors.quality import seen
from mdico_cube.sensors.sensor import declared
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
        """Build one shard."""
        return run_job(self.cube, _job(_plan(self.cube, self.plan), key), self.threads)


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
    for layer in plan.layers:
        layer.check()
    if path.exists() and not overwrite:
        _check_same(path, plan)
        keep_recipe(path, _recipe_text(recipe))
    else:
        _create(path, plan, recipe, overwrite)
    _run(path, plan, _unfinished(path, plan, keys), cluster or recipe.cluster)
    return path


def _recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON for the cube: without places and without what a cluster was given, which may be secret."""
    return recipe.model_dump_json(exclude={"output", "cluster"})


def _run(path: Path, plan: BuildPlan, keys: list[Key], cluster: ClusterSection) -> None:
    """Build the shards and raise MdicoError when some could not be."""
    if not keys:
        return
    work, name = WorkFolder(path), uuid4().hex
    failed: list[str] = []
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
            for note in built.notes:
                say(note)
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


def check_free(path: Path, overwrite: bool, resume: bool) -> None:
    """Raise MdicoError where an output stands already and neither overwrite nor resume was asked for."""
    if path.exists() and not (overwrite or resume):
        raise MdicoError(f"{path}: exists already. Use --resume to go on with it or --overwrite to replace it.")


def _create(path: Path, plan: BuildPlan, recipe: Recipe, overwrite: bool) -> None:
    create_cube(
        path,
        plan.geobox,
        [layer.layer for layer in plan.layers],
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
    came = {layer.modality.name: (layer.modality.band_names, layer.steps) for layer in plan.layers}
    stands = {name: (m.band_names, reader.steps(name)) for name, m in reader.modalities.items()}
    if reader.geobox != plan.geobox or reader.shard != plan.shard:
        raise MdicoError(f"{path}: stands on another grid than the recipe's area. Use --overwrite to replace it.")
    if came != stands:
        differing = [name for name in {**came, **stands} if came.get(name) != stands.get(name)]
        raise MdicoError(
            f"{path}: was built with other bands or steps of {', '.join(differing)}. Use --overwrite to replace it."
        )


def _keys(plan: BuildPlan) -> Iterator[Key]:
    for shard in plan.shards():
        for layer in plan.layers:
            yield Key(layer.modality.name, shard.row, shard.column)


def _job(plan: BuildPlan, key: Key) -> Job:
    layer, shard = plan.layer(key.modality), plan.shard_at(key.row, key.column)
    block = plan.block(shard)
    return Job(layer, shard, block, layer.origin(block))


def _unfinished(path: Path, plan: BuildPlan, keys: list[Key]) -> list[Key]:
    """Jobs whose shard is missing, failed or stale."""
    standing = {layer.modality.name: Ledger(path, layer.modality.name).digests() for layer in plan.layers}
    return [
        key for key in keys if standing[key.modality][key.row, key.column].tobytes() != _job(plan, key).digest.encode()
    ]


def run_job(path: Path, job: Job, threads: int) -> Built:
    """Compute one shard, write it whole, record it last."""
    start = time.monotonic()
    name = job.layer.modality.name
    ledger = Ledger(path, name, mode="r+")
    scenes = job.layer.scenes_of(job.block)
    ids = tuple(scene.item.id for scene in scenes)
    floors: dict[str, float] = {}
    try:
        stored = compute_block(job.layer, job.block, threads, floors)
    except MdicoError as error:
        with writing(path):
            ledger.record(job.shard.row, job.shard.column, Entry(FAILED, job.digest, ids, error=str(error)))
        return Built(str(error))
    offsets, notes = _offsets(job.layer, scenes, floors)
    observed = job.layer.modality.storage.observed(stored)
    with writing(path):
        array = zarr.open_group(path, mode="r+", zarr_format=3)[f"{name}/{job.layer.modality.variable}"]
        assert isinstance(array, zarr.Array)
        ledger.forget(job.shard.row, job.shard.column)
        array[..., job.shard.y, job.shard.x] = stored if job.layer.modality.temporal else stored[0]
        entry = Entry(
            DONE,
            job.digest,
            ids,
            offsets=offsets,
            floors={item: round(floor, 4) for item, floor in floors.items() if np.isfinite(floor)},
            valid_fraction=float(observed.all(axis=1).mean()),
            seconds=round(time.monotonic() - start, 3),
            bytes_written=stored.nbytes,
            version=__version__,
            settings=job.origin.settings,
            grid=job.origin.grid,
            steps=job.origin.steps,
        )
        ledger.record(job.shard.row, job.shard.column, entry)
    return Built(bytes_written=stored.nbytes, notes=notes)


def _offsets(
    layer: LayerPlan, scenes: Sequence[Scene], floors: Mapping[str, float]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Item -> offset, why, and what the offset sentinel has against it; and a note on what it doubts."""
    rules = {scene.item.id: layer.radiometry(scene) for scene in scenes}
    sentinel = layer.sensor.sentinel
    doubts = judge_floors(floors, {s.item.id: sentinel.era(s.item.properties) for s in scenes}) if sentinel else {}
    notes = [
        f"{layer.modality.name}: the offset of {len(doubts)} scenes looks wrong, such as {name}: {doubt}"
        for name, doubt in sorted(doubts.items())[:1]
    ]
    offsets = {
        name: f"{rule.offset:+g} ({rule.reason}){f' - {doubts[name]}' if name in doubts else ''}"
        for name, rule in rules.items()
    }
    return offsets, tuple(notes)


def compute_block(layer: LayerPlan, block: GeoBox, threads: int = 1, floors: dict[str, float] | None = None) -> Array:
    """Stored values (T, C, h, w) of one modality on any block of the cube's grid.

    Where source and grid share a CRS, the values do not depend on how the grid is cut into blocks. Scenes of another
    zone are warped by GDAL, whose positions may differ by up to an eighth of a source pixel between blocks.

    Args:
        layer: what to compute.
        block: where.
        threads: files read at once.
        floors: filled with item id -> dark floor for sensors whose offset is watched.
    """
    sensor, bands = layer.sensor, layer.modality.band_names
    padded = block.pad(sensor.halo) if sensor.halo else block
    scenes = sorted(layer.scenes_of(padded), key=lambda scene: (scene.step, str(scene.overpass)))
    out = np.full((len(layer.steps), len(bands), *block.shape), layer.modality.storage.missing)
    out = out.astype(layer.modality.storage.dtype)
    for step, group in groupby(scenes, key=lambda scene: scene.step):
        work, observed = _composite(layer, list(group), padded, threads, floors)
        stored = sensor.finish(work, observed)
        if sensor.derive is not None:
            every = sensor.derive(stored[0], *_metres(block))
            stored = every[[sensor.modality.band_names.index(band) for band in bands]]
        out[step] = stored
    return out


def _composite(
    layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int, floors: dict[str, float] | None
) -> tuple[Array, Bools]:
    """Scenes of one step to one composite: calibrated per item, fused per overpass, reduced over overpasses."""
    sensor = layer.sensor
    raw, clear = _read(layer, scenes, geobox, threads), _read_seen(layer, scenes, geobox, threads)
    nodata = _nodata(layer, scenes)
    passes: list[tuple[Array, Bools]] = []
    calibrated = []
    for i, scene in enumerate(scenes):
        rule = layer.radiometry(scene)
        work, observed = sensor.calibrate(raw[i], nodata, rule)
        if clear is not None:
            observed = observed & clear[i]
        if floors is not None and sensor.sentinel is not None:
            floors[scene.item.id] = dark_floor(raw[i], observed, sensor.sentinel.scale, rule.offset)
        calibrated.append((scene.overpass, work, observed))
    for _, group in groupby(calibrated, key=lambda one: one[0]):
        members = list(group)
        passes.append(mosaic([m[1] for m in members], [m[2] for m in members]))
    return reduce_step([work for work, _ in passes], [observed for _, observed in passes], layer.reducer)


def _read(layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int) -> Array:
    """Raw counts (N, C, h, w), one plane per scene."""
    sensor, read_bands = layer.sensor, layer.sensor.reads or layer.modality.band_names
    metres = abs(geobox.resolution.y) * (110_574 if geobox.crs is not None and geobox.crs.geographic else 1)
    methods = {
        band.name: "average" if metres >= 2 * sensor.gsd.get(band.name, np.inf) else band.resampling
        for band in sensor.modality.bands
    }
    return read_scenes(
        [scene.item for scene in scenes],
        layer.assets,
        geobox,
        dtype=layer.sensor.raw_dtype,
        nodata=_nodata(layer, scenes),
        resampling={asset: methods[band] for asset, band in zip(layer.assets, read_bands, strict=True)},
        access=layer.access,
        reading=layer.reading,
        threads=threads,
    )


def _read_seen(layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int) -> Array | None:
    """(N, h, w) True where each scene saw the ground; None where the source has no quality layer.

    The layer is read wider than the block by the dilation, so that a cloud beyond the edge is widened into it.
    """
    rule, dilate = layer.sensor.quality, layer.source.dilate
    if rule is None or not layer.quality_assets:
        return None
    values = read_scenes(
        [scene.item for scene in scenes],
        layer.quality_assets,
        geobox.pad(dilate) if dilate else geobox,
        dtype=rule.dtype,
        nodata=rule.missing,
        resampling=dict.fromkeys(layer.quality_assets, "nearest"),
        access=layer.access,
        reading=layer.reading,
        threads=threads,
    )
    return np.stack([seen(plane[0], rule, layer.hides, dilate) for plane in values])


def _nodata(layer: LayerPlan, scenes: list[Scene]) -> float:
    """The source's no-data value: the catalog file's, else what the item declares, else 0."""
    if layer.source.nodata is not None:
        return layer.source.nodata
    return float(declared(scenes[0].item.assets[layer.assets[0]].extra_fields).get("nodata") or 0)


def _metres(block: GeoBox) -> tuple[float, float]:
    """Metres per pixel in x and y at the block's centre."""
    x, y = abs(block.resolution.x), abs(block.resolution.y)
    if block.crs is None or not block.crs.geographic:
        return x, y
    latitude = np.radians(block.extent.centroid.coords[0][1])
    return x * 111_320 * float(np.cos(latitude)), y * 110_574
