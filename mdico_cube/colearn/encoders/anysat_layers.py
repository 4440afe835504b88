"""AnySat's layers, as far as one input and one patch of one pixel need them: a series in, its patch token out.

Names and shapes of the weights are AnySat's (Astruc et al., CVPR 2025; MIT licence), so that its checkpoints load.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.pretrained import first_place

_HEADS, _KEY = 16, 8  # of the attention over time
_GROUPS = 4  # of the group norms between its layers
_BUCKETS = 8  # distances that the relative positions know; the last one is that of the class token
_SELF, _TOKEN = 3, 7  # bucket of a place to itself, and of whatever meets the class token


@dataclass(frozen=True, slots=True)
class Projector:
    """One of AnySat's inputs."""

    bands: tuple[str, ...]
    """In its order."""
    period: float
    """Longest wave of its dates, days."""
    norm: bool = False
    """Whether it normalises the series before the attention."""


class AnySatPatch(nn.Module):
    """AnySat as far as one input and one patch of one pixel need it; its weights keep AnySat's names."""

    def __init__(self, name: str, projector: Projector, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.name = name
        self.add_module(f"projector_{name}", Series(projector, width))
        self.spatial_encoder = Places(width, depth, heads)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.blocks = nn.ModuleList([*(Block(width, heads, 1e-6) for _ in range(depth)), Meeting(width, heads)])

    def forward(self, series: Tensor, known: Tensor, seen: Tensor, day: Tensor) -> Tensor:
        """Series (N, T, C) z-scored, known (C,), seen (N, T) and day of the year (N, T) to (N, width)."""
        token = self.get_submodule(f"projector_{self.name}")(series, known, seen, day).unsqueeze(1)  # (N, 1, width)
        token = self.spatial_encoder(token) + first_place(token)
        tokens = torch.cat([self.cls_token.expand(len(token), -1, -1), token], dim=1)  # (N, 2, width)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 1]


class Series(nn.Module):
    """An input's series to one token: a multilayer perceptron of each step, dates, attention over time (L-TAE)."""

    def __init__(self, projector: Projector, width: int) -> None:
        super().__init__()
        self.patch_embed = Steps(projector, width)
        self.pad_parameter = nn.Parameter(torch.zeros(()))

    def forward(self, series: Tensor, known: Tensor, seen: Tensor, day: Tensor) -> Tensor:
        """(N, T, C), known (C,), seen (N, T), day (N, T) to (N, width)."""
        found: Tensor = self.patch_embed(torch.where(known, series, self.pad_parameter), seen, day)
        return found


class Steps(nn.Module):
    """The layers of an input."""

    def __init__(self, projector: Projector, width: int) -> None:
        super().__init__()
        self.period = projector.period
        sizes = [len(projector.bands), width // 8, width // 2, width, 2 * width, width]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.GroupNorm(_GROUPS, b), nn.ReLU(), nn.Identity()]
        self.inconv = nn.Sequential(*layers)
        self.in_norm = nn.GroupNorm(_HEADS, width) if projector.norm else nn.Identity()
        self.attention_heads = Heads(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GroupNorm(_GROUPS, width), nn.ReLU())
        self.out_norm = nn.GroupNorm(_HEADS, width)

    def forward(self, series: Tensor, seen: Tensor, day: Tensor) -> Tensor:
        """(N, T, C), seen (N, T), day (N, T) to (N, width)."""
        steps = self.inconv(series.flatten(0, 1)).unflatten(0, series.shape[:2])  # (N, T, width)
        if isinstance(self.in_norm, nn.GroupNorm):
            steps = norm_of_seen(steps, seen, self.in_norm)
        steps = steps + date_waves(day, steps.shape[2] // _HEADS, self.period).repeat(1, 1, _HEADS)
        scores = self.attention_heads(steps)
        share = scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(dim=2)  # (N, heads, T)
        mixed = torch.einsum("nht,nthv->nhv", share, steps.unflatten(2, (_HEADS, -1))).flatten(1)
        found: Tensor = self.out_norm(self.mlp(mixed))
        return found


class Heads(nn.Module):
    """One learned query per head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.Q = nn.Parameter(torch.empty(_HEADS, _KEY))
        nn.init.normal_(self.Q, std=(2.0 / _KEY) ** 0.5)
        self.fc1_k = nn.Linear(width, _HEADS * _KEY)

    def forward(self, steps: Tensor) -> Tensor:
        """(N, T, width) to scores (N, heads, T)."""
        keys = self.fc1_k(steps).unflatten(2, (_HEADS, _KEY))
        scores: Tensor = torch.einsum("nthk,hk->nht", keys, self.Q) / _KEY**0.5
        return scores


def norm_of_seen(steps: Tensor, seen: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm over the channels of a group and the observed steps: what it gives for the series of those alone.

    Args:
        steps: (N, T, C).
        seen: (N, T), at least one True in each row.
        norm: its groups, weights and epsilon.
    """
    grouped = steps.view(*steps.shape[:2], norm.num_groups, -1)  # (N, T, G, C/G)
    here = seen[:, :, None, None].to(steps.dtype)
    count = here.sum(dim=(1, 3), keepdim=True) * grouped.shape[3]
    mean = (grouped * here).sum(dim=(1, 3), keepdim=True) / count
    variance = ((grouped - mean) ** 2 * here).sum(dim=(1, 3), keepdim=True) / count
    scaled = ((grouped - mean) / (variance + norm.eps).sqrt()).flatten(2)
    found: Tensor = scaled * norm.weight + norm.bias
    return found


def date_waves(day: Tensor, width: int, period: float) -> Tensor:
    """Sine and cosine of the days (N, T) by turns, (N, T, width)."""
    place = torch.arange(width, device=day.device)
    angle = day.unsqueeze(2) / period ** (2 * (place // 2) / width)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos())


class Places(nn.Module):
    """The pixels of a patch to one token: here one pixel and a class token, which is read."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.predictor_blocks = nn.ModuleList(Block(width, heads, 1e-5, relative=True) for _ in range(depth))
        self.predictor_norm = nn.LayerNorm(width)

    def forward(self, token: Tensor) -> Tensor:
        """(N, 1, width) to (N, 1, width)."""
        tokens = torch.cat([self.cls_token.expand(len(token), -1, -1), token + first_place(token)], dim=1)
        for block in self.predictor_blocks:
            tokens = block(tokens)
        found: Tensor = self.predictor_norm(tokens[:, :1])
        return found


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); AnySat's names."""

    def __init__(self, width: int, heads: int, eps: float, relative: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, relative)
        self.mlp = feed_forward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, width) to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + fed(self.mlp, self.norm2(tokens))


class Attention(nn.Module):
    """Self-attention, where asked with relative positions on the keys (iRPE, Wu et al., ICCV 2021)."""

    def __init__(self, width: int, heads: int, relative: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rpe_k = RelativePlaces(width // heads) if relative else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, width) to the same shape."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, L, width each)
        q = q * q.shape[-1] ** -0.5
        scores = q @ k.transpose(-2, -1)
        if self.rpe_k is not None:
            scores = scores + self.rpe_k(q)
        found: Tensor = self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return found


class Meeting(nn.Module):
    """The last block: learned queries, one a place, read the tokens of all modalities; no way around the attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = Reading(width, heads)
        self.mlp = feed_forward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, 2, width): class token and the pixel's, to the same shape."""
        read = self.attn(self.norm1(tokens))
        found: Tensor = read + fed(self.mlp, self.norm2(read))
        return found


class Reading(nn.Module):
    """Attention of learned queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wk, self.wv, self.proj = (nn.Linear(width, width) for _ in range(3))
        self.q_learned = nn.Parameter(torch.zeros(1, 1, width))
        self.rpe_k = RelativePlaces(width // heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, 2, width) to the same shape."""
        places = torch.stack([torch.zeros_like(self.q_learned[0, 0]), first_place(tokens)])
        queries = (self.q_learned + places).expand(len(tokens), -1, -1)
        q, k, v = (
            rows.unflatten(2, (self.heads, -1)).transpose(1, 2) for rows in (queries, self.wk(tokens), self.wv(tokens))
        )
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5 + self.rpe_k(q)
        found: Tensor = self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return found


class RelativePlaces(nn.Module):
    """What the distance between two places adds to a score; here of a class token and one place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lookup_table_weight = nn.Parameter(torch.zeros(1, width, _BUCKETS))
        nn.init.trunc_normal_(self.lookup_table_weight, std=0.02)

    def forward(self, q: Tensor) -> Tensor:
        """Queries (N, heads, 2, width) to (N, heads, 2, 2)."""
        every = q @ self.lookup_table_weight[0]  # (N, heads, 2, buckets)
        buckets = torch.tensor([[_TOKEN, _TOKEN], [_TOKEN, _SELF]], device=q.device)
        return every.gather(3, buckets.expand(*q.shape[:2], -1, -1))


def feed_forward(width: int) -> nn.ModuleDict:
    """Two Linear layers with AnySat's names."""
    return nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})


def fed(layers: nn.ModuleDict, tokens: Tensor) -> Tensor:
    """Through them, with GELU between."""
    found: Tensor = layers["fc2"](F.gelu(layers["fc1"](tokens)))
    return found
