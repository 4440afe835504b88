"""A normalised series of every pixel in, one embedding per pixel out of AnySat, pretrained by Astruc and others.

Written from the public description and code of AnySat (Astruc et al., CVPR 2025; MIT licence): names and shapes of the
weights, order of the bands, encodings and the layers are theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdico_cube.colearn.encoders.anysat_layers import AnySatPatch, Projector
from mdico_cube.colearn.encoders.pretrained import Pretrained, band_key
from mdico_cube.colearn.encoders.rows import seen_or_all
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

SIZES = {"base": (768, 6, 12), "small": (512, 4, 8), "tiny": (256, 2, 4)}
"""Size -> width, blocks (of the patch's encoder, and again of the modalities') and heads."""
FAMILIES = ("projector_", "spatial_encoder.", "blocks.", "cls_token", "norm_pre.")
_RATIO = "ratio"  # VV / VH, in dB their difference
_ALIKE = 0.8  # correlation of VV and VH that is taken for the spread of their ratio


PROJECTORS = {
    "s2": Projector(("b2", "b3", "b4", "b5", "b6", "b7", "b8", "b8a", "b11", "b12"), 367, norm=True),
    "s1": Projector(("vv", "vh", _RATIO), 367),
    "l7": Projector(("blue", "green", "red", "nir08", "swir16", "swir22"), 367),
    "l8": Projector(
        ("pan", "coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "cirrus", "lwir11", "lwir12"), 366
    ),
}
_NEEDED = {"s1": ("vv", "vh")}
"""Bands without which an input makes no sense; of the others the missing ones are masked."""


class AnySat(Pretrained):
    """AnySat over each pixel's series alone, as one patch of one pixel (10 m): its patch token.

    Inputs are z-scored with the training windows' statistics, as AnySat wants them. Bands its input has and the
    modality lacks are masked as AnySat masks them, by its padding value; steps that were not observed are left out of
    the attention and of the series' normalisation. The ratio of VV and VH is their difference in dB; its spread is
    taken from theirs and a correlation of 0.8 [our estimate].
    """

    gains: Tensor
    """(2,) of the z-scores of VV and VH in that of their ratio."""

    def __init__(self, spec: InputSpec, section: EncoderSection) -> None:
        if (section.size or "base") not in SIZES:
            raise MdicoError(f"encoder.size of anysat is one of {', '.join(SIZES)}, came {section.size!r}.")
        width, depth, heads = SIZES[section.size or "base"]
        super().__init__(spec, section, width)
        self.columns = {band_key(name): index for index, name in enumerate(spec.modality.band_names)}
        self.input = _input_of(spec, self.columns)
        self.register_buffer("gains", self._gains(spec))
        self.backbone = AnySatPatch(self.input, PROJECTORS[self.input], width, depth, heads)
        self.settle(section, FAMILIES)

    def _gains(self, spec: InputSpec) -> Tensor:
        if self.input != "s1":
            return torch.zeros(2)
        vv, vh = (spec.stats.std[self.columns[band]] for band in ("vv", "vh"))
        spread = (vv**2 + vh**2 - 2 * _ALIKE * vv * vh) ** 0.5
        return torch.tensor([vv / spread, -vh / spread])

    def read(self, series: Tensor, seen: Tensor, month: Tensor, day: Tensor) -> Tensor:
        """See Pretrained."""
        del month
        values, there = [], []
        for band in PROJECTORS[self.input].bands:
            here = band in self.columns or band == _RATIO
            there.append(here)
            if band == _RATIO:
                pair = torch.stack([series[..., self.columns[one]] for one in ("vv", "vh")], dim=-1)
                values.append((pair * self.gains).sum(-1))
            else:
                values.append(series[..., self.columns[band]] if here else torch.zeros_like(series[..., 0]))
        known = torch.tensor(there, device=series.device)
        found: Tensor = self.backbone(torch.stack(values, dim=-1), known, seen_or_all(seen), day.to(series.dtype))
        return found


def _input_of(spec: InputSpec, columns: dict[str, int]) -> str:
    """The input that takes most of a modality's bands, of equals the one that lacks fewest.

    Raises:
        MdicoError: a band that no input has, or one that is needed.
    """

    def fit(name: str) -> tuple[int, int]:
        bands = PROJECTORS[name].bands
        return len(set(bands) & set(columns)), -len(bands)

    best = max(PROJECTORS, key=fit)
    alien = [name for name in spec.modality.band_names if band_key(name) not in PROJECTORS[best].bands]
    if alien:
        raise MdicoError(
            f"encoder anysat has no input for band {alien[0]} of {spec.modality.name}. It reads "
            f"{'; '.join(', '.join(one.bands) for one in PROJECTORS.values())}."
        )
    lacking = [band for band in _NEEDED.get(best, ()) if band not in columns]
    if lacking:
        raise MdicoError(f"encoder anysat: {spec.modality.name} lacks band {lacking[0]}. Build the cube with it.")
    return best
