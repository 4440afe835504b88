"""Normalised images in, one embedding per pixel out of a convolutional backbone of timm, random weights."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.ltae import LTAE
from mdico_cube.colearn.encoders.resnet import with_mask
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import EncoderSection

PREFIX = "timm:"
"""Before the backbone's name: timm:resnet18."""
_WHOLE = ("Attention", "SqueezeExcite", "SEModule", "GlobalResponse", "GlobalContext", "EcaModule", "AdaptiveAvgPool")
_REACH = 8  # pixels of the coarsest floor that are taken as its surroundings


class Backbone(nn.Module):
    """Every step's image through the first `layers` floors of a backbone, brought to one size and added, then L-TAE.

    Each floor goes through a 1 x 1 convolution to `hidden` channels and is enlarged to the image (Lin et al., CVPR
    2017, without the path from the top). The mask enters as one more band, and masked steps of a pixel are not attended
    to. `halo` is eight pixels of the coarsest floor, more than the first floors of the usual residual networks see.
    Backbones that look at the whole image (attention, squeeze and excitation) are refused: a map would depend on its
    blocks.
    """

    def __init__(self, name: str, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        self.body = _body(name, bands + 1, section.layers)
        _check_local(name, self.body)
        floors = self.body.feature_info
        self.beside = nn.ModuleList(nn.Conv2d(count, section.hidden, 1) for count in floors.channels())
        self.time = LTAE(section.hidden, steps, section)
        self.stride = max(floors.reduction())
        self.halo = _REACH * self.stride

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W)."""
        height, width = images.shape[-2:]
        frames = with_mask(images, valid)  # (B*T, C + 1, H, W)
        frames = F.pad(frames, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        size = tuple(frames.shape[-2:])
        floors = [
            F.interpolate(lateral(floor), size=size, mode="nearest")
            for lateral, floor in zip(self.beside, self.body(frames), strict=True)
        ]
        whole = torch.stack(floors).sum(dim=0)[..., :height, :width]  # (B*T, hidden, H, W)
        found: Tensor = self.time(whole.reshape(*valid.shape[:2], *whole.shape[1:]), valid)
        return found


def backbone_factory(name: str) -> partial[Backbone]:
    """What builds an encoder from "timm:NAME".

    Raises:
        MdicoError: timm is not installed, or has no such backbone.
    """
    wanted = name.removeprefix(PREFIX)
    known = _timm().list_models()
    if wanted not in known:
        raise MdicoError(f"timm has no backbone {wanted!r}.{did_you_mean(wanted, known)}")
    return partial(Backbone, wanted)


def _timm() -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        raise MdicoError(
            "encoders named timm:... need timm and a torchvision that fits torch: pip install 'mdico-cube[timm]'."
        ) from error


def _body(name: str, bands: int, floors: int) -> Any:
    try:
        return _timm().create_model(
            name, pretrained=False, features_only=True, in_chans=bands, out_indices=tuple(range(floors))
        )
    except (RuntimeError, AssertionError, TypeError, IndexError, AttributeError) as error:
        raise MdicoError(
            f"timm's {name} does not give {floors} floors of features ({error}). Lower encoder.layers, or choose a "
            "convolutional backbone such as resnet18."
        ) from error


def _check_local(name: str, body: nn.Module) -> None:
    kinds = {type(part).__name__ for part in body.modules()}
    whole = sorted(kind for kind in kinds if any(word in kind for word in _WHOLE))
    if whole:
        raise MdicoError(
            f"timm's {name} looks at the whole image ({whole[0]}), so that a map would depend on its blocks. Choose a "
            "plain convolutional backbone such as resnet18."
        )
