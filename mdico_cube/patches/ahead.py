"""Pools of one epoch after the other in, their batches out in order: read by threads, beyond the end of an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

from mdico_cube.batch import Batch
from mdico_cube.patches.order import Pool


@dataclass(frozen=True, slots=True)
class PoolReading:
    """What is to be done to read a pool."""

    tasks: Sequence[Callable[[], None]]
    """In any order, side by side."""
    finish: Callable[[], Batch]
    """After all of them."""


class ReadAhead:
    """The threads share the tasks of the pool that is wanted next, then those of the pools behind it.

    As many pools as there are threads, and one more, are ready or begun. An epoch is begun while the one before it
    still trains, so that its first batch need not be waited for.
    """

    def __init__(
        self, read: Callable[[Pool], PoolReading], pools: Callable[[int], Sequence[Pool]], workers: int
    ) -> None:
        """`read` says how a pool is read; `pools` names an epoch's."""
        self._read, self._pools, self._workers = read, pools, workers
        self._begun: tuple[int, _Reading] | None = None

    def begin(self, epoch: int, most: int | None = None) -> None:
        """Start reading an epoch that will be asked for, at most so many pools; another that was begun is forgotten."""
        reading = self._taken(epoch)
        self._begun = epoch, reading
        reading.go_on(self._workers + 1 if most is None else most)

    def epoch(self, number: int, follows: bool) -> Iterator[tuple[Pool, Batch]]:
        """The pools of an epoch and what they hold; `follows` says that the next epoch will be asked for."""
        reading, depth = self._taken(number), self._workers + 1
        try:
            while reading.go_on(depth):
                pool, batch = reading.next()
                under_way = reading.go_on(depth)
                if follows and under_way < depth:
                    self.begin(number + 1, depth - under_way)
                yield pool, batch
        finally:
            reading.close()

    def _taken(self, number: int) -> _Reading:
        """The epoch that was begun, if it is this one; a new one otherwise."""
        begun, self._begun = self._begun, None
        if begun is not None:
            if begun[0] == number:
                return begun[1]
            begun[1].close()
        return _Reading(self._read, self._pools(number), self._workers)

    def __getstate__(self) -> dict[str, Any]:
        """Another process starts its own threads: what was begun in this one stays here."""
        return {**self.__dict__, "_begun": None}


class _Reading:
    """One epoch and the threads that read it."""

    def __init__(self, read: Callable[[Pool], PoolReading], pools: Sequence[Pool], workers: int) -> None:
        self._read, self._left = read, deque(pools)
        self._ahead: deque[tuple[Pool, Future[Batch]]] = deque()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="windows")

    def go_on(self, most: int) -> int:
        """Begin pools until so many are under way or ready; how many are."""
        while self._left and len(self._ahead) < most:
            pool = self._left.popleft()
            self._ahead.append((pool, _submitted(self._threads, self._read(pool))))
        return len(self._ahead)

    def next(self) -> tuple[Pool, Batch]:
        """The next pool, waited for."""
        pool, batch = self._ahead.popleft()
        return pool, batch.result()

    def close(self) -> None:
        """End the threads and forget what they have read."""
        self._threads.shutdown(cancel_futures=True)
        self._ahead.clear()


def _submitted(threads: ThreadPoolExecutor, reading: PoolReading) -> Future[Batch]:
    """The batch of a pool to come; the thread that does its last task finishes it. The first fault is its outcome."""
    batch: Future[Batch] = Future()
    left, lock = [len(reading.tasks)], Lock()

    def do(task: Callable[[], None]) -> None:
        try:
            if not batch.done():
                task()
            with lock:
                left[0] -= 1
                last = not left[0]
            if last and not batch.done():
                batch.set_result(reading.finish())
        except BaseException as error:
            with lock:
                if not batch.done():
                    batch.set_exception(error)

    for task in reading.tasks:
        threads.submit(partial(do, task))
    return batch
