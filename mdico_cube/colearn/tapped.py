"""A sensor's model in, the same with the embedding its head reads behind its outputs out: one pass gives both."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mdico_cube.colearn.applicability import head_name


class Tapped(nn.Module):
    """outputs (B, K, H, W) and embedding (B, d, H, W) as one tensor (B, K + d, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name = head_name(model)
        assert name is not None  # it has one, or nothing would have been measured in front of it
        self.model = deepcopy(model)
        self.tap = _Tap(self.model.get_submodule(name))
        self.model.set_submodule(name, self.tap)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """As the model, with the embedding behind its outputs."""
        outputs: Tensor = self.model(images, valid)
        return torch.cat([outputs, self.tap.taken()], dim=1)


class _Tap(nn.Module):
    """A head that remembers what it read last, in each thread."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self._read = head, threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tap:
        """With a memory of its own."""
        return _Tap(deepcopy(self.head, memo))

    def forward(self, embedding: Tensor) -> Tensor:
        """As the head."""
        self._read.embedding = embedding
        found: Tensor = self.head(embedding)
        return found

    def taken(self) -> Tensor:
        """What was read; it is not kept."""
        found: Tensor = self._read.embedding
        del self._read.embedding
        return found
