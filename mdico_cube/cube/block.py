"""A block of whole shards in, written to an array and down to the disk; a part of a shard is refused: it would tear."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array


def write_shards(array: zarr.Array[Any], y: slice, x: slice, values: Array) -> None:
    """Write rows `y` and columns `x` of an array (..., y, x), every leading axis whole.

    A part of a shard is read, changed and written again by zarr, so two writers of one shard lose each other's pixels
    without a word. A shard written whole is one file put in place in one step.

    Raises:
        MdicoError: the block begins or ends within a shard, or the values have another shape or type than the block.
    """
    side, size = (array.shards or array.chunks)[-2:], array.shape[-2:]
    for axis, part, step, whole in zip("yx", (y, x), side, size, strict=True):
        begins, ends = part.start % step == 0, part.stop % step == 0 or part.stop == whole
        if not (begins and ends and 0 <= part.start < part.stop <= whole):
            raise MdicoError(
                f"{array.path}: {axis} {part.start} to {part.stop} is no block of whole shards of {step} pixels. "
                "Write whole shards only."
            )
    shape = (*array.shape[:-2], y.stop - y.start, x.stop - x.start)
    if values.shape != shape or values.dtype != array.dtype:
        raise MdicoError(
            f"{array.path}: {values.dtype} {values.shape} does not fill a block of {array.dtype} {shape}. "
            "Write every time step and band at once."
        )
    array[..., y, x] = values


def settle(array: zarr.Array[Any], y: slice | None = None, x: slice | None = None) -> None:
    """Wait until the files of rows `y` and columns `x` are on the disk, not in its cache: a power cut then spares them.

    Object stores and icechunk acknowledge a write only when it is kept; for them nothing is done.
    """
    store = array.store_path.store
    if not isinstance(store, LocalStore):
        return
    side = array.shards or array.chunks
    whole = [slice(0, size) for size in array.shape]
    block = [*whole[:-2], y or whole[-2], x or whole[-1]] if array.ndim > 1 else whole
    spans = (range(part.start // step, -(-part.stop // step)) for part, step in zip(block, side, strict=True))
    home = Path(store.root) / array.path
    files = [home / array.metadata.encode_chunk_key(place) for place in product(*spans)]
    written = [file for file in files if file.exists()]  # what is missing throughout has no file
    for path in (*written, *sorted({file.parent for file in written})):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
