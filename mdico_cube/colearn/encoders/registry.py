"""An encoder's name in, a fresh encoder out. One line here adds another."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from mdico_cube.colearn.encoders.gru import GRU
from mdico_cube.colearn.encoders.ltae import LTAE
from mdico_cube.colearn.encoders.tempcnn import TempCNN
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

EncoderFactory = Callable[[int, tuple[str, ...], EncoderSection], nn.Module]
"""(bands, step dates, section) to a module from images (B, T, C, H, W) and valid (B, T, H, W) to an embedding
(B, d, H, W)."""

ENCODERS: dict[str, EncoderFactory] = {
    "tempcnn": TempCNN,
    "ltae": LTAE,
    "gru": GRU,
}


def build_encoder(spec: InputSpec, section: EncoderSection) -> nn.Module:
    """A fresh encoder for one modality; its width is section.width."""
    return make_encoder(len(spec.modality.bands), spec.steps, section)


def make_encoder(bands: int, steps: tuple[str, ...], section: EncoderSection) -> nn.Module:
    """A fresh encoder for series of this many bands at these dates.

    Raises:
        MdicoError: no encoder of that name, or options it cannot take.
    """
    return get_encoder(section.name)(bands, steps, section)


def get_encoder(name: str) -> EncoderFactory:
    """What builds an encoder.

    Raises:
        MdicoError: no encoder of that name; the text gives the closest one.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    close = get_close_matches(name.lower(), ENCODERS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(ENCODERS)}."
    raise MdicoError(f"unknown encoder {name!r}, {hint}")
