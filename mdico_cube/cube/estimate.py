"""A plan in, what its build will cost out: requests, memory, time, disk; warnings where this machine will not do."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.duplicates import item_time
from mdico_cube.cube.execute import shards_at_once, threads_each
from mdico_cube.cube.plan import BuildPlan, LayerPlan
from mdico_cube.cube.target import cube_location
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.errors import MdicoError
from mdico_cube.progress import size_text
from mdico_cube.recipe import Recipe

_TILE = 512  # side of a block of a cloud-optimized GeoTIFF
_HEADS = 2  # requests before the first block: head and directory
_WORK = 4  # bytes of a calibrated value, at most
_DERIVED = 64  # bytes per pixel of gradients and angles in double precision, for sensors that derive their bands
_COPIES = 2  # a composite and the same again while it is encoded


@dataclass(frozen=True, slots=True)
class Cost:
    """What one modality's shards cost to build."""

    found: int
    """Items the catalog answered with."""
    months: dict[str, int]
    """Year and month -> scenes read, after duplicates."""
    tasks: int
    """Shards."""
    reads: int
    """Scenes x shards that they touch."""
    requests: int
    """Ranged requests over a network: a file's head, then one per row of its blocks."""
    memory: int
    """Bytes of the largest task."""
    seconds: float | None
    """Of one worker for all shards, from a calibration read; None without one."""
    obstacle: str = ""
    """Why the calibration read failed; empty where it did not."""


def costs(plan: BuildPlan, threads: int = 1, calibrate: bool = False) -> dict[str, Cost]:
    """Modality -> what it costs. A calibration reads one time step of one shard of each that comes as images."""
    images = {layer.modality.name: _cost(plan, layer, threads, calibrate) for layer in plan.layers}
    return {**images, **{weather.modality.name: _weather_cost(plan, weather) for weather in plan.weather}}


def _weather_cost(plan: BuildPlan, weather: WeatherPlan) -> Cost:
    """Of a coarse modality: one task; its chunks stand for requests, and there is no time to foresee."""
    answer = plan.answers.get(weather.modality.name)
    found, memory = len(answer.items if answer else weather.items), weather.memory + weather.bytes_stored
    return Cost(found, {}, 1, len(weather.items), weather.requests, memory, None)


def _cost(plan: BuildPlan, layer: LayerPlan, threads: int, calibrate: bool) -> Cost:
    blocks = [plan.block(shard) for shard in plan.shards()]
    touching = [len(layer.scenes_of(block)) for block in blocks]
    reads, busiest = sum(touching), blocks[int(np.argmax(touching))]
    per_step = Counter(scene.step for scene in layer.scenes_of(busiest))
    answer = plan.answers.get(layer.modality.name)
    seconds, obstacle = None, ""
    if calibrate and per_step:
        step = per_step.most_common()[len(per_step) // 2][0]
        start = time.perf_counter()
        others = [other for other in range(len(layer.steps)) if other != step]
        try:
            compute_block(layer.without(others), busiest, threads)
            seconds = (time.perf_counter() - start) / per_step[step] * reads
        except MdicoError as error:
            obstacle = str(error)
    return Cost(
        found=len(answer.items) if answer else len(layer.scenes),
        months=dict(sorted(Counter(f"{item_time(scene.item):%Y-%m}" for scene in layer.scenes).items())),
        tasks=len(blocks),
        reads=reads,
        requests=reads * _requests(plan, layer),
        memory=_memory(plan, layer, max(per_step.values(), default=0)),
        seconds=seconds,
        obstacle=obstacle,
    )


def _requests(plan: BuildPlan, layer: LayerPlan) -> int:
    """Of one scene in one shard."""
    pixel = abs(plan.geobox.resolution.y)
    bands = layer.sensor.reads or layer.modality.band_names
    sizes = [layer.sensor.gsd.get(band, pixel) for band in bands] + [pixel] * len(layer.quality_assets)
    return sum(_HEADS + ceil(plan.shard * pixel / size / _TILE) + 1 for size in sizes)


def _memory(plan: BuildPlan, layer: LayerPlan, scenes: int) -> int:
    """Bytes of one task: the scenes of its busiest step as read and as calibrated, and the whole shard twice."""
    margin = 2 * (layer.sensor.halo + layer.source.dilate)
    height, width = (min(plan.shard, side) + margin for side in plan.geobox.shape)
    raw = len(layer.assets) * np.dtype(layer.sensor.raw_dtype).itemsize + 2 * len(layer.quality_assets)
    work = len(layer.assets) * _WORK + 1
    stored = len(layer.steps) * len(layer.modality.bands) * np.dtype(layer.modality.storage.dtype).itemsize
    derived = _DERIVED if layer.sensor.derive is not None else 0
    return int(height * width * (scenes * (2 * raw + 2 * work) + _COPIES * stored + derived))


def estimate(plan: BuildPlan, recipe: Recipe, calibrate: bool = False) -> dict[str, Any]:
    """Costs of a build as plain data, with what this machine cannot give.

    Args:
        plan: what will be built.
        recipe: where and by whom.
        calibrate: read one step of one shard per modality to foresee the time.
    """
    cluster = recipe.cluster
    found = costs(plan, threads_each(cluster), calibrate)
    memory = max((cost.memory for cost in found.values()), default=0)
    seconds = [cost.seconds for cost in found.values() if cost.seconds is not None]
    at_once = shards_at_once(cluster)
    workers = 1 if cluster.settled == "loop" else at_once
    stored = sum(plan.bytes_stored(layer) for layer in plan.every)
    return {
        "modalities": {name: _plain(cost) for name, cost in found.items()},
        "requests": sum(cost.requests for cost in found.values()),
        "tasks": sum(cost.tasks for cost in found.values()),
        "memory_per_task": memory,
        "workers": workers,
        "seconds": round(sum(seconds) / workers, 1) if seconds else None,
        "warnings": warnings(memory, at_once, stored, recipe)
        + [f"time: {name} is not in it: {cost.obstacle}" for name, cost in found.items() if cost.obstacle],
    }


def _plain(cost: Cost) -> Mapping[str, Any]:
    return {name: getattr(cost, name) for name in Cost.__slots__}


def warnings(memory: int, at_once: int, stored: int, recipe: Recipe) -> list[str]:
    """What this machine cannot give: memory for all shards in hand at once, room for the cube."""
    said = []
    free = psutil.virtual_memory().available
    if recipe.cluster.settled in ("loop", "threads", "local") and memory * at_once > free:
        said.append(
            f"memory: {at_once} tasks of {size_text(memory)} at once need more than the {size_text(free)} that are "
            "free here. Use fewer workers or a smaller store.shard."
        )
    place = cube_location(recipe)
    if isinstance(place, Path):
        stands = next(folder for folder in place.parents if folder.exists())
        room = shutil.disk_usage(stands).free
        standing = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())  # is not written again
        if stored > room + standing:
            said.append(
                f"disk: the cube takes up to {size_text(stored)} before compression, {stands} has {size_text(room)} "
                "free. Choose another output folder or a smaller area."
            )
    return said
