"""A cube's labels in, a table of what is labelled where out: pixels per parcel, block and class, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.cube.grid import Shard, shards
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.waves import in_waves

_LABELS = 1 << 8  # class indices 0..254 and one for "in a parcel, but unlabelled"


@dataclass(frozen=True, slots=True)
class Tally:
    """Pixels by parcel, block and class; each triple stands once, in ascending order."""

    parcel: Ints
    """(N,) parcel number, 0 = none."""
    block: Ints
    """(N,) block number, row by row from the upper left."""
    label: Ints
    """(N,) class index, -1 = unlabelled (inside a parcel only)."""
    pixels: Ints
    """(N,) how many."""

    def counts(self, unit: Ints, units: int, classes: int) -> Ints:
        """Labelled pixels per unit and class (units, classes), when row i of the table counts to unit[i], -1 = none."""
        counts = np.zeros((units, classes), dtype=np.int64)
        kept = (self.label >= 0) & (unit >= 0)
        np.add.at(counts, (unit[kept], self.label[kept]), self.pixels[kept])
        return counts


def merge_tallies(parts: Iterable[Tally]) -> Tally:
    """One table of several: equal triples are added up."""
    listed = list(parts)
    parcel, block, label, pixels = (
        np.concatenate([getattr(part, name) for part in listed] or [np.empty(0, np.int64)])
        for name in ("parcel", "block", "label", "pixels")
    )
    order = np.lexsort((label, block, parcel))
    parcel, block, label, pixels = parcel[order], block[order], label[order], pixels[order]
    new = np.ones(parcel.size, dtype=bool)
    new[1:] = (np.diff(parcel) != 0) | (np.diff(block) != 0) | (np.diff(label) != 0)
    first = np.flatnonzero(new)
    return Tally(parcel[first], block[first], label[first], np.add.reduceat(pixels, first) if first.size else pixels)


def tally_block(
    label: npt.NDArray[np.int16], parcel: npt.NDArray[np.int32] | None, y: int, x: int, block: int, across: int
) -> Tally:
    """The table of one array of labels (h, w) whose first pixel lies at row y and column x of the grid.

    Args:
        label: class index, -1 = unlabelled.
        parcel: parcel number, 0 = none.
        y: first row.
        x: first column.
        block: side of a block.
        across: blocks side by side in the whole grid.
    """
    rows = (y + np.arange(label.shape[0])) // block
    columns = (x + np.arange(label.shape[1])) // block
    wide = int(columns[-1] - columns[0]) + 1  # blocks side by side in this array
    own = (rows - rows[0])[:, None] * wide + (columns - columns[0])[None, :]
    owner = np.zeros(label.shape, dtype=np.int64) if parcel is None else parcel.astype(np.int64)
    used = (label >= 0) | (owner > 0)
    blocks = int(own[-1, -1]) + 1
    key = (owner[used] * blocks + own[used]) * _LABELS + label[used] % _LABELS  # -1 becomes the last
    key, pixels = np.unique(key, return_counts=True)
    here = key // _LABELS % blocks
    number = (rows[0] + here // wide) * across + columns[0] + here % wide
    found = key % _LABELS
    return Tally(key // _LABELS // blocks, number, np.where(found == _LABELS - 1, -1, found), pixels.astype(np.int64))


def tally_cube(cube: Location, block: int) -> Tally:
    """The table of a cube's labels, gathered through Dask over its shards.

    Raises:
        MdicoError: the cube has no labels.
    """
    reader = open_reader(cube)
    across = -(-reader.shape[1] // block)
    jobs = [(cube, shard, block, across) for shard in shards(reader.shape, reader.shard)]
    total, waiting = merge_tallies(()), list[Tally]()
    for part in in_waves(_tally_shard, jobs, "count labels"):
        waiting.append(part)
        if sum(each.parcel.size for each in waiting) > max(total.parcel.size, 1 << 20):
            total, waiting = merge_tallies([total, *waiting]), []
    return merge_tallies([total, *waiting])


def _tally_shard(cube: Location, shard: Shard, block: int, across: int) -> Tally:
    reader = open_reader(cube)
    label, parcel = reader.labels(shard.y, shard.x), reader.parcels(shard.y, shard.x)
    return tally_block(label, parcel, shard.y.start, shard.x.start, block, across)
