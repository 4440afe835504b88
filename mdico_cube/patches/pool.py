"""A cube and its split in, windows without labels out: ground that no held-out block comes near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.cube.grid import Shard, shards
from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import POOL, TEST, VALIDATION, Ints, Split
from mdico_cube.patches.windows import Windows, box_sums, draw_keys, random_windows

_SPARE = (4, 64, 1 << 40)  # candidates for each window wanted; more where held-out ground leaves little
_PURPOSE = 5


@dataclass(slots=True)
class _Everywhere:
    """The cube's parcels, and every pixel counted as labelled: so the split tells where any ground belongs."""

    reader: CubeReader
    shape: tuple[int, int]

    def labels(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        return np.zeros((y.stop - y.start, x.stop - x.start), dtype=np.int16)

    def parcels(self, y: slice, x: slice) -> npt.NDArray[np.int32] | None:
        return self.reader.parcels(y, x)


def unlabelled_windows(reader: CubeReader, split: Split, count: int, side: int, seed: int) -> Windows:
    """`count` windows at random positions, fold POOL, label -1; their labels, if any, are never read.

    Law: no pixel of any lies in a block, parcel or other unit that is held out, nor within the guard distance of one,
    whether that ground is labelled or not. The same seed gives the same windows for any shards.

    Raises:
        MdicoError: the area holds too few such windows.
    """
    for spare in _SPARE:
        found = [
            _of_shard(reader, split, spare * count, side, seed, shard) for shard in shards(reader.shape, reader.shard)
        ]
        y, x = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if y.size >= count:
            break
    else:
        raise MdicoError(
            f"samples.unlabelled: asks for {count} windows, but only {y.size} lie away from held-out blocks. "
            "Ask for fewer, or hold out less."
        )
    chosen = np.argsort(draw_keys(seed, _PURPOSE, y, x), kind="stable")[:count]
    chosen = chosen[np.lexsort((x[chosen], y[chosen]))]
    fold = np.full(count, POOL, dtype=np.uint8)
    return Windows(y[chosen], x[chosen], fold, np.full(count, -1), side, np.zeros(count, dtype=np.int64))


def _of_shard(
    reader: CubeReader, split: Split, candidates: int, side: int, seed: int, shard: Shard
) -> tuple[Ints, Ints]:
    y, x = random_windows(reader.shape, side, candidates, 2 * seed + 1, shard.y, shard.x)
    if not y.size:
        return y, x
    wide_y, wide_x = slice(shard.y.start, shard.y.stop + side - 1), slice(shard.x.start, shard.x.stop + side - 1)
    raw, around_y, around_x = split.around(_Everywhere(reader, reader.shape), wide_y, wide_x, split.guard)
    top, left = y - around_y.start - split.guard, x - around_x.start - split.guard
    wide = side + 2 * split.guard
    free = box_sums(np.isin(raw, (VALIDATION, TEST)), top, left, wide, wide) == 0
    return y[free], x[free]
