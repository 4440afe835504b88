"""A normalised series of every pixel in, one embedding per pixel out: a multi-layer perceptron over the whole row."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mdico_cube.colearn.encoders.tempcnn import dense_block, forward_layers
from mdico_cube.recipe import EncoderSection


class MLP(nn.Module):
    """flatten -> `layers` x [Linear, BN, ReLU, dropout] -> Linear to d; every pixel is its own row.

    As for TempCNN the mask is not read: the gaps are already filled in time.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        sizes = [bands * len(steps), *[section.dense] * section.layers]
        blocks = [dense_block(*size, section.dropout) for size in pairwise(sizes)]
        self.dense = nn.Sequential(nn.Flatten(), *(layer for block in blocks for layer in block))
        self.embed = nn.Linear(section.dense, section.width)

    def layers(self) -> tuple[nn.Module, ...]:
        """What happens to one series, layer by layer: (N, C, T) to (N, d)."""
        return (*self.dense, self.embed)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        return forward_layers(self.layers(), images)
