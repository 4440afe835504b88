"""A map's plan and the shards that are due in, their entries as they are made out: in threads or on Dask workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from mdico_cube.cube.clusters import processors
from mdico_cube.cube.execute import crew_for, execute
from mdico_cube.cube.ledger import Entry
from mdico_cube.errors import MdicoError
from mdico_cube.maps.mapstore import Place, map_shard, record_failure, shard_window, write_shard
from mdico_cube.maps.origin import Digests
from mdico_cube.maps.outputs import Bytes
from mdico_cube.maps.predict import Gathered, MapPlan
from mdico_cube.recipe import ClusterSection

_WRITES = 2  # shards that wait to be written


def make_shards(
    plan: MapPlan, target: Path, due: Sequence[Place], digests: Digests, cluster: ClusterSection
) -> Iterator[Entry]:
    """Make the shards that are due, a few at a time; their entries as they are finished.

    In this process (kinds auto, loop and threads) the next shard is read and the last one written while others are
    computed. On Dask a task carries paths and options, each worker process loads the bundles once, and a worker thread
    computes on one torch thread.

    Args:
        plan: of the map.
        target: its folder, as `prepare` left it.
        due: rows and columns.
        digests: of what decides each shard.
        cluster: who works.

    Raises:
        MdicoError: a bundle changed, or the cluster cannot be had or is lost.
        OSError: the disk is full or closed.
    """
    if in_process(cluster):
        yield from _pipelined(plan, target, due, digests, workers_of(cluster, len(due)))
        return
    jobs = ((place, str(digests[place])) for place in due)
    with crew_for(cluster) as crew:
        for _, entry in execute(crew, MakeShard(plan, target), jobs):
            yield entry


def in_process(cluster: ClusterSection) -> bool:
    """Whether the section asks for no other processes: auto means threads for a map, as torch keeps them busy."""
    return cluster.kind in ("loop", "threads") or (
        cluster.kind == "auto" and cluster.address is None and cluster.adapt is None
    )


def workers_of(cluster: ClusterSection, shards: int) -> int:
    """Shards that are computed at the same time in this process."""
    most = 1 if cluster.kind == "loop" else min(cluster.workers or processors(), processors())
    return max(1, min(most, shards))


@dataclass(frozen=True, slots=True)
class MakeShard:
    """What a Dask worker does with one job (place, digest)."""

    plan: MapPlan
    target: Path

    def __call__(self, job: tuple[Place, str]) -> Entry:
        """Make the shard on one torch thread: the scheduler hands each thread of a worker a shard of its own."""
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        place, digest = job
        return map_shard(self.plan, self.target, place, digest)


def _pipelined(plan: MapPlan, target: Path, due: Sequence[Place], digests: Digests, workers: int) -> Iterator[Entry]:
    """Entries in the order of `due`: one thread reads ahead, `workers` compute, one writes."""
    waiting = iter(due)
    flying: deque[tuple[Place, Future[Bytes | str]]] = deque()
    writing: deque[Future[Entry]] = deque()
    with _pool(workers) as pool, ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:

        def start(count: int) -> None:
            for place in islice(waiting, count):
                found = reader.submit(plan.gather, *shard_window(plan, place))
                flying.append((place, pool.submit(_computed, plan, found)))

        try:
            start(workers + 1)
            while flying:
                place, future = flying.popleft()
                made = future.result()
                start(1)
                writing.append(writer.submit(_recorded, plan, target, place, digests[place], made))
                del made, future
                while len(writing) > _WRITES:
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            for _, late in flying:
                late.cancel()
            reader.shutdown(wait=True, cancel_futures=True)


def _computed(plan: MapPlan, found: Future[Gathered]) -> Bytes | str:
    """The stack of what is being read, or why this shard alone cannot be made."""
    try:
        return plan.compute(found.result())
    except MdicoError as error:
        plan.check_models()
        return str(error)


def _recorded(plan: MapPlan, target: Path, place: Place, digest: str, made: Bytes | str) -> Entry:
    if isinstance(made, str):
        return record_failure(target, place, digest, made)
    return write_shard(plan, target, place, digest, made)


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Worker threads that together use no more torch threads than there are cores; the caller's count comes back."""
    before, share = torch.get_num_threads(), max(1, processors() // workers)
    try:
        with ThreadPoolExecutor(workers, "map", initializer=torch.set_num_threads, initargs=(share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
