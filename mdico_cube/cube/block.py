"""A block of whole shards in, written to an array; any other block is refused, as it would tear what others write."""

from __future__ import annotations

from typing import Any

import zarr

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
