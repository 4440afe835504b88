"""What flows from the sampler to a model: images, masks of what was observed, and the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of every modality on one grid."""

    images: dict[str, Tensor]
    """Modality -> (B, T, C, H, W) float32 in physical units; 0 where not observed."""
    valid: dict[str, Tensor]
    """Modality -> (B, T, H, W) bool, True = observed in every band."""
    target: Tensor | None = None
    """(B, H, W) int64 class index 0..K-1, -1 = unlabelled; None when predicting."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            {name: image.to(device, non_blocking=True) for name, image in self.images.items()},
            {name: mask.to(device, non_blocking=True) for name, mask in self.valid.items()},
            None if self.target is None else self.target.to(device, non_blocking=True),
        )

    def rows(self, start: int, stop: int) -> Batch:
        """Windows start to stop of this batch, without copying."""
        return Batch(
            {name: image[start:stop] for name, image in self.images.items()},
            {name: mask[start:stop] for name, mask in self.valid.items()},
            None if self.target is None else self.target[start:stop],
        )

    def __len__(self) -> int:
        return next(iter(self.images.values())).shape[0]


class Batches(Protocol):
    """What feeds a trainer: one pass over it is one epoch."""

    @property
    def dataset(self) -> Any:
        """What the batches are drawn from; its length is the number of windows."""

    def __len__(self) -> int:
        """How many batches there are."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
