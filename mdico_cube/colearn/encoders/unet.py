"""Normalised images in, one embedding per pixel that has seen its surroundings out: a small U-Net as a stem."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.ltae import LTAE
from mdico_cube.colearn.encoders.resnet import with_mask
from mdico_cube.recipe import EncoderSection


class UNet(nn.Module):
    """Every step's image through a U-Net (Ronneberger, Fischer and Brox, MICCAI 2015), then L-TAE over each pixel.

    `layers` times down by 2 and up again, two 3 x 3 convolutions on each floor, the channels doubling on the way down
    from hidden / 2; what is read at the top has `hidden` channels. The mask enters as one more band, and masked steps
    of a pixel are not attended to. As in U-TAE (Garnot and Landrieu, ICCV 2021) the steps meet by attention, but on the
    finest floor alone.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        first = max(1, section.hidden // 2)
        sizes = [first * 2**i for i in range(section.layers + 1)]
        self.down = nn.ModuleList(_floor(a, b) for a, b in zip([bands + 1, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(
            _floor(below + here, here) for below, here in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.top = nn.Conv2d(first, section.hidden, 1)
        self.time = LTAE(section.hidden, steps, section)
        self.stride = 2**section.layers
        self.halo = self.stride * 2 + 4 * (self.stride - 1) + self.stride

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        height, width = images.shape[-2:]
        frames = with_mask(images, valid)  # (B*T, C + 1, H, W)
        frames = F.pad(frames, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        floors = []
        for number, floor in enumerate(self.down):
            frames = floor(F.max_pool2d(frames, 2) if number else frames)
            floors.append(frames)
        for floor, beside in zip(self.up, floors[-2::-1], strict=True):
            wide = F.interpolate(frames, scale_factor=2.0, mode="nearest")
            frames = floor(torch.cat([wide, beside], dim=1))
        frames = self.top(frames)[..., :height, :width]
        found: Tensor = self.time(frames.unflatten(0, valid.shape[:2]), valid)
        return found


class SteadyNorm(nn.BatchNorm2d):
    """Batch norm that takes its running figures where a channel has a single value: below one patch."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def _floor(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (inputs, outputs):
        layers += [nn.Conv2d(size, outputs, 3, padding=1, bias=False), SteadyNorm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
