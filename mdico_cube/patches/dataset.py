"""Windows in, Batch out: a map-style dataset and the loader of the trainer; no Dask between disk and trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mdico_cube.batch import UNLABELLED as UNLABELLED_TARGET
from mdico_cube.batch import Batch
from mdico_cube.cube.memory import MEMORY
from mdico_cube.patches.ahead import ReadAhead
from mdico_cube.patches.augment import Augment
from mdico_cube.patches.order import Pool, epoch_pools
from mdico_cube.patches.sources import Part, WindowSource
from mdico_cube.patches.splits import Ints
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, Modality, Storage

BUFFER = 64
"""Megabytes of physical values held at one time for shuffling."""
_MOST = 65536  # windows of a pool, however small they are
_SLAB = 1 << 17  # values of small windows unpacked at one time: they stay in the processor's cache
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
    images = {name: _empty((count, *shape), np.float32) for name, shape in shapes.items()}
    valid = {name: _empty((count, t, h, w), np.bool_) for name, (t, _, h, w) in shapes.items()}
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


def _empty(shape: tuple[int, ...], kind: type[np.generic]) -> Tensor:
    """A tensor to be filled, in memory that goes round: the trainer drops a batch, a later one takes its place."""
    return torch.from_numpy(MEMORY.empty(shape, kind))


def _classes(target: Array) -> Tensor:
    """Stored class index (N, h, w) to int64 with -1 = unlabelled."""
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

    def pools(self, epoch: int) -> list[Pool]:
        """The pools of an epoch."""
        return epoch_pools(self.group, self.batch, self.buffer, self.seed, epoch)


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
        self.order = EpochOrder(source.group, batch, min(_MOST, (buffer << 20) // _window_bytes(source)), seed)
        self._epoch, self._named = 0, False
        self._ahead = ReadAhead(self.dataset.__getitem__, self.order.pools, workers)

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
