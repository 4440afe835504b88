"""A cube and bundles in, their map out: a Zarr group written shard by shard, resumable at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mdico_cube.cube.ledger import FAILED, Entry
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.mapstore import (
    Place,
    differences,
    find_maps,
    map_path,
    map_shard,
    mendable,
    open_map,
    prepare,
    read_map,
    record_failure,
)
from mdico_cube.maps.origin import Digests
from mdico_cube.maps.predict import MapPlan, plan_map
from mdico_cube.progress import track

__all__ = ["find_maps", "is_stale", "map_path", "open_map", "read_map", "write_map"]


def write_map(
    cube: Location,
    bundle: Path | Sequence[Path],
    target: Path,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    **options: Any,
) -> Path:
    """Map a whole cube with one sensor's bundle, or with the best of several at each pixel.

    Args:
        cube: where the cube lies.
        bundle: folder of one bundle, or of several: then each pixel takes the best that was observed there.
        target: folder of the map, as `map_path` names it.
        overwrite: replace a map that is there.
        resume: compute only the shards a stopped run left out, and those whose pixels the cube has anew.
        workers: threads that predict at the same time, each with its share of the cores; default one per core.
        options: of `mdico_cube.recipe.MapOptions`: pixels, precision, outputs, mask, abstain, window, least.

    Returns:
        The target.

    Raises:
        MdicoError: the bundle does not fit, a map is there already, it was made from something else, the folder cannot
            be written, or shards could not be made (the others are kept).
    """
    target = Path(target)
    plan = plan_map(cube, bundle, **options)
    with mendable(target):
        due = prepare(plan, target, overwrite, resume)
        workers = max(1, min(workers or _cores(), _cores(), len(due) or 1))
        entries = _compute(plan, target, due, workers)
    failed = [entry.error for entry in entries if entry.state == FAILED]
    if failed:
        raise MdicoError(
            f"map {target}: {len(failed)} of {len(due)} shards could not be made ({failed[0].rstrip('.')}). "
            "The others are kept: mend the cube, then go on with --resume."
        )
    return target


def is_stale(cube: Location, bundle: Path | Sequence[Path], target: Path, **options: Any) -> bool:
    """True where a map lies that was made from another bundle or grid, or with other options.

    Shards whose pixels the cube has anew do not count: `write_map` with resume makes those again.
    """
    return Path(target).exists() and bool(differences(plan_map(cube, bundle, **options), target))


def _compute(plan: MapPlan, target: Path, due: list[Place], workers: int) -> list[Entry]:
    """Make the shards that are due; the entry of each."""
    digests, lacking = plan.digests(), plan.lacking()
    able = [place for place in due if not lacking[place]]
    why = "the cube lacks what this shard is made of: build it with `mdico build --resume`"
    entries = [record_failure(target, place, digests[place], why) for place in due if lacking[place]]
    config = plan.loaded.configs[0]
    with _pool(workers) as pool:
        found = _shards(plan, target, able, digests, pool, workers)
        return entries + list(track(found, f"map {config.method} {plan.modality}", len(able)))


def _shards(
    plan: MapPlan, target: Path, due: list[Place], digests: Digests, pool: ThreadPoolExecutor, workers: int
) -> Iterator[Entry]:
    """The entries in order; a few shards are in hand at a time, so that a stop is quick."""
    waiting = iter(due)
    flying = [pool.submit(map_shard, plan, target, place, digests[place]) for place in islice(waiting, 2 * workers)]
    try:
        while flying:
            yield flying.pop(0).result()
            flying += [pool.submit(map_shard, plan, target, place, digests[place]) for place in islice(waiting, 1)]
    finally:
        for late in flying:
            late.cancel()


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Worker threads that together use no more torch threads than there are cores; the caller's count comes back."""
    before, share = torch.get_num_threads(), max(1, _cores() // workers)
    try:
        with ThreadPoolExecutor(workers, "map", initializer=torch.set_num_threads, initargs=(share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
