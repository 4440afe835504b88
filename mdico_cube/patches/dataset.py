"""Windows in, Batch out: a map-style dataset and the loader of the trainer; no Dask between disk and trainer."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mdico_cube.batch import UNLABELLED as UNLABELLED_TARGET
from mdico_cube.batch import Batch
from mdico_cube.errors import MdicoError
from mdico_cube.patches.augment import Augment
from mdico_cube.patches.order import Pool, epoch_pools
from mdico_cube.patches.sources import Part, WindowSource
from mdico_cube.patches.splits import Ints
from mdico_cube.progress import say
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, Modality, Storage

BUFFER = 64
"""Megabytes of physical values held at one time for shuffling."""
_MOST = 65536  # windows of a pool, however small they are
_SLAB = 1 << 17  # values of small windows unpacked at one time: they stay in the processor's cache
_LARGE = 1 << 12  # values from which a window is unpacked by itself
_NUMPY = {torch.float32: np.float32, torch.bool: np.bool_}


class WindowDataset(Dataset[Batch]):
    """Map-style: an item is a whole Batch, of one window, of a list of windows, or of a pool."""

    def __init__(self, source: WindowSource, augment: Augment | None = None) -> None:
        self.source = source
        self.augment = augment

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int | Pool) -> Batch:
        if not isinstance(index, Pool):
            return self.__getitems__([index])
        batch = self._read(index.index)
        if self.augment is None or index.seed is None:
            return batch
        return self.augment(batch, np.random.default_rng([*index.seed, 1]))

    def __getitems__(self, index: list[int]) -> Batch:
        """The windows at these indices as one Batch."""
        return self._read(np.asarray(index, dtype=np.int64))

    def _read(self, index: Ints) -> Batch:
        source = self.source
        images, valid = unpack_parts(source.parts(index), len(index), source.modalities, source.shapes)
        return Batch(images, valid, None if source.target is None else _classes(source.target[index]))


def unpack_parts(
    parts: Iterator[Part], count: int, modalities: dict[str, Modality], shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stored windows, part by part, to physical values (N, T, C, h, w) and masks (N, T, h, w), True = observed."""
    images = {name: _empty((count, *shape), torch.float32) for name, shape in shapes.items()}
    valid = {name: _empty((count, t, h, w), torch.bool) for name, (t, _, h, w) in shapes.items()}
    for places, values in parts:
        for name, stored in values.items():
            out, mask = images[name].numpy(), valid[name].numpy()
            _unpack(modalities[name].storage, stored, places, out, mask)
    return images, valid


def _unpack(storage: Storage, stored: Array, places: Ints, out: Array, mask: Array) -> None:
    """Large windows one by one, straight into their place; small ones many at a time."""
    size = max(1, prod(stored.shape[1:]))
    if size >= _LARGE:
        for here, values in zip(places.tolist(), stored, strict=True):
            _, observed = storage.unpack(values, out[here])
            np.logical_and.reduce(observed, axis=1, out=mask[here])  # (T, h, w)
        return
    step = max(1, _SLAB // size)
    for start in range(0, len(places), step):
        few = places[start : start + step]
        out[few], observed = storage.unpack(stored[start : start + step])
        mask[few] = np.logical_and.reduce(observed, axis=2)  # (n, T, h, w)


def _empty(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """A tensor to be filled.

    In a worker process it lies in shared memory at once, so that handing it over copies nothing. Elsewhere numpy makes
    it: it asks for huge pages, which are filled several times as fast as torch's.
    """
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, dtype=_NUMPY[kind]))
    storage = torch.UntypedStorage._new_shared(prod(shape) * kind.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=kind).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]


def _classes(target: Array) -> Tensor:
    """Stored class index (N, h, w) to int64 with -1 = unlabelled."""
    return torch.from_numpy(np.where(target == UNLABELLED, UNLABELLED_TARGET, target.astype(np.int64)))


class EpochOrder(Sampler[Pool]):
    """The pools of the epoch that the trainer names."""

    def __init__(self, group: Ints, batch: int, buffer: int, seed: int | None) -> None:
        self.group, self.batch, self.buffer, self.seed, self.epoch = group, batch, buffer, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(epoch_pools(self.group, self.batch, self.buffer, self.seed, self.epoch))

    def __iter__(self) -> Iterator[Pool]:
        return iter(epoch_pools(self.group, self.batch, self.buffer, self.seed, self.epoch))


class WindowLoader:
    """Batches of a source, read ahead: by threads of this process, or by persistent worker processes.

    The batches are the same for any number of workers of either kind.
    """

    def __init__(
        self,
        source: WindowSource,
        batch: int,
        seed: int | None = None,
        workers: int = 1,
        buffer: int = BUFFER,
        augment: Augment | None = None,
        processes: bool = False,
    ) -> None:
        self.dataset = WindowDataset(source, augment)
        self.workers, self.processes = workers, processes
        held = min(_MOST, (buffer << 20) // _window_bytes(source))
        self.order = EpochOrder(source.group, batch, held, seed)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.order.batch)

    def __iter__(self) -> Iterator[Batch]:
        pools = self._by_processes() if self.processes and can_fork() else self._by_threads()
        for pool, whole in zip(self.order, pools, strict=True):
            for start, stop in zip(pool.cuts[:-1], pool.cuts[1:], strict=True):
                yield whole.rows(start, stop)

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.order.set_epoch(epoch)

    def _by_processes(self) -> Iterator[Batch]:
        for found in self._forked:
            if isinstance(found, MdicoError):
                raise found
            yield found

    def _by_threads(self) -> Iterator[Batch]:
        """Every thread has one pool in work, and one more is ready or begun."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="windows") as threads:
            ahead: deque[Future[Batch]] = deque()
            try:
                for pool in self.order:
                    ahead.append(threads.submit(self.dataset.__getitem__, pool))
                    if len(ahead) > self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for late in ahead:
                    late.cancel()

    @cached_property
    def _forked(self) -> DataLoader[Batch | MdicoError]:
        return DataLoader(
            _Told(self.dataset),
            batch_size=None,
            sampler=self.order,
            num_workers=self.workers,
            persistent_workers=True,
            prefetch_factor=2,
            collate_fn=_as_is,
            generator=torch.Generator(),  # its own, so that workers leave the trainer's random numbers alone
        )


def can_fork() -> bool:
    """False where this process has used tensorstore, whose threads bear no fork: worker processes would die."""
    if "tensorstore" not in sys.modules:
        return True
    say("loader: this process has used tensorstore, so threads read instead of processes")
    return False


class WithUnlabelled:
    """Batches of labelled windows, each followed by the next unlabelled ones; an epoch ends with the labelled."""

    def __init__(self, labelled: WindowLoader, unlabelled: WindowLoader) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled

    @property
    def dataset(self) -> WindowDataset:
        """The labelled windows."""
        return self.labelled.dataset

    def __len__(self) -> int:
        return len(self.labelled)

    def __iter__(self) -> Iterator[Batch]:
        more: Iterator[Batch] = iter(())
        for batch in self.labelled:
            extra = next(more, None)
            if extra is None:
                more = iter(self.unlabelled)
                extra = next(more)
            yield batch.joined(extra)

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.labelled.set_epoch(epoch)
        self.unlabelled.set_epoch(epoch)


class _Told(Dataset["Batch | MdicoError"]):
    """A dataset whose faults cross the border of a process as they are, one sentence each."""

    def __init__(self, dataset: WindowDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Pool) -> Batch | MdicoError:
        try:
            return self.dataset[index]
        except MdicoError as error:
            return error


def make_loader(
    source: WindowSource,
    batch: int,
    shuffle_seed: int | None = None,
    workers: int = 1,
    buffer: int = BUFFER,
    augment: Augment | None = None,
    processes: bool = False,
) -> WindowLoader:
    """Batches of a source: shuffled by seed and epoch for training, in order for validation.

    Args:
        source: where the windows come from.
        batch: windows of one batch, at most.
        shuffle_seed: of the order and the augmentation; None for validation.
        workers: how many read at the same time.
        buffer: megabytes of physical values held at one time for shuffling.
        augment: what happens to training batches.
        processes: the workers are processes instead of threads.
    """
    return WindowLoader(source, batch, shuffle_seed, workers, buffer, augment, processes)


def _window_bytes(source: WindowSource) -> int:
    return max(1, sum(4 * prod(shape) for shape in source.shapes.values()))


def _as_is(found: Any) -> Any:
    return found
