"""A function and its jobs in, their results out in order: through Dask, so many at a time that memory stays bounded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import dask

from mdico_cube.progress import track

T = TypeVar("T")
_PER_PROCESSOR = 4  # jobs per processor and wave


def in_waves(function: Callable[..., T], jobs: Sequence[Sequence[Any]], title: str) -> Iterator[T]:
    """The result of `function(*job)` for every job, in the order of the jobs, wave by wave.

    Runs in threads, or wherever a `dask.distributed.Client` or `dask.config.set(scheduler=...)` says. Hand over paths
    and small arrays only: what a job holds goes into the task graph.
    """
    return track(_waves(function, jobs), title, len(jobs))


def _waves(function: Callable[..., T], jobs: Sequence[Sequence[Any]]) -> Iterator[T]:
    task = dask.delayed(function, pure=False, traverse=False)
    wave = _PER_PROCESSOR * (os.cpu_count() or 1)
    for start in range(0, len(jobs), wave):
        yield from dask.compute(*[task(*job) for job in jobs[start : start + wave]])  # type: ignore[no-untyped-call]
