"""Windows in, Batch out: a map-style dataset and the loader of the trainer; no Dask between disk and trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mdico_cube.batch import UNLABELLED as UNLABELLED_TARGET
from mdico_cube.batch import Batch
from mdico_cube.cube.memory import MEMORY
from mdico_cube.patches.ahead import PoolReading, ReadAhead
from mdico_cube.patches.augment import Augment
from mdico_cube.patches.order import Pool, epoch_pools
from mdico_cube.patches.sources import WindowSource
from mdico_cube.patches.splits import Ints
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, Storage

BUFFER = 64
"""Megabytes of physical values held at one time for shuffling."""
DECODED = 128 << 20
"""Bytes of chunks that are decoded for one pool, about: what the first batch has to wait for."""
_TASK = 8 << 20
"""Bytes of physical values, or of chunks to decode, that are worth a task of their own."""
_MOST = 65536  # windows of a pool, however small they are
_SLAB = 1 << 17  # values of small windows unpacked at one time: they stay in the processor's cache
_SHARES = 2  # tasks of a pool for each thread, so that none waits long for the others
_LARGE = 1 << 12  # values from which a window is unpacked by itself


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
        reading = self.reading(index)
        for task in reading.tasks:
            task()
        return reading.finish()

    def __getitems__(self, index: list[int]) -> Batch:
        """The windows at these indices as one Batch."""
        return self[Pool(np.asarray(index, dtype=np.int64), (0, len(index)), None)]

    def reading(self, pool: Pool, most: int = 1) -> PoolReading:
        """How a pool is read: by so many tasks at most, which threads may do side by side, each with its own chunks."""
        source, index = self.source, pool.index
        images = {name: _empty((len(index), *shape), np.float32) for name, shape in source.shapes.items()}
        valid = {n: _empty((len(index), t, h, w), np.bool_) for n, (t, _, h, w) in source.shapes.items()}

        def read(places: Ints) -> None:
            for within, values in source.parts(index[places]):
                for name, stored in values.items():
                    out, mask = images[name].numpy(), valid[name].numpy()
                    _unpack(source.modalities[name].storage, stored, places[within], out, mask)

        def finish() -> Batch:
            batch = Batch(images, valid, None if source.target is None else _target(source.target[index]))
            if self.augment is None or pool.seed is None:
                return batch
            return self.augment(batch, np.random.default_rng([*pool.seed, 1]))

        group, decoded = source.group[index], source.group_bytes
        decoded *= len(np.unique(group)) if decoded else 0
        parts = _shares(group, min(most, max(decoded, len(index) * _window_bytes(source)) // _TASK))
        return PoolReading([partial(read, part) for part in parts], finish)


def _shares(group: Ints, parts: int) -> list[Ints]:
    """Positions parted into so many shares of about equal length, or fewer: no group stands in two."""
    order = np.argsort(group, kind="stable")
    if parts < 2:
        return [np.arange(len(group))]
    new = np.flatnonzero(np.diff(group[order])) + 1
    wanted = np.arange(1, parts) * len(group) // parts
    cuts = np.unique(new[np.minimum(np.searchsorted(new, wanted), new.size - 1)]) if new.size else new
    return np.split(order, cuts)


def _unpack(storage: Storage, stored: Array, places: Ints, out: Array, mask: Array) -> None:
    """Large windows one by one, straight into their place; small ones many at a time."""
    size = max(1, prod(stored.shape[1:]))
    if size >= _LARGE:
        for here, values in zip(places.tolist(), stored, strict=True):
            storage.fill(values, out[here], mask[here])
        return
    step = max(1, _SLAB // size)
    for start in range(0, len(places), step):
        few = places[start : start + step]
        slab = stored[start : start + step]
        values, seen = np.empty(slab.shape, np.float32), np.empty((*slab.shape[:2], *slab.shape[3:]), np.bool_)
        storage.fill(slab, values, seen)
        out[few], mask[few] = values, seen


def _empty(shape: tuple[int, ...], kind: type[np.generic]) -> Tensor:
    """A tensor to be filled, in memory that goes round: the trainer drops a batch, a later one takes its place."""
    return torch.from_numpy(MEMORY.empty(shape, kind))


def _target(target: Array) -> Tensor:
    """Stored class index (N, h, w) to int64 with -1 = unlabelled; values as they are."""
    if target.dtype.kind == "f":
        return torch.from_numpy(target.astype(np.float32))
    return torch.from_numpy(np.where(target == UNLABELLED, UNLABELLED_TARGET, target.astype(np.int64)))


@dataclass(slots=True)
class EpochOrder:
    """What is read together in each epoch; see `epoch_pools`."""

    group: Ints
    """(N,) number of the chunk that each window is read with."""
    batch: int
    """Windows of one batch, at most."""
    buffer: int
    """Windows of a pool, about."""
    seed: int | None
    chunks: int | None
    """Chunks that a pool's windows lie in, about and at most; None = any number."""

    def pools(self, epoch: int) -> list[Pool]:
        """The pools of an epoch."""
        return epoch_pools(self.group, self.batch, self.buffer, self.seed, epoch, self.chunks)


class WindowLoader:
    """Batches of a source, read ahead by threads of this process; the same for any number of them.

    Threads, not processes: what takes time in a window (reading, decompressing, unpacking) runs without the
    interpreter's lock, and a batch that was made in this process need not be handed over.
    """

    def __init__(
        self,
        source: WindowSource,
        batch: int,
        seed: int | None = None,
        workers: int = 1,
        buffer: int = BUFFER,
        augment: Augment | None = None,
    ) -> None:
        self.dataset = WindowDataset(source, augment)
        held, chunks = min(_MOST, (buffer << 20) // _window_bytes(source)), None
        if source.group_bytes:
            chunks = max(1, DECODED // source.group_bytes)
        self.order = EpochOrder(source.group, batch, held, seed, chunks)
        self._epoch, self._named = 0, False
        self._ahead = ReadAhead(partial(self.dataset.reading, most=_SHARES * workers), self.order.pools, workers)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.order.batch)

    def __iter__(self) -> Iterator[Batch]:
        follows = self._named and self.order.seed is not None
        for pool, whole in self._ahead.epoch(self._epoch, follows):
            for start, stop in zip(pool.cuts[:-1], pool.cuts[1:], strict=True):
                yield whole.rows(start, stop)

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins; from then on each is begun while the one before it still trains."""
        self._epoch, self._named = epoch, True

    def begin(self, epoch: int) -> None:
        """The trainer says which epoch comes first, so that it is read while the model is made."""
        self._ahead.begin(epoch)


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

    def begin(self, epoch: int) -> None:
        """The trainer says which epoch comes first."""
        self.labelled.begin(epoch)
        self.unlabelled.begin(epoch)


def make_loader(
    source: WindowSource,
    batch: int,
    shuffle_seed: int | None = None,
    workers: int = 1,
    buffer: int = BUFFER,
    augment: Augment | None = None,
) -> WindowLoader:
    """Batches of a source: shuffled by seed and epoch for training, in order for validation.

    Args:
        source: where the windows come from.
        batch: windows of one batch, at most.
        shuffle_seed: of the order and the augmentation; None for validation.
        workers: how many read at the same time.
        buffer: megabytes of physical values held at one time for shuffling.
        augment: what happens to training batches.
    """
    return WindowLoader(source, batch, shuffle_seed, workers, buffer, augment)


def _window_bytes(source: WindowSource) -> int:
    return max(1, sum(4 * prod(shape) for shape in source.shapes.values()))
