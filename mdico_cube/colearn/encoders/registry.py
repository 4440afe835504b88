"""An encoder's name in, a fresh encoder out. One line here adds another."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mdico_cube.colearn.encoders.tempcnn import TempCNN
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

EncoderFactory = Callable[[int, tuple[str, ...], EncoderSection], nn.Module]
"""(bands, step dates, section) to a module from images (B, T, C, H, W) and valid (B, T, H, W) to an embedding
(B, d, H, W)."""

ENCODERS: dict[str, EncoderFactory] = {
    "tempcnn": TempCNN,
}


def build_encoder(spec: InputSpec, section: EncoderSection) -> nn.Module:
    """A fresh encoder for one modality; its width is section.width."""
    return ENCODERS[section.name](len(spec.modality.bands), spec.steps, section)
