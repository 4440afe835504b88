"""Scheduling of a build against its goals: a real build of 1,000 shards, client memory and tasks, two workers.

Run: .venv/bin/python benchmarks/bench_build.py [--shards 1000] [--work 0.25] [--jobs 10000]

The build runs on two local Dask workers. Every shard burns some processor time, as composing one does, is written and
recorded. The bare jobs are the very same functions, shared among two plain processes that know no claims and no Dask: a
share of them before the build and as many after, scaled to the whole. Client memory is looked at once Dask's own logs
are full: they hold the last thousand steps and no more, which takes a few thousand jobs.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from mdico_cube.cube import build, jobs
from mdico_cube.cube.access import Access
from mdico_cube.cube.claims import Claims
from mdico_cube.cube.execute import Crew, crew_for, execute
from mdico_cube.cube.job import Built, Job, Key, shard_job, unfinished
from mdico_cube.cube.jobs import ShardTask, run_jobs
from mdico_cube.cube.ledger import DONE, Entry, Ledger, create_ledger
from mdico_cube.cube.plan import BuildPlan, LayerPlan
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.store import create_cube
from mdico_cube.cube.target import Target
from mdico_cube.cube.work import WorkFolder
from mdico_cube.period import Period
from mdico_cube.progress import console
from mdico_cube.recipe import ClusterSection, ReadSection, Source
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import Array

WORK = 0.25
"""Seconds of processor time per shard: a small one, as a shard of 512 pixels takes seconds."""
ALONE = 0.3
"""Share of the shards that are also done without a build."""
SIDE = 16
"""Pixels along a shard: what is written does not count here."""
LOCAL = ClusterSection(kind="local", workers=2)
WARM = 3000
"""Empty jobs until Dask's own logs are full."""


def burn(seconds: float) -> float:
    """Use that much processor time."""
    end = time.process_time() + seconds
    values = np.arange(4096.0)
    while time.process_time() < end:
        values = np.sqrt(values + 1)
    return seconds


def nothing(job: int) -> int:
    """An empty job."""
    return job


@contextmanager
def timed() -> Iterator[list[float]]:
    """Wall seconds of the block."""
    found, start = [], time.perf_counter()
    yield found
    found.append(time.perf_counter() - start)


def working_job(
    seconds: float, path: Target, job: Job, threads: int, holds: Callable[[], bool], durable: bool
) -> Built:
    """One shard: processor time instead of reading, then written and recorded by the real function."""

    def compute(layer: LayerPlan, block: GeoBox, *_: Any) -> Array:
        burn(seconds)
        shape = (len(layer.steps), len(layer.modality.bands), *block.shape)
        return np.random.default_rng(0).integers(0, 9999, shape).astype(layer.modality.storage.dtype)

    build.compute_block = compute
    return build.run_job(path, job, threads, holds, durable)


def plan_of(shards: int) -> BuildPlan:
    """Twelve months of Sentinel-2 in about so many shards, without a scene."""
    sensor, period = SENSORS["sentinel2"], Period("2021-01-01", "2021-12-31")
    layer = LayerPlan(
        sensor, sensor.modality, sensor.modality.band_names, period.steps(), period.stops(), Source(collection="none"),
        Access(), ReadSection(), "median", (),
    )  # fmt: skip
    rows = round(shards**0.5)
    shape = (rows * SIDE, round(shards / rows) * SIDE)
    return BuildPlan(GeoBox(shape, Affine(10, 0, 700000, 0, -10, 5600000), "EPSG:32631"), SIDE, (layer,))


def empty_cube(path: Path, plan: BuildPlan) -> Path:
    counts = (plan.geobox.shape.y // SIDE, plan.geobox.shape.x // SIDE)
    create_cube(path, plan.geobox, [plan.layers[0].layer], SIDE, SIDE, {"mdico_recipe": "{}"}, counts)
    return path


def bare_share(cube: Path, text: bytes, keys: list[Key], seconds: float, start: Any) -> None:
    """Some jobs one after the other in a process of their own."""
    plan = load_plan(text)
    start.wait()
    for key in keys:
        job = shard_job(plan, plan.layers[0], key)
        working_job(seconds, cube, job, 1, lambda: True, True)


def bare(cube: Path, plan: BuildPlan, keys: list[Key], seconds: float) -> float:
    """Wall seconds of the job functions alone, shared among two processes."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    halves = [keys[0::2], keys[1::2]]
    workers = [
        context.Process(target=bare_share, args=(cube, dump_plan(plan), half, seconds, start)) for half in halves
    ]
    for worker in workers:
        worker.start()
    start.wait()
    with timed() as wall:
        for worker in workers:
            worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    return wall[0]


@contextmanager
def noting_start() -> Iterator[list[float]]:
    """Seconds that a build in this block waits for its crew."""
    found: list[float] = []

    @contextmanager
    def crew_of(section: ClusterSection) -> Iterator[Crew]:
        start = time.perf_counter()
        with crew_for(section) as crew:
            found.append(time.perf_counter() - start)
            yield crew

    jobs.crew_for = crew_of
    try:
        yield found
    finally:
        jobs.crew_for = crew_for


def real_build(shards: int, seconds: float) -> list[tuple[str, str, str]]:
    """A build of so many shards beside the same jobs without it."""
    plan = plan_of(shards)
    with TemporaryDirectory() as folder:
        plain, built = (empty_cube(Path(folder) / name, plan) for name in ("plain.zarr", "built.zarr"))
        keys = unfinished(plain, plan)
        few = max(2, round(ALONE * len(keys) / 2))
        alone = bare(plain, plan, keys[:few], seconds)
        task = partial(ShardTask, partial(working_job, seconds), built, threads=1)
        busy = time.process_time()
        with timed() as wall, noting_start() as ready, Claims(WorkFolder(built), plan.identity) as claims:
            run_jobs(built, plan, unfinished(built, plan), task, LOCAL, claims)
        busy = time.process_time() - busy
        alone = (alone + bare(plain, plan, keys[-few:], seconds)) * len(keys) / (2 * few)
        assert (Ledger(built, "sentinel2").states() == DONE).all()
    share, running = 1 - alone / wall[0], 1 - alone / (wall[0] - ready[0])
    title = f"build of {len(keys):,} shards of {seconds:g} s"
    return [
        (f"{title}: the bare jobs", f"{alone:.1f} s", ""),
        (f"{title}: the build", f"{wall[0]:.1f} s", ""),
        ("of it until two workers stand, once", f"{ready[0]:.1f} s", ""),
        ("scheduling share of wall time, all in", f"{share:.1%}", "under 5 %"),
        ("scheduling share of wall time once the workers stand", f"{running:.1%}", ""),
        ("processor time of client and scheduler beside the shards'", f"{busy / (len(keys) * seconds):.1%}", ""),
    ]


def bookkeeping(shards: int) -> float:
    """Seconds that claims and ledger take for each job, everything a build adds to the work itself."""
    with TemporaryDirectory() as folder:
        cube = Path(folder) / "cube.zarr"
        zarr.open_group(cube, mode="w", zarr_format=3)
        side = round(shards**0.5)
        create_ledger(cube, "s2", (side, side))
        ledger = Ledger(cube, "s2", mode="r+")
        entry = Entry(DONE, "a" * 64, tuple(f"item{i}" for i in range(60)))
        with Claims(WorkFolder(cube), "plan") as claims, timed() as seconds:
            for row, column in np.ndindex(side, side):
                name = f"s2.{row}.{column}"
                number = claims.take(name)
                assert number is not None
                ledger.read(row, column)
                ledger.forget(row, column)
                ledger.record(row, column, entry)
                claims.release(name, number)
        with timed() as resume:
            Ledger(cube, "s2").heads()
        print(f"resume: states and digests of {side * side:,} shards read in {resume[0]:.2f} s")
        return seconds[0] / side**2


def overhead(section: ClusterSection, jobs: int) -> float:
    """Seconds per empty job from first to last, workers started."""
    with crew_for(section) as crew:
        list(execute(crew, nothing, range(10)))
        with timed() as seconds:
            for _ in execute(crew, nothing, range(jobs)):
                pass
    return seconds[0] / jobs


def memory(crew: Crew, jobs: int) -> tuple[float, float, int]:
    """Megabytes by which the client grows over empty jobs and over their last half, and most tasks at once."""
    most, client = 0, psutil.Process()
    gc.collect()
    before = middle = peak = client.memory_info().rss
    for done, _ in enumerate(execute(crew, nothing, iter(range(jobs)))):
        futures: Any = getattr(crew, "_futures", ())
        most = max(most, len(futures))
        if done % 50 == 0:
            peak = max(peak, client.memory_info().rss)
            middle = peak if done <= jobs // 2 else middle
    return (peak - before) / 1e6, (peak - middle) / 1e6, most


def speed_up(jobs: int, rounds: int = 3) -> float:
    """Wall time of one local worker over that of two, on the same work, interleaved."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in (1, 2):
            with crew_for(ClusterSection(kind="local", workers=workers)) as crew:
                list(execute(crew, burn, [0.01] * 8))
                with timed() as seconds:
                    list(execute(crew, burn, [WORK] * jobs))
            found[workers].append(seconds[0])
    return statistics.median(found[1]) / statistics.median(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--work", type=float, default=WORK, help="processor seconds of a shard")
    parser.add_argument("--jobs", type=int, default=10_000, help="most empty jobs")
    options = parser.parse_args()
    console.quiet = True
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    rows = real_build(options.shards, options.work)
    rows.append(("claim, ledger, release per shard", f"{bookkeeping(1024) * 1e3:.1f} ms", ""))
    rows.append(("empty job on 2 local workers, 1,000 jobs", f"{overhead(LOCAL, 1000) * 1e3:.1f} ms", ""))
    with crew_for(LOCAL) as crew:
        list(execute(crew, nothing, range(WARM)))
        for count in (100, 1_000, options.jobs):
            grown, late, most = memory(crew, count)
            figure = f"{grown:.1f} MB ({late:.1f} in the last half), {most} tasks"
            rows.append((f"client growth and tasks, {count:,} empty jobs", figure, "constant"))
    rows.append(("two local workers against one, same work", f"{speed_up(30):.2f}x", "at least 1.7x"))
    for name, figure, goal in rows:
        print(f"{name:<58}{figure:>42}   {goal}")


if __name__ == "__main__":
    main()
