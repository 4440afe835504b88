"""Scheduling of a build against its goals: overhead per job, client memory and tasks, speed-up of two workers."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import zarr

from mdico_cube.cube.claims import Claims
from mdico_cube.cube.execute import Crew, crew_for, execute
from mdico_cube.cube.ledger import DONE, Entry, Ledger, create_ledger
from mdico_cube.cube.work import WorkFolder
from mdico_cube.recipe import ClusterSection

WORK = 0.1  # seconds of processor time per job: a 512-pixel shard takes seconds


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


def memory(crew: Crew, jobs: int) -> tuple[float, int]:
    """Megabytes by which the client grows over empty jobs, and the most tasks on the scheduler at once."""
    most, client = 0, psutil.Process()
    gc.collect()
    before = peak = client.memory_info().rss
    for done, _ in enumerate(execute(crew, nothing, iter(range(jobs)))):
        futures: Any = getattr(crew, "_futures", ())
        most = max(most, len(futures))
        if done % 50 == 0:
            peak = max(peak, client.memory_info().rss)
    return (peak - before) / 1e6, most


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
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    local = ClusterSection(kind="local", workers=2)
    book, send = bookkeeping(1024), overhead(local, 1000)
    share = (book + send) / (1.0 + book + send)
    rows = [
        ("claim, ledger, release per shard", f"{book * 1e3:.1f} ms", ""),
        ("empty job on 2 local workers, 1,000 jobs", f"{send * 1e3:.1f} ms", ""),
        ("scheduling share of wall time, 1,000 shards of 1 s", f"{share:.1%}", "under 5 %"),
    ]
    with crew_for(local) as crew:
        list(execute(crew, nothing, range(1000)))
        for jobs in (100, 1_000, 10_000):
            grown, most = memory(crew, jobs)
            rows.append((f"client growth and tasks, {jobs:,} empty jobs", f"{grown:.1f} MB, {most} tasks", "constant"))
    rows.append(("two local workers against one, same work", f"{speed_up(30):.2f}x", "at least 1.7x"))
    for name, figure, goal in rows:
        print(f"{name:<55}{figure:>20}   {goal}")


if __name__ == "__main__":
    main()
