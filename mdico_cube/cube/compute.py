"""One modality and a block of the grid in, its stored values there out: scenes read, calibrated and composed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from functools import partial
from itertools import groupby
from typing import TypeVar

import numpy as np
from odc.geo.geobox import GeoBox

from mdico_cube.cube.composite import mosaic, reduce_step
from mdico_cube.cube.ground import ground_steps
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.read import helper
from mdico_cube.cube.scenes import Calibrated, Notes, read_calibrated
from mdico_cube.spec import Array, Bools

T = TypeVar("T")


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
    notes = notes or Notes()
    groups = [(step, list(group)) for step, group in groupby(scenes, key=lambda scene: scene.step)]
    reads = [partial(read_calibrated, layer, group, padded, threads, notes) for _, group in groups]
    for (step, _), calibrated in zip(groups, _ahead(reads, threads > 1), strict=True):
        composite = _composite(layer, calibrated)
        if composite is None:
            continue
        if layer.reducer == "count":
            out[step] = np.where(composite[1], composite[0], storage.missing)
            continue
        stored = sensor.finish(*composite)
        if sensor.derive is not None:
            every = sensor.derive(stored[0], ground_steps(block))
            stored = every[[sensor.modality.band_names.index(band) for band in bands]]
        out[step] = stored
    return out


def _ahead(tasks: Sequence[Callable[[], T]], ahead: bool) -> Iterator[T]:
    """Results in order; where asked for, the next one is under way while the last is used."""
    if not ahead or len(tasks) < 2:
        yield from (task() for task in tasks)
        return
    spare = helper()
    coming = spare.submit(tasks[0])
    try:
        for task in tasks[1:]:
            done = coming.result()
            coming = spare.submit(task)
            yield done
        yield coming.result()
    finally:
        wait([coming])


def _composite(layer: LayerPlan, scenes: Sequence[Calibrated]) -> tuple[Array, Bools] | None:
    """Scenes of one step to one composite: fused per overpass, reduced over overpasses.

    None where no scene could be read and the recipe allows gaps.
    """
    passes: list[tuple[Array, Bools]] = []
    for _, group in groupby(scenes, key=lambda one: one.scene.overpass):
        members = list(group)
        passes.append(mosaic([one.work for one in members], [one.observed for one in members]))
    if not passes:
        return None
    return reduce_step([work for work, _ in passes], [observed for _, observed in passes], layer.reducer)
