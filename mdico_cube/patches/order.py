"""Windows and the chunks they lie in, the order of one epoch out: every window once, every chunk read about once.

Chunks are shuffled, their windows are dealt into pools, and each pool is shuffled in itself. A pool is what is read at
one time; its windows make several batches. The order depends on windows, seed and epoch alone: not on who reads, how
many do, or in which order they finish.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdico_cube.patches.splits import Ints


@dataclass(frozen=True, slots=True)
class Pool:
    """Windows that are read together and handed out as several batches."""

    index: Ints
    """(N,) window numbers, in the order in which they are handed out."""
    cuts: tuple[int, ...]
    """First window of each batch within the pool, and N."""
    seed: tuple[int, ...] | None
    """What augmentation draws from; None where nothing is drawn, as in validation."""


def epoch_pools(
    group: Ints, batch: int, buffer: int, seed: int | None, epoch: int = 0, chunks: int | None = None
) -> list[Pool]:
    """The pools of one epoch.

    In training all batches have the same size but for one window, so that none is too small for batch normalisation
    and none is dropped. In validation windows come in their own order and the last batch may be small.

    Laws: the pools hold every window exactly once; no batch is larger than `batch`.

    Args:
        group: (windows,) number of the chunk that each window is read with.
        batch: windows of one batch, at most.
        buffer: windows held at one time for shuffling; a pool has as many whole batches as fit in, at least one.
        seed: of the shuffle; None = no shuffle.
        epoch: counted from 0.
        chunks: a pool has windows of about so many chunks at most, but for those of one batch: where windows lie far
            apart, what is decoded for a pool is much more than what is held.
    """
    count = len(group)
    if count == 0:
        return []
    batches = -(-count // batch)
    borders = np.arange(batches + 1) * count // batches if seed is not None else np.arange(batches + 1) * batch
    borders = np.minimum(borders, count)
    order = np.arange(count) if seed is None else _by_chunks(group, np.random.default_rng([seed, epoch]))
    step = buffer // batch
    if chunks is not None:
        step = min(step, chunks * batches // len(np.unique(group)))
    step = max(1, step)
    pools = []
    for number, first in enumerate(range(0, batches, step)):
        cuts = borders[first : min(first + step, batches) + 1]
        index, key = order[cuts[0] : cuts[-1]], None
        if seed is not None:
            key = (seed, epoch, number)
            index = np.random.default_rng([*key, 0]).permutation(index)
        pools.append(Pool(index, tuple(int(cut - cuts[0]) for cut in cuts), key))
    return pools


def _by_chunks(group: Ints, generator: np.random.Generator) -> Ints:
    """Windows chunk by chunk, the chunks in random order, the windows of each chunk too."""
    chunks, member = np.unique(group, return_inverse=True)
    rank = generator.permutation(len(chunks))[member]
    return np.lexsort((generator.random(len(group)), rank)).astype(np.int64)
