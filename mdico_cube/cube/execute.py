"""A function and many jobs in, results out as they are done: in a loop, in threads or on Dask, few at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from mdico_cube.cube.clusters import dask_client, processors
from mdico_cube.cube.dask_crew import DaskCrew
from mdico_cube.recipe import ClusterSection

Task = Callable[[Any], Any]
"""The one function of all jobs: small, as it travels with each; what it needs of size it loads once per process."""
_PATIENCE = 0.5  # seconds between two looks at jobs that are not to be had yet


class Crew(Protocol):
    """Who does the jobs."""

    here: bool
    """True where the jobs run in this process."""

    def room(self, flying: int) -> bool:
        """True while another job may be handed over beside `flying` others."""

    def submit(self, task: Task, job: Any) -> None:
        """Hand one job over."""

    def collect(self, patience: float) -> tuple[Any, Any] | None:
        """A finished job with its result; None where none is finished after `patience` seconds.

        Raises what the job raised.
        """

    def drop(self) -> None:
        """Forget the jobs that have not begun; those at work are waited for where they run in this process."""


class LoopCrew:
    """One job after the other in this process."""

    here = True

    def __init__(self) -> None:
        self._done: deque[tuple[Any, Any]] = deque()

    def room(self, flying: int) -> bool:
        """True while nothing waits to be collected."""
        return flying == 0

    def submit(self, task: Task, job: Any) -> None:
        """Do it now."""
        self._done.append((job, task(job)))

    def collect(self, patience: float) -> tuple[Any, Any] | None:
        """What was just done."""
        return self._done.popleft() if self._done else None

    def drop(self) -> None:
        """Nothing waits in a loop."""


class ThreadCrew:
    """Some jobs at once in this process."""

    here = True

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._gather()

    def _gather(self) -> None:
        self._pool = ThreadPoolExecutor(self._workers, "job")
        self._done: SimpleQueue[tuple[Any, Future[Any]]] = SimpleQueue()

    def room(self, flying: int) -> bool:
        """True while a thread is free or about to be."""
        return flying < self._workers + 1

    def submit(self, task: Task, job: Any) -> None:
        """Queue it for the next free thread."""
        self._pool.submit(task, job).add_done_callback(lambda future: self._done.put((job, future)))

    def collect(self, patience: float) -> tuple[Any, Any] | None:
        """The next finished job."""
        try:
            job, future = self._done.get(timeout=patience)
        except Empty:
            return None
        return job, future.result()

    def drop(self) -> None:
        """Wait for the jobs at work, leave the others; the next wave finds new threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._gather()


def execute(crew: Crew, task: Task, jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Do every job, yield (job, result) in the order they are finished.

    Jobs are taken from `jobs` only when the crew has room, so neither memory nor task graph grows with their number. A
    None among the jobs means that none is to be had right now; it is asked again later.

    Raises:
        Whatever a job raises; the jobs that had not begun are dropped.
    """
    waiting, flying, more = iter(jobs), 0, True
    try:
        while more or flying:
            while more and crew.room(flying):
                job = next(waiting, waiting)
                if job is None:
                    break
                more = job is not waiting
                if more:
                    crew.submit(task, job)
                    flying += 1
            if flying:
                finished = crew.collect(_PATIENCE)
                if finished is not None:
                    flying -= 1
                    yield finished
            elif more:
                time.sleep(_PATIENCE)
    finally:
        crew.drop()


@contextmanager
def crew_for(section: ClusterSection, cards: Sequence[str] | None = None) -> Iterator[Crew]:
    """The crew a recipe asks for; a cluster that is started here is closed at the end.

    Args:
        section: of the recipe.
        cards: of this machine, where the jobs need one each; a local cluster then has a worker for each. None = none.

    Raises:
        MdicoError: the cluster's package is missing, it cannot be started, or its scheduler cannot be reached.
    """
    kind = section.settled
    if kind in ("loop", "threads"):
        shards = shards_at_once(section)
        yield LoopCrew() if kind == "loop" and shards == 1 else ThreadCrew(shards)
    else:
        with dask_client(section, cards or ()) as client:
            yield DaskCrew(client, cards is not None)


def shards_at_once(section: ClusterSection) -> int:
    """Shards in hand at the same time; the most that an adaptive cluster grows to.

    A loop begins the next shard while the last is composed and written, unless it reads one file at a time.
    """
    if section.settled == "loop":
        return 2 if threads_each(section) > 1 else 1
    return section.adapt[1] if section.adapt else section.workers or processors()


def threads_each(section: ClusterSection) -> int:
    """Files that the shards of one process read at once, all together."""
    kind, shards = section.settled, section.workers or processors()
    each = section.threads or (processors() if kind == "loop" else max(1, processors() // shards))
    return each * shards if kind == "threads" and each > 1 else each


def cluster_for(section: ClusterSection, workers: int | None = None, scheduler: str | None = None) -> ClusterSection:
    """The recipe's section with what was asked for on the command line on top."""
    if scheduler is not None:
        return ClusterSection(kind="scheduler", address=scheduler, threads=section.threads)
    if workers is None:
        return section
    return section.model_copy(update={"workers": workers, "adapt": None})
