"""What was read of a cube for one block of a map in, each sensor's masks of the block itself out."""

from __future__ import annotations

from dataclasses import dataclass

from mdico_cube.maps.blend import Input
from mdico_cube.spec import Bools


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
    """Per member the values and masks of its sensors; members that no pixel needs are left out at the end."""

    def own(self, one: Input) -> Bools:
        """(T, h, w) masks of the block itself, without what lies around it."""
        top, left = self.y.start - self.corner[0], self.x.start - self.corner[1]
        height, width = self.wanted.shape
        return one[1][:, top : top + height, left : left + width]
