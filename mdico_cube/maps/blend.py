"""Where a block lies in, the windows of one fixed grid that touch it out, and their predictions blended by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.registry import halo_of, stride_of
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Bools, Floats

Input = tuple[Floats, Bools]
"""One sensor's (T, C, h, w) physical values and (T, h, w) True = observed."""
ImageModel = Callable[..., Tensor]
"""(1, T, C, S, S) and (1, T, S, S) of each sensor in turn, to scores (1, F, S, S)."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Windows of one side on a grid that is anchored at the cube's first pixel, whatever block is asked for.

    A window's outermost `margin` pixels count nothing; over the next `ramp` pixels its weight rises to 1. Neighbours
    lie so that the weights at every pixel sum to 1, and the first window has its full weight at pixel 0.
    """

    side: int
    margin: int
    ramp: int

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.side - 2 * self.margin - self.ramp

    @property
    def reach(self) -> int:
        """How far beyond a block its windows may read."""
        return self.side - self.margin - 1

    @property
    def weights(self) -> Floats:
        """(side,) by position in the window; a pixel's weight is the product of its row's and its column's."""
        at = np.arange(self.side)
        edge = np.minimum(at, self.side - 1 - at) - self.margin  # pixels inside the margin
        rising = (edge + 1) / (self.ramp + 1)
        found: Floats = np.clip(rising, 0, 1).astype(np.float32)
        return found

    def starts(self, begin: int, end: int) -> range:
        """First pixels of the windows that have a weight somewhere in begin..end; the first ones are negative."""
        first = -(self.margin + self.ramp)
        low = -(-(begin - self.side + self.margin + 1 - first) // self.step)  # first that reaches `begin`
        high = (end - 1 - self.margin - first) // self.step
        return range(first + max(0, low) * self.step, first + high * self.step + 1, self.step)


def tiling_of(model: nn.Module, side: int) -> Tiling | None:
    """The windows a model runs in, by the `halo` and `stride` of its encoders; None where no neighbour matters.

    Raises:
        MdicoError: the side is too small for the halo or no multiple of the stride.
    """
    halo, stride = halo_of(model), stride_of(model)
    if halo == 0:
        return None
    if side % stride or side < 4 * halo:
        fit = -(-max(side, 4 * halo) // stride) * stride
        raise MdicoError(
            f"maps.window: {side} pixels will not do for this model, whose output depends on {halo} pixels around and "
            f"which takes multiples of {stride}. Use {fit}."
        )
    return Tiling(side, halo, halo)


def blend(
    model: ImageModel, inputs: Sequence[Input], corner: tuple[int, int], block: tuple[slice, slice], wanted: Bools,
    tiling: Tiling,
) -> Floats:  # fmt: skip
    """Scores of every wanted pixel of a block: the weighted mean of the windows it lies in, always in the same order.

    Args:
        model: scores of one window.
        inputs: values and masks of each sensor, of an array that may be smaller than what the windows read: what lies
            outside it counts as not observed.
        corner: row and column of the arrays' first pixel in the cube.
        block: rows and columns of the cube that are asked for.
        wanted: (h, w) of the block; windows without a wanted pixel are left out.
        tiling: of the windows.

    Returns:
        (F, h, w), 0 where not wanted.
    """
    profile, total, weight = tiling.weights, None, np.zeros(wanted.shape, np.float32)
    for top, left in _windows(tiling, block):
        here, there = _overlap(top, block[0], tiling.side), _overlap(left, block[1], tiling.side)
        place = here[0], there[0]
        share = profile[here[1]][:, None] * profile[there[1]]
        if not (wanted[place] & (share > 0)).any():
            continue
        parts = [part for one in inputs for part in _cut(one, corner, (top, left), tiling.side)]
        with torch.inference_mode():
            scores = model(*parts)[0].float().numpy()  # (F, S, S)
        if total is None:
            total = np.zeros((len(scores), *wanted.shape), np.float32)
        total[:, place[0], place[1]] += share * scores[:, here[1], there[1]]
        weight[place] += share
    if total is None:
        return np.zeros((0, *wanted.shape), np.float32)
    found: Floats = np.where(wanted, total / np.where(wanted, weight, 1), 0).astype(np.float32)
    return found


def _windows(tiling: Tiling, block: tuple[slice, slice]) -> Iterator[tuple[int, int]]:
    rows, columns = (tiling.starts(axis.start, axis.stop) for axis in block)
    for top in rows:
        for left in columns:
            yield top, left


def _overlap(start: int, axis: slice, side: int) -> tuple[slice, slice]:
    """Where a window and a block meet: as a slice of the block, and of the window."""
    first, last = max(start, axis.start), min(start + side, axis.stop)
    return slice(first - axis.start, last - axis.start), slice(first - start, last - start)


def _cut(one: Input, corner: tuple[int, int], window: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """A window of one sensor as tensors (1, T, C, S, S) and (1, T, S, S); nothing observed outside the arrays."""
    values, valid = one
    image = np.zeros((*values.shape[:2], side, side), np.float32)
    mask = np.zeros((len(valid), side, side), np.bool_)
    ends = valid.shape[1:]
    meets = [_overlap(at, slice(base, base + end), side) for at, base, end in zip(window, corner, ends, strict=True)]
    (y, to_y), (x, to_x) = meets
    if y.start < y.stop and x.start < x.stop:
        image[..., to_y, to_x], mask[..., to_y, to_x] = values[..., y, x], valid[..., y, x]
    return torch.from_numpy(image)[None], torch.from_numpy(mask)[None]
