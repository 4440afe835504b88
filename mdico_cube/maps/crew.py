"""A map's plan and the shards that are due in, their entries as they are made out: in threads or on Dask workers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from mdico_cube.cube.clusters import processors
from mdico_cube.cube.execute import crew_for, execute
from mdico_cube.cube.ledger import Entry
from mdico_cube.errors import MdicoError
from mdico_cube.maps.gathered import Gathered
from mdico_cube.maps.mapstore import Place, map_shard, record_failure, shard_window, write_shard
from mdico_cube.maps.origin import Digests
from mdico_cube.maps.outputs import Bytes
from mdico_cube.maps.plan import Known, MapPlan
from mdico_cube.recipe import ClusterSection

_WRITES = 2  # shards that wait to be written
_CARD_READERS = 4  # threads that read for a card, which computes faster than one of them reads


def make_shards(
    plan: MapPlan, target: Path, due: Sequence[Place], digests: Digests, cluster: ClusterSection
) -> Iterator[Entry]:
    """Make the shards that are due, a few at a time; their entries as they are finished.

    In this process (kinds auto, loop and threads) the next shard is read and the last one written while others are
    computed; a card takes one shard after the other. On Dask a task carries paths and options, each worker process
    loads the bundles once, and a worker thread computes on one torch thread; with cards there is one process for each,
    and tasks go to workers that have the resource GPU.

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
    many = plan.device == "cuda" and cluster.kind == "auto" and len(cards_here()) > 1
    if in_process(cluster) and not many:
        ordered = [place for group in groups(plan, due) for place in group]
        workers = 1 if plan.device != "cpu" else workers_of(cluster, len(due))
        yield from _pipelined(plan, target, ordered, digests, workers)
        return
    jobs = ([(place, str(digests[place])) for place in group] for group in groups(plan, due))
    card = plan.device != "cpu"
    section = cluster.model_copy(update={"kind": "local"}) if many else cluster
    with crew_for(section, cards_here(plan.device) if card else None) as crew:
        each = replace(plan, device="cuda") if card else plan  # a worker sees one card
        for _, entries in execute(crew, MakeShards(each, target), jobs):
            yield from entries


def groups(plan: MapPlan, due: Sequence[Place]) -> list[list[Place]]:
    """The shards, by squares of neighbours where these share windows, else one by one.

    A job is one such square: a window that several of its shards touch is computed once.
    """
    if not plan.reach:
        return [[place] for place in due]
    side = next((side for side in (4, 2) if len(due) >= 4 * side * side), 1)
    found: dict[Place, list[Place]] = {}
    for row, column in sorted(due):
        found.setdefault((row // side, column // side), []).append((row, column))
    return [found[square] for square in sorted(found)]


def cards_here(device: str = "cuda") -> tuple[str, ...]:
    """The cards of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them; of "cuda:1" that one."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    given = map(str, range(torch.cuda.device_count())) if named is None else named.split(",")
    cards = tuple(card.strip() for card in given if card.strip())
    _, one, number = device.partition(":")
    return cards[int(number) : int(number) + 1] if one else cards


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
class MakeShards:
    """What a Dask worker does with one job: some (place, digest)."""

    plan: MapPlan
    target: Path

    def __call__(self, job: Sequence[tuple[Place, str]]) -> list[Entry]:
        """Make the shards on one torch thread: the scheduler hands each thread of a worker shards of its own."""
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        known = self.plan.keep_windows()
        return [map_shard(self.plan, self.target, place, digest, known) for place, digest in job]


def _pipelined(plan: MapPlan, target: Path, due: Sequence[Place], digests: Digests, workers: int) -> Iterator[Entry]:
    """Entries in the order of `due`: one thread reads ahead (several for a card), `workers` compute, one writes."""
    waiting, known = iter(due), plan.keep_windows()
    ahead = 1 if plan.device == "cpu" else min(_CARD_READERS, processors())
    flying: deque[tuple[Place, Future[Bytes | str]]] = deque()
    writing: deque[Future[Entry]] = deque()
    with _pool(workers) as pool, ThreadPoolExecutor(ahead, "read") as reader, ThreadPoolExecutor(1, "write") as writer:

        def start(count: int) -> None:
            for place in islice(waiting, count):
                found = reader.submit(plan.gather, *shard_window(plan, place))
                flying.append((place, pool.submit(_computed, plan, found, known)))

        try:
            start(workers + ahead)
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


def _computed(plan: MapPlan, found: Future[Gathered], known: Known) -> Bytes | str:
    """The stack of what is being read, or why this shard alone cannot be made."""
    try:
        return plan.compute(found.result(), known)
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
