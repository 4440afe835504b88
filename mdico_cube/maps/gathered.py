"""A cube's reader and a block in, what a map needs of each sensor there out: counts, masks, and what one count is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mdico_cube.cube.reader import CubeReader
from mdico_cube.spec import Array, Bools, Floats


class Input(NamedTuple):
    """One sensor's pixels: as they are stored, as counts take half the memory, or in physical units."""

    values: Array
    """(T, C, h, w); what stands where nothing was observed means nothing."""
    valid: Bools
    """(T, h, w) True = observed in every band."""
    scale: float = 1.0
    """Physical units per count of the values."""

    def cut(self, y: slice, x: slice) -> Input:
        """Rows and columns of it, without a copy."""
        return Input(self.values[..., y, x], self.valid[:, y, x], self.scale)

    def write(self, place: tuple[Any, ...], image: Floats, mask: Bools) -> None:
        """The physical values and the mask of a place (the last axes) into these arrays."""
        mask[...] = self.valid[(..., *place)]
        if self.values.dtype == np.float32:
            image[...] = self.values[(..., *place)]
        else:
            np.multiply(self.values[(..., *place)], np.float32(self.scale), out=image, dtype=np.float32)


def read_input(reader: CubeReader, modality: str, y: slice, x: slice, counts: bool = True) -> Input:
    """A block of one sensor.

    Args:
        reader: of the cube.
        modality: the sensor.
        y: rows.
        x: columns.
        counts: leave it as it is stored, to be unpacked batch by batch; else whoever reads unpacks it.

    Raises:
        MdicoError: it cannot be read.
    """
    storage = reader.modalities[modality].storage
    if storage.dtype == "float32" or not counts:
        return Input(*reader.read(modality, y, x))
    stored = reader.stored(modality, y, x)
    return Input(stored, storage.seen(stored), storage.scale)


@dataclass(frozen=True)
class Gathered:
    """What was read for one block: everything that `MapPlan.compute` needs beside the models."""

    y: slice
    x: slice
    wanted: Bools
    """(h, w) True = to be mapped."""
    corner: tuple[int, int] = (0, 0)
    """Row and column of the arrays' first pixel in the cube."""
    inputs: tuple[tuple[Input, ...], ...] = ()
    """Per member its sensors; members that no pixel needs are left out at the end."""

    def own(self, one: Input) -> Input:
        """The block itself, without what lies around it."""
        top, left = self.y.start - self.corner[0], self.x.start - self.corner[1]
        rows, columns = (slice(at, at + side) for at, side in zip((top, left), self.wanted.shape, strict=True))
        return one.cut(rows, columns)
