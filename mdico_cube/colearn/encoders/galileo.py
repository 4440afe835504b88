"""A normalised series of every pixel in, one embedding per pixel out of Galileo, pretrained by NASA Harvest and others.

Written from the public description and code of Galileo (Tseng et al., ICML 2025; MIT licence): names and shapes of the
weights, band groups, encodings and the scaling of its inputs are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.pretrained import Pretrained, band_key, first_place
from mdico_cube.colearn.encoders.rows import seen_or_all
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

SIZES = {"nano": (128, 4, 8), "tiny": (192, 12, 3), "base": (768, 12, 12)}
"""Size -> width, blocks and heads."""
FAMILIES = (
    *("space_time_embed.", "space_embed.", "time_embed.", "static_embed.", "blocks.", "norm.", "pos_embed"),
    *("month_embed.", "s_t_channel_embed", "sp_channel_embed", "t_channel_embed", "st_channel_embed"),
)
_STEPS = 24  # longest series
_BASE_PATCH = 8  # side of the patches its projections were made for
_RATIO = 4  # of the feed-forward layers' width to the model's
_NDVI = ("b8", "b4")


@dataclass(frozen=True, slots=True)
class Group:
    """Bands that become one token of each step."""

    kind: Literal["space_time", "time", "space"]
    bands: tuple[str, ...]
    place: int
    """Its row among the channel embeddings of its kind."""


GROUPS = {
    "S1": Group("space_time", ("vv", "vh"), 0),
    "S2_RGB": Group("space_time", ("b2", "b3", "b4"), 1),
    "S2_Red_Edge": Group("space_time", ("b5", "b6", "b7"), 2),
    "S2_NIR_10m": Group("space_time", ("b8",), 3),
    "S2_NIR_20m": Group("space_time", ("b8a",), 4),
    "S2_SWIR": Group("space_time", ("b11", "b12"), 5),
    "NDVI": Group("space_time", _NDVI, 6),
    "ERA5": Group("time", ("t2m", "tp"), 0),
    "SRTM": Group("space", ("elevation", "slope"), 0),
}
_CHANNELS = {"space_time": ("s_t_channel_embed", 7), "time": ("t_channel_embed", 3), "space": ("sp_channel_embed", 3)}


@dataclass(frozen=True, slots=True)
class Scaling:
    """How Galileo scales a band: (factor x - mean + 2 std) / (4 std), x in our unit, mean and std in theirs."""

    unit: str
    factor: float
    mean: float
    std: float


# mean and standard deviation of Galileo's pretraining data (config/normalization.json of its repository)
SCALINGS = {
    "vv": Scaling("dB", 1.0, -11.728724389184965, 4.887145774840316),
    "vh": Scaling("dB", 1.0, -18.85558188024017, 5.730270320384293),
    "b2": Scaling("reflectance", 1e4, 1395.3408730676722, 917.7041440370853),
    "b3": Scaling("reflectance", 1e4, 1338.4026921784578, 913.2988423581528),
    "b4": Scaling("reflectance", 1e4, 1343.09883810357, 1092.678723527555),
    "b5": Scaling("reflectance", 1e4, 1543.8607982512297, 1047.2206083460424),
    "b6": Scaling("reflectance", 1e4, 2186.2022069512263, 1048.0101611156767),
    "b7": Scaling("reflectance", 1e4, 2525.0932853316694, 1143.6903026819996),
    "b8": Scaling("reflectance", 1e4, 2410.3377187373408, 1098.979177731649),
    "b8a": Scaling("reflectance", 1e4, 2750.2854646886753, 1204.472755085893),
    "b11": Scaling("reflectance", 1e4, 2234.911100061487, 1145.9774063078878),
    "b12": Scaling("reflectance", 1e4, 1474.5311266077113, 980.2429840007796),
    "t2m": Scaling("K", 1.0, 271.5674963541667, 79.80828940314429),
    "tp": Scaling("mm", 1e-3, 0.08554303677156568, 0.11669547098151486),
    "elevation": Scaling("m", 1.0, 673.0152819503361, 983.0697298296237),
    "slope": Scaling("degree", 1.0, 5.930092668915115, 8.167406789813247),
}


class Galileo(Pretrained):
    """Galileo over each pixel's series alone (patch 1, one place): the mean of its tokens of observed steps.

    Every group of bands that is whole in the modality gives one token a step: S1, five groups of Sentinel-2 and NDVI,
    ERA5's temperature and precipitation (of monthly steps), and elevation with slope, one token without a step. A group
    of which a band is missing is left out, as Galileo leaves out what it masks; bands it does not know are not read.
    """

    mean: Tensor
    std: Tensor
    """(C,) of the training windows: what the normalisation took out is put back, and Galileo's own scaling applied."""

    def __init__(self, spec: InputSpec, section: EncoderSection) -> None:
        if (section.size or "nano") not in SIZES:
            raise MdicoError(f"encoder.size of galileo is one of {', '.join(SIZES)}, came {section.size!r}.")
        if len(spec.steps) > _STEPS:
            raise MdicoError(
                f"encoder galileo takes at most {_STEPS} steps, {spec.modality.name} has {len(spec.steps)}. Use longer "
                "steps (period.step)."
            )
        width, depth, heads = SIZES[section.size or "nano"]
        super().__init__(spec, section, width)
        self.columns = {band_key(name): index for index, name in enumerate(spec.modality.band_names)}
        self.groups = {name: group for name, group in GROUPS.items() if set(group.bands) <= set(self.columns)}
        self._check(spec)
        self.register_buffer("mean", torch.tensor(spec.stats.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.stats.std, dtype=torch.float32))
        self.backbone = GalileoTokens(self.groups, width, depth, heads)
        self.settle(section, FAMILIES, fixed=("pos_embed", "month_embed"))

    def _check(self, spec: InputSpec) -> None:
        if not self.groups:
            raise MdicoError(
                f"encoder galileo: of {spec.modality.name} ({', '.join(spec.modality.band_names)}) no group of bands "
                f"is whole. It reads {'; '.join(' and '.join(group.bands) for group in GROUPS.values())}."
            )
        for name, unit in zip(spec.modality.band_names, spec.modality.units, strict=True):
            scaling = SCALINGS.get(band_key(name))
            if scaling is not None and scaling.unit != unit:
                raise MdicoError(
                    f"encoder galileo: band {name} of {spec.modality.name} must be in {scaling.unit}, is in {unit!r}."
                )

    def read(self, series: Tensor, seen: Tensor, month: Tensor, day: Tensor) -> Tensor:
        """See Pretrained."""
        del day
        physical = series * self.std + self.mean  # (N, T, C)
        values = {name: self._values(name, group, physical) for name, group in self.groups.items()}
        found: Tensor = self.backbone(values, seen_or_all(seen), month)
        return found

    def _values(self, name: str, group: Group, physical: Tensor) -> Tensor:
        """A group's bands as Galileo takes them, (N, T, bands of the group)."""
        if name == "NDVI":
            near, red = (physical[..., self.columns[band]] for band in _NDVI)
            total = near + red
            return torch.where(total == 0, 0.0, (near - red) / torch.where(total == 0, 1.0, total)).unsqueeze(-1)
        bands = [physical[..., self.columns[band]] for band in group.bands]
        scalings = [SCALINGS[band] for band in group.bands]
        return torch.stack(
            [(s.factor * x - s.mean + 2 * s.std) / (4 * s.std) for x, s in zip(bands, scalings, strict=True)], dim=-1
        )


class GalileoTokens(nn.Module):
    """Galileo's encoder, as far as some groups of bands at one place need it; its weights keep Galileo's names.

    A token = projection of the group's bands + [channel; place in the series; month; place in space], a quarter of the
    width each: weather knows no place in space, terrain neither step nor month. Blocks of pre-norm attention and
    feed-forward; LayerNorm; mean over the tokens.
    """

    def __init__(self, groups: dict[str, Group], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.groups, quarter = groups, width // 4
        kinds = {group.kind for group in groups.values()}
        for kind, (name, rows) in _CHANNELS.items():
            if kind in kinds:
                self.register_parameter(name, nn.Parameter(torch.zeros(rows, quarter)))
                made = {key: _projection(key, group, width) for key, group in groups.items() if group.kind == kind}
                setattr(self, f"{kind}_embed", nn.ModuleDict(made))
        self.pos_embed = nn.Parameter(_waves(quarter, _STEPS), requires_grad=False)
        self.month_embed = nn.Embedding(12, quarter, _weight=_months(quarter))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, values: dict[str, Tensor], seen: Tensor, month: Tensor) -> Tensor:
        """Group -> (N, T, bands), seen (N, T) with at least one True a row, month (N, T) 0..11 to (N, width)."""
        tokens, there = [], []
        for name, rows in values.items():
            group = self.groups[name]
            tokens.append(self._project(name, group, rows) + self._place(group, rows, month))
            there.append(seen)
        x, known = torch.cat(tokens, dim=1), torch.cat(there, dim=1)  # (N, L, width), (N, L)
        for block in self.blocks:
            x = block(x, known)
        share = known.to(x.dtype) / known.sum(dim=1, keepdim=True)
        found: Tensor = (self.norm(x) * share.unsqueeze(2)).sum(dim=1)
        return found

    def _project(self, name: str, group: Group, rows: Tensor) -> Tensor:
        layer = getattr(self, f"{group.kind}_embed")[name]
        if group.kind == "time":
            projected: Tensor = layer(rows)
            return projected
        weight = torch.einsum("dcyx,yx->dc", layer.proj.weight, _to_one_pixel().to(rows))
        return F.linear(rows, weight, layer.proj.bias)

    def _place(self, group: Group, rows: Tensor, month: Tensor) -> Tensor:
        """(N, T, width)."""
        pixels, steps = rows.shape[:2]
        channel = getattr(self, _CHANNELS[group.kind][0])[group.place].expand(pixels, steps, -1)
        none = torch.zeros_like(channel)
        order = none if group.kind == "space" else self.pos_embed[:steps].expand(pixels, -1, -1)
        season = none if group.kind == "space" else self.month_embed(month)
        space = none if group.kind == "time" else first_place(channel).expand(pixels, steps, -1)
        return torch.cat([channel, order, season, space], dim=-1)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); Galileo's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({name: nn.Linear(width, width) for name in ("q", "k", "v", "proj")})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, _RATIO * width), "fc2": nn.Linear(_RATIO * width, width)})

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """(N, L, width) and (N, L) True = attend to it, to (N, L, width)."""
        inner = self.norm1(x)
        q, k, v = (self.attn[name](inner).unflatten(2, (self.heads, -1)).transpose(1, 2) for name in ("q", "k", "v"))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=known[:, None, None, :])
        x = x + self.attn["proj"](mixed.transpose(1, 2).flatten(2))
        found: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return found


class PatchProjection(nn.Module):
    """The weights of a convolution over a patch."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, width, _BASE_PATCH)


def _projection(name: str, group: Group, width: int) -> nn.Module:
    bands = 1 if name == "NDVI" else len(group.bands)
    return nn.Linear(bands, width) if group.kind == "time" else PatchProjection(bands, width)


@cache
def _to_one_pixel() -> Tensor:
    """(8, 8) what brings a patch's weights to one pixel (FlexiViT, Beyer et al., CVPR 2023).

    The pseudo-inverse of the matrix that shrinks a patch to a pixel, bicubic with antialiasing.
    """
    each = torch.eye(_BASE_PATCH**2, device="cpu").view(-1, 1, _BASE_PATCH, _BASE_PATCH)
    shrink = F.interpolate(each, size=(1, 1), mode="bicubic", antialias=True).view(-1, 1)
    back: Tensor = torch.linalg.pinv(shrink)
    return back.view(_BASE_PATCH, _BASE_PATCH)


def _waves(width: int, length: int) -> Tensor:
    """(length, width) sines, then cosines, of the places; the rates are those of the public code."""
    rate = 1.0 / 10000 ** (torch.arange(width // 2, device="cpu") / width / 2.0)
    angle = torch.arange(length, device="cpu")[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _months(width: int) -> Tensor:
    """(12, width) sine of the month's angle, then its cosine, each repeated."""
    angle = torch.arange(12, device="cpu")[:, None] * (2 * torch.pi / 12)
    return torch.cat([angle.sin().expand(-1, width // 2), angle.cos().expand(-1, width // 2)], dim=1)
