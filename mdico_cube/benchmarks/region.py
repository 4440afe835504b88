"""A samples store of pixel series in, one table of series with who trains, who is scored and who has no label out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdico_cube.benchmarks.folds import Rows
from mdico_cube.benchmarks.pixel_series import PixelSeries, digest_of
from mdico_cube.errors import MdicoError
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import StoredWindows, gather
from mdico_cube.patches.splits import POOL, TEST, TRAIN, VALIDATION
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array


@dataclass(frozen=True)
class Division:
    """Row numbers of one table of series."""

    train: Rows
    test: Rows
    pool: Rows
    """Rows without label, away from held-out ground; empty where there are none."""


def region_series(samples: Path, modalities: Sequence[str] | None = None) -> tuple[PixelSeries, Division]:
    """The windows of a samples store as series; training and validation blocks train, held-out blocks are scored.

    Labels of the pool are not read.

    Raises:
        MdicoError: no samples, windows of more than one pixel, or a modality that was not sampled.
    """
    store = open_samples(samples)
    if store.side != 1:
        raise MdicoError(
            f"{samples}: holds windows of {store.side} pixels, a table needs series. Set samples.patch: 1."
        )
    names = tuple(modalities or store.inputs)
    unknown = [name for name in names if name not in store.inputs]
    if unknown:
        raise MdicoError(f"{samples}: has no {', '.join(unknown)}. It holds: {', '.join(store.inputs)}.")
    folds = (TRAIN, VALIDATION, TEST, POOL)
    rows = store.where(*folds)
    source = StoredWindows(store, folds, names)
    stored = gather(source, np.arange(len(source)))
    values, valid = {}, {}
    for name in names:
        physical, seen = store.inputs[name].modality.storage.unpack(stored[name][..., 0, 0])  # (N, T, C)
        valid[name] = np.asarray(seen.all(axis=2))
        values[name] = np.where(valid[name][:, :, None], physical, 0).astype(np.float32)
    fold = store.fold[rows]
    target = np.where(fold == POOL, -1, _centre(source.target))
    labelled = target >= 0

    def chosen(*wanted: int) -> Rows:
        return np.flatnonzero(np.isin(fold, wanted) & (labelled | (fold == POOL))).astype(np.int64)

    series = PixelSeries(
        samples.stem,
        values,
        valid,
        {name: store.inputs[name].steps for name in names},
        target,
        tuple(entry.name for entry in store.legend),
        np.asarray(store.column("block"))[rows].astype(np.int64),
        digest_of([*(stored[name] for name in names), target]),
    )
    return series, Division(chosen(TRAIN, VALIDATION), chosen(TEST), chosen(POOL))


def _centre(target: Array | None) -> Rows:
    """(N,) class index of windows of one pixel, -1 = unlabelled."""
    assert target is not None
    found = target[:, 0, 0].astype(np.int64)
    return np.where(found == UNLABELLED, -1, found)
