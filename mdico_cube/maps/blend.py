"""Where a block lies in, the windows of one fixed grid that touch it out, and their predictions blended by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.registry import halo_of, stride_of
from mdico_cube.errors import MdicoError
from mdico_cube.maps.feed import Room, feed
from mdico_cube.maps.gathered import Input
from mdico_cube.maps.window_cache import Place, Windows
from mdico_cube.spec import Bools, Floats

ImageModel = Callable[..., Tensor]
"""(B, T, C, S, S) and (B, T, S, S) of each sensor in turn, to scores (B, F, S, S)."""


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
    tiling: Tiling, room: Room | None = None, known: Windows | None = None,
) -> Floats:  # fmt: skip
    """Scores of every wanted pixel of a block: the weighted mean of the windows it lies in, always in the same order.

    Args:
        model: scores of windows.
        inputs: of each sensor, of an array that may be smaller than what the windows read: what lies
            outside it counts as not observed.
        corner: row and column of the arrays' first pixel in the cube.
        block: rows and columns of the cube that are asked for.
        wanted: (h, w) of the block; windows without a wanted pixel are left out.
        tiling: of the windows.
        room: device and the windows that go at once there; None = one after the other on this processor.
        known: windows that were computed for other blocks; None = none is kept.

    Returns:
        (F, h, w), 0 where not wanted.
    """
    profile, total, weight = tiling.weights, None, np.zeros(wanted.shape, np.float32)
    touched = [at for at in _windows(tiling, block) if _counts(at, block, tiling, profile, wanted)]

    def compute(places: Sequence[Place]) -> Iterator[Floats]:
        return _scored(model, inputs, corner, places, tiling.side, room or Room())

    for (top, left), scores in (known or Windows()).scores(touched, compute):
        here, there = _overlap(top, block[0], tiling.side), _overlap(left, block[1], tiling.side)
        place, share = (here[0], there[0]), profile[here[1]][:, None] * profile[there[1]]
        if total is None:
            total = np.zeros((len(scores), *wanted.shape), np.float32)
        total[:, place[0], place[1]] += share * scores[:, here[1], there[1]]
        weight[place] += share
    if total is None:
        return np.zeros((0, *wanted.shape), np.float32)
    found: Floats = np.where(wanted, total / np.where(wanted, weight, 1), 0).astype(np.float32)
    return found


def _counts(at: Place, block: tuple[slice, slice], tiling: Tiling, profile: Floats, wanted: Bools) -> bool:
    """Whether a window has a weight at a wanted pixel."""
    (here, rows), (there, columns) = (_overlap(s, axis, tiling.side) for s, axis in zip(at, block, strict=True))
    return bool((wanted[here, there] & (profile[rows][:, None] * profile[columns] > 0)).any())


def _scored(
    model: ImageModel, inputs: Sequence[Input], corner: tuple[int, int], places: Sequence[Place], side: int, room: Room
) -> Iterator[Floats]:
    """(F, S, S) of each window."""

    def shapes(count: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        sizes = [one.values.shape[:2] for one in inputs]
        square = (side, side)
        return [
            each
            for t, c in sizes
            for each in (((count, t, c, *square), torch.float32), ((count, t, *square), torch.bool))
        ]

    def fill(arrays: Sequence[Any], start: int, stop: int) -> None:
        for number, at in enumerate(places[start:stop]):
            for image, mask, one in zip(arrays[::2], arrays[1::2], inputs, strict=True):
                _cut(one, corner, at, side, image[number], mask[number])

    for start, stop, scores in feed(lambda *parts: model(*parts).float(), room, shapes, len(places), fill):
        for number in range(stop - start):
            yield np.array(scores[number])


def _windows(tiling: Tiling, block: tuple[slice, slice]) -> Iterator[Place]:
    rows, columns = (tiling.starts(axis.start, axis.stop) for axis in block)
    for top in rows:
        for left in columns:
            yield top, left


def _overlap(start: int, axis: slice, side: int) -> tuple[slice, slice]:
    """Where a window and a block meet: as a slice of the block, and of the window."""
    first, last = max(start, axis.start), min(start + side, axis.stop)
    return slice(first - axis.start, last - axis.start), slice(first - start, last - start)


def _cut(one: Input, corner: tuple[int, int], window: Place, side: int, image: Floats, mask: Bools) -> None:
    """Write a window of one sensor to (T, C, S, S) and (T, S, S); nothing is observed outside the arrays."""
    image[...], mask[...] = 0, False
    ends = one.valid.shape[1:]
    meets = [_overlap(at, slice(base, base + end), side) for at, base, end in zip(window, corner, ends, strict=True)]
    (y, to_y), (x, to_x) = meets
    if y.start < y.stop and x.start < x.stop:
        one.write((y, x), image[..., to_y, to_x], mask[..., to_y, to_x])
