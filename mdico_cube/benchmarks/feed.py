"""Series held in memory in, shuffled training batches out, each followed by unlabelled ones where there are any."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mdico_cube.batch import Batch


class SeriesLoader:
    """One pass is one epoch over chosen rows of a batch that holds them all; nothing is read or converted on the way.

    With shuffling all batches have the same size but for one row, so that none is too small for batch normalisation.
    The unlabelled rows are shuffled by themselves; `ratio` of them follow each labelled row, and they start again where
    they end.
    """

    def __init__(
        self, whole: Batch, rows: Tensor, size: int, shuffle: bool, pool: Tensor | None = None, ratio: float = 0.0
    ) -> None:
        self.whole = whole
        self.dataset = rows
        self.size = size
        self.shuffle = shuffle
        self.pool = rows[:0] if pool is None else pool
        self.ratio = ratio if len(self.pool) else 0.0
        self.generator = torch.Generator()
        """Seeded by the trainer when an epoch begins."""

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        rows = self._shuffled(self.dataset) if self.shuffle else self.dataset
        if not len(rows):
            return
        extras = self._extras()
        for part in rows.tensor_split(len(self)) if self.shuffle else torch.split(rows, self.size):
            more = next(extras)[: round(self.ratio * len(part))]
            yield self.whole.take(torch.cat([part, more]))

    def _extras(self) -> Iterator[Tensor]:
        """As many unlabelled rows as one batch can need, again and again; every row once before any comes twice."""
        need = round(self.ratio * self.size)
        left = self.pool[:0]
        while True:
            while len(left) < need:
                left = torch.cat([left, self._shuffled(self.pool)])
            yield left[:need]
            left = left[need:]

    def _shuffled(self, rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=self.generator)]
