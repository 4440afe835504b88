"""What flows from the sampler to a model: images, masks of what was observed, and the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mdico_cube.errors import MdicoError

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of every modality. Modalities may differ in resolution; see `on_one_grid`."""

    images: dict[str, Tensor]
    """Modality -> (B, T, C, h, w) float32 in physical units; 0 where not observed."""
    valid: dict[str, Tensor]
    """Modality -> (B, T, h, w) bool, True = observed in every band."""
    target: Tensor | None = None
    """(B, H, W) int64 class index 0..K-1, or labels as bits of an integer, -1 = unlabelled; or float32 values, NaN =
    unlabelled; None when predicting."""
    dates: dict[str, Tensor] | None = None
    """Modality -> (B, T) float32 days since the first step the model was made for, where a window has dates of its own;
    a modality that is not named, or None for all, has the model's dates."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, start: int, stop: int) -> Batch:
        """Windows start to stop of this batch, without copying."""
        return self._each(lambda tensor: tensor[start:stop])

    def take(self, index: Tensor) -> Batch:
        """The windows of these numbers, (n,) int64, in this order."""
        return self._each(lambda tensor: tensor[index])

    def joined(self, other: Batch) -> Batch:
        """These windows and another batch's of the same modalities, which must both have targets or neither.

        Raises:
            MdicoError: one has targets or dates of its own that the other lacks.
        """
        if (self.target is None) != (other.target is None) or (self.dates is None) != (other.dates is None):
            raise MdicoError("batches with and without target or dates cannot be joined: give both the same parts.")
        return Batch(
            {name: torch.cat([image, other.images[name]]) for name, image in self.images.items()},
            {name: torch.cat([mask, other.valid[name]]) for name, mask in self.valid.items()},
            None if self.target is None or other.target is None else torch.cat([self.target, other.target]),
            None
            if self.dates is None or other.dates is None
            else {name: torch.cat([days, other.dates[name]]) for name, days in self.dates.items()},
        )

    def pin_memory(self) -> Batch:
        """The same batch where a GPU fetches it fastest; torch calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def replace(self, **changes: Any) -> Batch:
        """The same batch with other parts."""
        return replace(self, **changes)

    def on_one_grid(self) -> Batch:
        """The same batch with every modality on the finest grid: each pixel of a coarser one is repeated.

        Raises:
            MdicoError: the sides are no multiples of each other.
        """
        shapes = [tuple(mask.shape[-2:]) for mask in self.valid.values()]
        shapes += [] if self.target is None else [tuple(self.target.shape[-2:])]
        finest = max(shapes)
        if set(shapes) == {finest}:
            return self
        return replace(
            self,
            images={name: _enlarged(image, finest, name) for name, image in self.images.items()},
            valid={name: _enlarged(mask, finest, name) for name, mask in self.valid.items()},
            target=None if self.target is None else _enlarged(self.target, finest, "target"),
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            {name: change(image) for name, image in self.images.items()},
            {name: change(mask) for name, mask in self.valid.items()},
            None if self.target is None else change(self.target),
            None if self.dates is None else {name: change(days) for name, days in self.dates.items()},
        )

    def __len__(self) -> int:
        return next(iter(self.images.values())).shape[0]


def labelled(target: Tensor) -> Tensor:
    """True where a target says anything."""
    return ~target.isnan() if target.is_floating_point() else target != UNLABELLED


def hide(target: Tensor, where: Tensor) -> Tensor:
    """A target without its labels where a mask says so."""
    return target.masked_fill(where, torch.nan if target.is_floating_point() else UNLABELLED)


def _enlarged(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """(..., h, w) with every pixel repeated to (..., H, W)."""
    if tuple(tensor.shape[-2:]) == (1, 1):
        return tensor.expand(*tensor.shape[:-2], *shape)
    for axis, side in zip((-2, -1), shape, strict=True):
        factor, rest = divmod(side, tensor.shape[axis])
        if rest:
            raise MdicoError(
                f"{name}: {tensor.shape[axis]} pixels do not divide the {side} of the finest modality. "
                "Choose resolutions that are multiples of each other."
            )
        tensor = tensor.repeat_interleave(factor, dim=axis) if factor > 1 else tensor
    return tensor


class Batches(Protocol):
    """What feeds a trainer: one pass over it is one epoch."""

    @property
    def dataset(self) -> Any:
        """What the batches are drawn from; its length is the number of windows."""

    def __len__(self) -> int:
        """How many batches there are."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
