"""A map's plan in, what making it will cost out: pixels, shards, memory, time; nothing is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdico_cube.cube.clusters import processors
from mdico_cube.cube.ledger import DONE, Ledger
from mdico_cube.maps.crew import in_process, workers_of
from mdico_cube.maps.mapstore import LAYER, Place, differences, shard_window
from mdico_cube.maps.origin import shard_grid
from mdico_cube.maps.outputs import depth
from mdico_cube.maps.plan import MapPlan
from mdico_cube.recipe import ClusterSection
from mdico_cube.spec import Bools

_TRIED = 4096  # pixels of a calibration
_FLOAT, _BOOL = 4, 1  # bytes of a value and of its mask
_WAITING = 2  # blocks read ahead or waiting to be written, beside those that are computed


@dataclass(frozen=True, slots=True)
class MapCost:
    """What one map costs to make."""

    shards: int
    """Of the whole map."""
    done: int
    """That stand and are made from what the cube holds now."""
    lacking: int
    """That cannot be made because the cube was not built there."""
    skipped: int
    """Outside the mask, or without a single observation: nothing is computed."""
    pixels: int
    """To be computed in the shards that are left, at most: which of them were observed is known when they are read."""
    workers: int
    memory: int
    """Bytes of the blocks in hand, beside what the process itself takes."""
    rate: float | None
    """Pixels a second of one worker, from mapping a corner of the cube; None where nothing is left to compute."""

    @property
    def seconds(self) -> float | None:
        """Of the whole map with these workers."""
        return None if self.rate is None else self.pixels / (self.rate * self.workers)


def map_cost(plan: MapPlan, target: Path, cluster: ClusterSection | None = None) -> MapCost:
    """What a map will cost; a corner of one shard is read and mapped to foresee the time.

    Args:
        plan: of the map.
        target: where it will stand, or stands in part.
        cluster: who will work.

    Raises:
        MdicoError: the cube, the mask or a bundle cannot be read.
    """
    cluster = cluster or ClusterSection()
    shape, done, lacking = shard_grid(plan.reader), _done(plan, Path(target)), plan.lacking()
    wanted = {place: _pixels(plan, place) for place in _places(~done & ~lacking)}
    left = {place: count for place, count in wanted.items() if count}
    workers = workers_of(cluster, len(left)) if in_process(cluster) else cluster.workers or processors()
    workers = 1 if plan.device != "cpu" else workers  # the card of this machine is what is timed
    return MapCost(
        shards=shape[0] * shape[1],
        done=int(done.sum()),
        lacking=int(lacking.sum()),
        skipped=len(wanted) - len(left),
        pixels=sum(left.values()),
        workers=workers,
        memory=_block_bytes(plan) * (workers + _WAITING),
        rate=_rate(plan, next(iter(left)), workers) if left else None,
    )


def _places(chosen: Bools) -> list[Place]:
    return [(int(row), int(column)) for row, column in np.argwhere(chosen)]


def _done(plan: MapPlan, target: Path) -> Bools:
    """Shards that `write_map` with resume would leave alone."""
    found = np.zeros(shard_grid(plan.reader), np.bool_)
    if target.exists() and not differences(plan, target):
        digests = plan.digests()
        for place, entry in Ledger(target, LAYER).entries().items():
            found[place] = entry.state == DONE and entry.digest == digests[place]
    return found


def _pixels(plan: MapPlan, place: Place) -> int:
    """Pixels of a shard that may have to be computed."""
    y, x = shard_window(plan, place)
    reader = plan.reader
    images = [name for name in plan.modalities if not reader.modalities[name].coarse]
    entries = [Ledger(reader.path, name).read(*place) for name in images]
    if entries and all(entry.version and entry.valid_fraction == 0 for entry in entries):
        return 0
    if plan.mask is None:
        return int((y.stop - y.start) * (x.stop - x.start))
    return int(plan.mask.inside(reader.geobox, y, x).sum())


def _block_bytes(plan: MapPlan) -> int:
    """Bytes of one block: counts and masks of its sensors with what lies around, and the layers that come out."""
    reader = plan.reader
    side = min(reader.shard, max(reader.shape))
    around = (side + 2 * plan.reach) ** 2
    found = side * side * depth(plan.variables)
    for name in plan.modalities:
        modality, steps = reader.modalities[name], len(reader.steps(name))
        stored = np.dtype(modality.storage.dtype)
        packed = stored.kind != "f" and plan.in_counts
        each = stored.itemsize if packed else stored.itemsize + _FLOAT + _BOOL  # unpacked, or copied
        found += around * steps * (len(modality.bands) * each + stored.itemsize + _BOOL)
    return found


def _rate(plan: MapPlan, place: Place, workers: int) -> float:
    """Pixels a second of one worker, reading included."""
    y, x = shard_window(plan, place)
    side = plan.reader.chunk
    width = min(side, x.stop - x.start)
    corner = slice(y.start, min(y.stop, y.start + max(side, _TRIED // width))), slice(x.start, x.start + width)
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, processors() // workers))
    try:
        plan.predict(*corner)  # loads and warms up
        start = time.perf_counter()
        plan.predict(*corner)
        taken = time.perf_counter() - start
    finally:
        torch.set_num_threads(before)
    return float((corner[0].stop - corner[0].start) * width / max(taken, 1e-9))
