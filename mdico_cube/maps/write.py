"""A cube and bundles in, their map out: a Zarr group written shard by shard, resumable at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdico_cube.alone import alone
from mdico_cube.cube.clusters import check_scheduler
from mdico_cube.cube.execute import cluster_for
from mdico_cube.cube.ledger import FAILED, Entry
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.crew import in_process, make_shards
from mdico_cube.maps.mapstore import (
    Place,
    differences,
    find_maps,
    map_path,
    mendable,
    open_map,
    prepare,
    read_map,
    record_failure,
)
from mdico_cube.maps.plan import MapPlan, plan_map
from mdico_cube.progress import track
from mdico_cube.recipe import ClusterSection

__all__ = ["find_maps", "is_stale", "map_path", "open_map", "read_map", "write_map"]


def write_map(
    cube: Location,
    bundle: Path | Sequence[Path],
    target: Path,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    cluster: ClusterSection | None = None,
    **options: Any,
) -> Path:
    """Map a whole cube with one sensor's bundle, or with the best of several at each pixel.

    Args:
        cube: where the cube lies.
        bundle: folder of one bundle, or of several: then each pixel takes the best that was observed there.
        target: folder of the map, as `map_path` names it.
        overwrite: replace a map that is there.
        resume: compute only the shards a stopped run left out, and those whose pixels the cube has anew.
        workers: shards made at the same time, each with its share of the cores; default one per core.
        cluster: who makes them: threads of this process (default), Dask workers on this machine or a scheduler's.
        options: of `mdico_cube.recipe.MapOptions`: pixels, device, precision, backend, outputs, step, mask, abstain,
            window, least.

    Returns:
        The target.

    Raises:
        MdicoError: the bundle does not fit, a map is there already, it was made from something else, the folder cannot
            be written, another process writes there, or shards could not be made (the others are kept).
    """
    target = Path(target)
    plan = plan_map(cube, bundle, **options)
    section = cluster_for(cluster or ClusterSection(), workers)
    if in_process(section) or section.settled == "local":  # elsewhere the workers have the card
        for member in plan.members:
            member.loaded.prepare(plan.options, plan.device)
    check_scheduler(section)
    with mendable(target), alone(target, "writes a map"):
        due = prepare(plan, target, overwrite, resume)
        entries = _compute(plan, target, due, section)
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


def _compute(plan: MapPlan, target: Path, due: list[Place], cluster: ClusterSection) -> list[Entry]:
    """Make the shards that are due; the entry of each."""
    digests, lacking = plan.digests(), plan.lacking()
    able = [place for place in due if not lacking[place]]
    why = "the cube lacks what this shard is made of: build it with `mdico build --resume`"
    entries = [record_failure(target, place, digests[place], why) for place in due if lacking[place]]
    config = plan.loaded.configs[0]
    made = make_shards(plan, target, able, digests, cluster)
    return entries + list(track(made, f"map {config.method} {plan.modality}", len(able)))
