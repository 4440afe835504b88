"""An encoder's name in, a fresh encoder out. One line here adds another."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mdico_cube.colearn.encoders.anysat import AnySat
from mdico_cube.colearn.encoders.backbone import PREFIX, backbone_factory
from mdico_cube.colearn.encoders.convtran import ConvTran
from mdico_cube.colearn.encoders.galileo import Galileo
from mdico_cube.colearn.encoders.gru import GRU
from mdico_cube.colearn.encoders.lstm import LSTM
from mdico_cube.colearn.encoders.ltae import LTAE
from mdico_cube.colearn.encoders.mlp import MLP
from mdico_cube.colearn.encoders.pooled import Pooled
from mdico_cube.colearn.encoders.pretrained import PretrainedFactory
from mdico_cube.colearn.encoders.resnet import ResNet
from mdico_cube.colearn.encoders.rows import look_around
from mdico_cube.colearn.encoders.tae import TAE
from mdico_cube.colearn.encoders.tempcnn import TempCNN
from mdico_cube.colearn.encoders.transformer import Transformer
from mdico_cube.colearn.encoders.unet import UNet
from mdico_cube.errors import MdicoError, look_up
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

EncoderFactory = Callable[[int, tuple[str, ...], EncoderSection], nn.Module]
"""(bands, step dates, section) to a module from images (B, T, C, H, W) and valid (B, T, H, W) to an embedding
(B, d, H, W). An encoder that looks beyond the pixel says how far by `halo` (pixels), and by `stride` (pixels, default
1) on which grid its windows must begin to give the same values."""

ENCODERS: dict[str, EncoderFactory] = {
    "tempcnn": TempCNN,
    "ltae": LTAE,
    "tae": TAE,
    "transformer": Transformer,
    "convtran": ConvTran,
    "gru": GRU,
    "lstm": LSTM,
    "mlp": MLP,
    "resnet": ResNet,
    "unet": UNet,
}


PRETRAINED: dict[str, PretrainedFactory] = {"anysat": AnySat, "galileo": Galileo}
"""Encoders that know the bands of a modality by name and take weights from a file."""


def build_encoder(spec: InputSpec, section: EncoderSection) -> nn.Module:
    """A fresh encoder for one modality; its width is section.width.

    Raises:
        MdicoError: no encoder of that name, or options, bands or weights it cannot take.
    """
    if section.name not in PRETRAINED:
        return make_encoder(len(spec.modality.bands), spec.steps, section)
    return _pooled(PRETRAINED[section.name](spec, section), section)


def make_encoder(bands: int, steps: tuple[str, ...], section: EncoderSection) -> nn.Module:
    """A fresh encoder for series of this many bands at these dates.

    Raises:
        MdicoError: no encoder of that name, or options it cannot take.
    """
    factory = get_encoder(section.name)
    if factory is None:
        raise MdicoError(
            f"encoder {section.name} reads the bands of one sensor, not several joined. Use a method that joins the "
            "sensors after their encoders."
        )
    return _pooled(factory(bands, steps, section), section)


def _pooled(encoder: nn.Module, section: EncoderSection) -> nn.Module:
    return encoder if section.pool == 1 else Pooled(encoder, section.pool)


def get_encoder(name: str) -> EncoderFactory | None:
    """What builds an encoder; None for a pretrained one, which needs to know the bands by name.

    Raises:
        MdicoError: no encoder of that name; the text gives the closest one.
    """
    if name.startswith(PREFIX):
        return backbone_factory(name)
    return look_up("encoder", name, {**ENCODERS, **dict.fromkeys(PRETRAINED)})


def halo_of(model: nn.Module) -> int:
    """How many pixels beyond a pixel its prediction depends on: 0 for a model of single pixels' series."""
    return look_around(model)


def stride_of(model: nn.Module) -> int:
    """Windows that begin on multiples of so many pixels get the same values where they overlap."""
    return max((int(getattr(part, "stride", 1)) for part in model.modules() if hasattr(part, "halo")), default=1)
