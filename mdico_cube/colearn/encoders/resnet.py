"""Normalised images in, one embedding per pixel that has seen its neighbours out: a ResNet that keeps the size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.ltae import LTAE
from mdico_cube.recipe import EncoderSection


class Residual(nn.Module):
    """x + BN(conv(ReLU(BN(conv(x))))), then ReLU; 3 x 3 convolutions with a dilation (He et al., CVPR 2016)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False) for _ in range(2)
        )
        self.norm_first, self.norm_second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        inner = F.relu(self.norm_first(self.first(images)))
        return F.relu(images + self.norm_second(self.second(inner)))


class ResNet(nn.Module):
    """Every step's image through one stem and `layers` residual blocks, then L-TAE over the steps of each pixel.

    The blocks dilate their convolutions by 1, 2, 4, ... instead of shrinking the image, so that every pixel keeps its
    place (Yu, Koltun and Funkhouser, CVPR 2017). The mask enters as one more band, and masked steps of a pixel are not
    attended to.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(bands + 1, section.hidden, 3, padding=1, bias=False), nn.BatchNorm2d(section.hidden), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(Residual(section.hidden, 2**i) for i in range(section.layers)))
        self.time = LTAE(section.hidden, steps, section)
        self.halo = 1 + sum(2 * 2**i for i in range(section.layers))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        frames = self.blocks(self.stem(with_mask(images, valid)))  # (B*T, hidden, H, W)
        found: Tensor = self.time(frames.unflatten(0, valid.shape[:2]), valid)
        return found


def with_mask(images: Tensor, valid: Tensor) -> Tensor:
    """Every step as an image of its own, the mask as the last band: (B*T, C + 1, H, W)."""
    return torch.cat([images, valid.unsqueeze(2).to(images.dtype)], dim=2).flatten(0, 1)
