"""Windows in, Batch out: from the samples store, or straight from the cube; no Dask between disk and trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mdico_cube.batch import UNLABELLED as UNLABELLED_TARGET
from mdico_cube.batch import Batch
from mdico_cube.patches.extract import cut_group, group_windows
from mdico_cube.patches.samples import SampleStore
from mdico_cube.patches.windows import Ints, Windows
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, Modality


class WindowSource(Protocol):
    """Where stored windows come from."""

    modalities: dict[str, Modality]

    def __len__(self) -> int:
        """How many windows there are."""

    def gather(self, index: Ints) -> tuple[dict[str, Array], Array | None]:
        """Stored values (N, T, C, h, w) per modality and the stored target (N, h, w) of these windows, in order."""


class StoredWindows:
    """Windows of a samples store, held in memory as they are stored (2 bytes a value)."""

    def __init__(self, store: SampleStore, folds: Sequence[int], modalities: Sequence[str]) -> None:
        rows = store.where(*folds)
        self.modalities = {name: store.inputs[name].modality for name in modalities}
        self._values = {name: np.asarray(store.array(name).oindex[rows]) for name in modalities}
        self._target = np.asarray(store.array("target").oindex[rows])

    def __len__(self) -> int:
        return len(self._target)

    def gather(self, index: Ints) -> tuple[dict[str, Array], Array | None]:
        """See WindowSource."""
        return {name: values[index] for name, values in self._values.items()}, self._target[index]


@dataclass(frozen=True)
class CubeWindows:
    """Windows read from the cube when they are needed; each chunk is decoded once per call."""

    cube: Path
    windows: Windows
    modalities: dict[str, Modality]
    chunk: int
    target: Array | None = None
    """(N, side, side) stored class index, 255 = unlabelled."""

    def __len__(self) -> int:
        return len(self.windows)

    def gather(self, index: Ints) -> tuple[dict[str, Array], Array | None]:
        """See WindowSource."""
        chosen = self.windows.take(index)
        out: dict[str, Array] = {}
        for group in group_windows(chosen, self.chunk):
            y, x = chosen.y[group.index], chosen.x[group.index]
            for name, part in cut_group(self.cube, group, y, x, chosen.side, tuple(self.modalities)).items():
                if name not in out:
                    out[name] = np.empty((len(index), *part.shape[1:]), dtype=part.dtype)
                out[name][group.index] = part
        return out, None if self.target is None else self.target[index]


class WindowDataset(Dataset[Batch]):
    """Map-style dataset whose item is a whole Batch: torch hands it a list of indices."""

    def __init__(self, source: WindowSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, index: list[int]) -> Batch:
        """The windows at these indices as one Batch."""
        stored, target = self.source.gather(np.asarray(index, dtype=np.int64))
        return to_batch(stored, target, self.source.modalities)


def to_batch(stored: dict[str, Array], target: Array | None, modalities: dict[str, Modality]) -> Batch:
    """Stored windows (N, T, C, h, w) to physical values with masks, and the target with -1 = unlabelled."""
    images, valid = {}, {}
    for name, values in stored.items():
        physical, observed = modalities[name].storage.unpack(values)
        images[name] = torch.from_numpy(physical)
        valid[name] = torch.from_numpy(observed.all(axis=2))  # (N, T, h, w)
    if target is None:
        return Batch(images, valid)
    known = np.where(target == UNLABELLED, UNLABELLED_TARGET, target.astype(np.int64))
    return Batch(images, valid, torch.from_numpy(known))


class EpochShuffle(Sampler[int]):
    """Every index once, in an order that depends on seed and epoch alone, so a resumed run sees the same batches."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        return iter(generator.permutation(self.size).tolist())


def make_loader(source: WindowSource, batch: int, shuffle_seed: int | None = None) -> DataLoader[Batch]:
    """Batches of a source: shuffled by seed and epoch for training, in order for validation.

    In training a last batch that is not full is dropped, since batch normalisation needs company.
    """
    dataset = WindowDataset(source)
    train = shuffle_seed is not None
    sampler = EpochShuffle(len(dataset), shuffle_seed) if shuffle_seed is not None else None
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        drop_last=train and len(dataset) >= batch,
        collate_fn=_as_is,
    )


def _as_is(batch: Any) -> Batch:
    assert isinstance(batch, Batch)
    return batch
