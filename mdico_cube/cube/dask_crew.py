"""A Dask client in, a crew out that never holds more than a few tasks per worker on the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from mdico_cube.errors import MdicoError
from mdico_cube.progress import say, span

GPU = "GPU"
"""Name of the resource that a worker with a card has."""
MOST = 2000
"""Tasks on the scheduler at once, however many workers there are."""
_AHEAD = 2  # tasks per worker thread: one at work, one waiting for it
_GRACE = 10.0  # seconds a scheduler may be away before it counts as lost
_SILENCE = 30.0  # seconds without any worker before the person watching is told; then four times as long, and so on


class DaskCrew:
    """Jobs on the workers of a Dask cluster, one task each."""

    here = False

    def __init__(self, client: Any, card: bool = False) -> None:
        """Tasks that need a `card` go to workers with the resource GPU, one at a time for each that a worker has.

        Raises:
            MdicoError: there are workers, but none has that resource.
        """
        self._client, self._card = client, card
        self._futures: dict[str, tuple[Any, Any]] = {}
        self._done: SimpleQueue[str] = SimpleQueue()
        self._threads, self._counted, self._away = 0, -1.0, 0.0
        self._alone, self._patience = 0.0, _SILENCE
        distributed = import_module("distributed")
        self._killed: type[Exception] = distributed.KilledWorker
        self._gone: tuple[type[BaseException], ...] = (
            distributed.CancelledError,
            import_module("distributed.comm").CommClosedError,
            distributed.TimeoutError,
        )

    def room(self, flying: int) -> bool:
        """True while the workers that are there now have fewer than two tasks per thread."""
        self._count()
        return flying < min(MOST, max(_AHEAD, _AHEAD * self._threads))

    def _count(self) -> None:
        """Look how many workers are there, at most once a second."""
        now = time.monotonic()
        if now - self._counted > 1:
            self._counted = now
            try:
                workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
                self._threads = sum(int(_slots(worker, self._card)) for worker in workers)
                self._check_cards(workers)
            except (OSError, ValueError, KeyError):  # away for a moment; collect() decides when it is lost
                pass

    def submit(self, task: Callable[[Any], Any], job: Any) -> None:
        """One task."""
        needs = {"resources": {GPU: 1}} if self._card else {}
        future = self._client.submit(task, job, pure=False, **needs)
        self._futures[future.key] = (job, future)
        future.add_done_callback(lambda done: self._done.put(done.key))

    def collect(self, patience: float) -> tuple[Any, Any] | None:
        """The next finished job.

        Raises:
            MdicoError: the scheduler is lost, or a job killed its worker again and again.
        """
        try:
            key = self._done.get(timeout=patience)
        except Empty:
            self._check_alive()
            self._wonder()
            return None
        job, future = self._futures.pop(key)
        try:
            return job, future.result(timeout=_GRACE)
        except self._gone as error:
            raise self._lost() from error
        except self._killed as error:
            raise MdicoError(
                f"job {job}: the worker that does it dies again and again, most likely for want of memory. "
                "Give the workers more memory (cluster.memory) or make store.shard smaller; finished work is kept."
            ) from error

    def _check_cards(self, workers: Any) -> None:
        if self._card and len(workers) and not self._threads:
            raise MdicoError(
                f"cluster: none of its {len(workers)} workers has the resource {GPU}. Start one worker for each card, "
                f"`CUDA_VISIBLE_DEVICES=0 dask worker ADDRESS --nthreads 1 --resources {GPU}=1`, or use device cpu."
            )

    def drop(self) -> None:
        """Forget every task."""
        futures = [future for _, future in self._futures.values()]
        self._futures.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)

    def _check_alive(self) -> None:
        if self._client.status == "running":
            self._away = 0.0
            return
        now = time.monotonic()
        self._away = self._away or now
        if self._client.status == "closed" or now - self._away > _GRACE:
            raise self._lost()

    def _wonder(self) -> None:
        """Say so where no worker comes: they may stand in a queue for hours, or never come."""
        self._count()
        now = time.monotonic()
        if self._threads:
            self._alone, self._patience = 0.0, _SILENCE
            return
        self._alone = self._alone or now
        if now - self._alone > self._patience:
            say(
                f"the cluster has had no worker for {span(now - self._alone)}; waiting. Look at its queue and at the "
                "workers' logs. Ctrl-C loses nothing: go on with --resume."
            )
            self._patience *= 4

    def _lost(self) -> MdicoError:
        return MdicoError("the Dask scheduler is lost. What was finished is kept: go on with --resume.")


def _slots(worker: Any, card: bool) -> float:
    """Tasks that a worker does at once."""
    return worker["resources"].get(GPU, 0) if card else worker["nthreads"]  # type: ignore[no-any-return]
