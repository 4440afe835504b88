"""A plan in, a cube on disk out: one job = one modality x one shard, each written whole and recorded last."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube import __version__
from mdico_cube.cube.composite import mosaic, reduce_step
from mdico_cube.cube.grid import Shard
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger
from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene, plan_build
from mdico_cube.cube.read import read_scenes
from mdico_cube.cube.store import create_cube, open_reader, writing
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say, track
from mdico_cube.recipe import Recipe
from mdico_cube.sensors.sensor import Radiometry
from mdico_cube.spec import Array, Bools


@dataclass(frozen=True)
class Job:
    """One modality of one shard."""

    layer: LayerPlan
    shard: Shard
    block: GeoBox
    digest: str


def build_cube(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    threads: int | None = None,
    plan: BuildPlan | None = None,
) -> Path:
    """Build the recipe's cube and return its path.

    Args:
        recipe: what to build.
        overwrite: replace a cube that stands there.
        resume: go on with it: only shards that are missing, failed or stale are built.
        threads: files read at once; default = number of processors.
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
    if path.exists() and not overwrite:
        _check_same(path, plan)
    else:
        _create(path, plan, recipe, overwrite)
    jobs = [job for job in _jobs(plan) if not _is_done(path, job)]
    errors = [run_job(path, job, threads or os.cpu_count() or 1) for job in track(jobs, "build", len(jobs))]
    failed = [error for error in errors if error]
    if failed:
        raise MdicoError(f"{len(failed)} of {len(jobs)} shards could not be built, the others are kept. {failed[0]}")
    return path


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
        {"mdico_recipe": recipe.model_dump_json(exclude={"output"}), "mdico_version": __version__},
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


def _jobs(plan: BuildPlan) -> list[Job]:
    return [
        Job(layer, shard, plan.block(shard), layer.digest(plan.block(shard)))
        for shard in plan.shards()
        for layer in plan.layers
    ]


def _is_done(path: Path, job: Job) -> bool:
    entry = Ledger(path, job.layer.modality.name).read(job.shard.row, job.shard.column)
    return entry.state == DONE and entry.digest == job.digest


def run_job(path: Path, job: Job, threads: int) -> str:
    """Compute one shard, write it whole, record it; returns why it failed, or an empty text."""
    start = time.monotonic()
    name = job.layer.modality.name
    ledger = Ledger(path, name, mode="r+")
    scenes = job.layer.scenes_of(job.block)
    ids = tuple(scene.item.id for scene in scenes)
    try:
        stored = compute_block(job.layer, job.block, threads)
    except MdicoError as error:
        with writing(path):
            ledger.record(job.shard.row, job.shard.column, Entry(FAILED, job.digest, ids, error=str(error)))
        return str(error)
    observed = job.layer.modality.storage.observed(stored)
    with writing(path):
        array = zarr.open_group(path, mode="r+", zarr_format=3)[f"{name}/{job.layer.modality.variable}"]
        assert isinstance(array, zarr.Array)
        array[..., job.shard.y, job.shard.x] = stored if job.layer.modality.temporal else stored[0]
        entry = Entry(
            DONE,
            job.digest,
            ids,
            offsets=_offsets(job.layer, scenes),
            valid_fraction=float(observed.all(axis=1).mean()),
            seconds=round(time.monotonic() - start, 3),
            bytes_written=stored.nbytes,
            version=__version__,
        )
        ledger.record(job.shard.row, job.shard.column, entry)
    return ""


def _offsets(layer: LayerPlan, scenes: Sequence[Scene]) -> dict[str, str]:
    rules = {scene.item.id: _radiometry(layer, scene) for scene in scenes}
    return {name: f"{rule.offset:+g} ({rule.reason})" for name, rule in rules.items()}


def _radiometry(layer: LayerPlan, scene: Scene) -> Radiometry:
    asset = scene.item.assets[layer.assets[0]]
    return layer.sensor.radiometry(scene.item.id, scene.item.properties, asset.extra_fields, layer.source)


def compute_block(layer: LayerPlan, block: GeoBox, threads: int = 1) -> Array:
    """Stored values (T, C, h, w) of one modality on any block of the cube's grid.

    The values do not depend on how the grid is cut into blocks.
    """
    sensor, bands = layer.sensor, layer.modality.band_names
    padded = block.pad(sensor.halo) if sensor.halo else block
    scenes = sorted(layer.scenes_of(padded), key=lambda scene: (scene.step, str(scene.overpass)))
    out = np.full((len(layer.steps), len(bands), *block.shape), layer.modality.storage.missing)
    out = out.astype(layer.modality.storage.dtype)
    for step, group in groupby(scenes, key=lambda scene: scene.step):
        work, observed = _composite(layer, list(group), padded, threads)
        stored = sensor.finish(work, observed)
        if sensor.derive is not None:
            every = sensor.derive(stored[0], *_metres(block))
            stored = every[[sensor.modality.band_names.index(band) for band in bands]]
        out[step] = stored
    return out


def _composite(layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int) -> tuple[Array, Bools]:
    """Scenes of one step to one composite: calibrated per item, fused per overpass, reduced over overpasses."""
    sensor = layer.sensor
    raw, clear = _read(layer, scenes, geobox, threads)
    nodata = _nodata(layer, scenes)
    passes: list[tuple[Array, Bools]] = []
    calibrated = []
    for i, scene in enumerate(scenes):
        work, observed = sensor.calibrate(raw[i], nodata, _radiometry(layer, scene))
        if clear is not None and sensor.clear is not None:
            observed = observed & sensor.clear(clear[i])
        calibrated.append((scene.overpass, work, observed))
    for _, group in groupby(calibrated, key=lambda one: one[0]):
        members = list(group)
        passes.append(mosaic([m[1] for m in members], [m[2] for m in members]))
    return reduce_step([work for work, _ in passes], [observed for _, observed in passes], layer.reducer)


def _read(layer: LayerPlan, scenes: list[Scene], geobox: GeoBox, threads: int) -> tuple[Array, Array | None]:
    items = [scene.item for scene in scenes]
    read_bands = layer.sensor.reads or layer.modality.band_names
    methods = {band.name: band.resampling for band in layer.sensor.modality.bands}
    raw = read_scenes(
        items,
        layer.assets,
        geobox,
        dtype=dict.fromkeys(layer.assets, layer.sensor.raw_dtype),
        nodata=_nodata(layer, scenes),
        resampling={asset: methods[band] for asset, band in zip(layer.assets, read_bands, strict=True)},
        signing=layer.signing,
        threads=threads,
    )
    quality = layer.source.quality
    if quality is None or layer.sensor.clear is None:
        return raw, None
    clear = read_scenes(
        items,
        [quality],
        geobox,
        dtype={quality: "uint8"},
        nodata=0,
        resampling={quality: "nearest"},
        signing=layer.signing,
        threads=threads,
    )
    return raw, clear[:, 0]


def _nodata(layer: LayerPlan, scenes: list[Scene]) -> float:
    """The source's no-data value: the catalog file's, else what the item declares, else 0."""
    if layer.source.nodata is not None:
        return layer.source.nodata
    fields = scenes[0].item.assets[layer.assets[0]].extra_fields
    declared = (fields.get("raster:bands") or fields.get("bands") or [fields])[0].get("nodata", 0)
    return float(declared)


def _metres(block: GeoBox) -> tuple[float, float]:
    """Metres per pixel in x and y at the block's centre."""
    x, y = abs(block.resolution.x), abs(block.resolution.y)
    if block.crs is None or not block.crs.geographic:
        return x, y
    latitude = np.radians(block.extent.centroid.coords[0][1])
    return x * 111_320 * float(np.cos(latitude)), y * 110_574
