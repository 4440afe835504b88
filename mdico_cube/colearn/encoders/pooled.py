"""An encoder in, the same with every pixel's surroundings averaged out: one embedding for a whole patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import look_around


class Pooled(nn.Module):
    """The mean embedding of the pixels observed in the square around each pixel: rows and columns -(P // 2) to P - 1.

    Of a patch of P x P pixels the centre pixel (P // 2, P // 2) averages the whole patch; on a map every pixel averages
    the patch around it, so that a map is what the patches say. A square without any observation averages all of it.
    """

    def __init__(self, encoder: nn.Module, side: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.side = side
        self.halo = side // 2 + look_around(encoder)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W)."""
        embedding = self.encoder(images, valid)
        seen = valid.any(dim=1, keepdim=True).to(embedding.dtype)  # (B, 1, H, W)
        area = self._sum(seen.new_ones(seen.shape))
        count = self._sum(seen)
        mean = self._sum(embedding * seen) / count.clamp(min=1)
        return (self._sum(embedding) / area).where(count == 0, mean)

    def _sum(self, images: Tensor) -> Tensor:
        """(B, C, H, W) summed over the square around each pixel; nothing stands outside."""
        before, after = self.side // 2, self.side - 1 - self.side // 2
        padded = F.pad(images, (before, after, before, after))
        return F.avg_pool2d(padded, self.side, stride=1, divisor_override=1)
