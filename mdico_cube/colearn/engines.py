"""The branches of a folded model in, the same as torch modules from normalised rows to logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdico_cube.colearn.chains import Affine

Branches = Sequence[Sequence[Affine]]
"""Affine maps of each branch, from (N, T, C) to (N, K); the sum of their outputs is the model's."""
Taps = Sequence[Affine | None]
"""Per branch the map from what its last map reads to its part of the embedding; None where that is the embedding."""
_ONE = [1, 1]
_NARROW = 128
"""Numbers under a first convolution's kernel up to which it is computed as a matrix product of windows."""


class RowModel(Protocol):
    """What computes the branches."""

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, T, C) float32 normalised, gaps filled, to logits (N, K) float32."""


class FloatBranches(nn.Module):
    """Branches as channels-last convolutions and dense maps; the last map of each and the sum stay in float32.

    Args:
        reach: that the branches share, to cut windows once for all of them; 0 convolves.
    """

    def __init__(
        self,
        branches: Branches,
        kind: torch.dtype = torch.float32,
        plain: bool = False,
        taps: Taps | None = None,
        reach: int = 0,
    ) -> None:
        super().__init__()
        self.reach = reach
        self.insides = nn.ModuleList(
            nn.Sequential(*(affine_module(each, kind, plain, reach > 0 and i == 0) for i, each in enumerate(maps[:-1])))
            for maps in branches
        )
        self.lasts = nn.ModuleList(affine_module(maps[-1], torch.float32, plain) for maps in branches)
        self.taps = None if taps is None else tap_modules(taps, plain)
        self.kind = kind

    def forward(self, rows: Tensor) -> Tensor:
        """See RowModel; with taps (N, K + d)."""
        rows = rows.to(self.kind)
        rows = as_windows(rows, self.reach) if self.reach else rows
        insides = [inside(rows) for inside in self.insides]
        outputs = [last(inside) for last, inside in zip(self.lasts, insides, strict=True)]
        if self.taps is None:
            return torch.stack(outputs).sum(dim=0)
        return with_embedding(outputs, insides, self.taps)


def tap_modules(taps: Taps, plain: bool = False) -> nn.ModuleList:
    """From what stands in front of the last map of each branch to its part of the embedding."""
    return nn.ModuleList(nn.Identity() if each is None else Dense(each, torch.float32, plain) for each in taps)


def with_embedding(outputs: Sequence[Tensor], insides: Sequence[Tensor], taps: nn.ModuleList) -> Tensor:
    """The sum of the branches' outputs, and their embeddings side by side behind it: (N, K + d)."""
    parts = [tap(inside.flatten(1)).float() for tap, inside in zip(taps, insides, strict=True)]
    return torch.cat([torch.stack(list(outputs)).sum(dim=0), *parts], dim=1)


class _Convolution(nn.Module):
    """A convolution over time: (N, T, C) to (N, T, out) as a channels-last image of one row."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype, plain: bool) -> None:
        super().__init__()
        weight = affine.weight.unsqueeze(2).to(kind).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)  # (out, in, 1, k)
        self.register_buffer("bias", affine.bias.to(kind))
        self.relu, self.padding, self.plain = affine.relu, [0, affine.weight.shape[2] // 2], plain

    def forward(self, rows: Tensor) -> Tensor:
        image = as_image(rows)
        if not self.plain and fused(image):
            then = "relu" if self.relu else "none"
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                image, self.weight, self.bias, self.padding, _ONE, _ONE, 1, then, [], ""
            )
        else:
            out = F.conv2d(image, self.weight, self.bias, padding=self.padding)
            out = out.relu() if self.relu else out
        return as_rows(out)


class Dense(nn.Module):
    """A linear map of the whole row: (N, T, C) or (N, in) to (N, out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype, plain: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", affine.weight.to(kind).contiguous())
        self.register_buffer("bias", affine.bias.to(kind))
        self.relu, self.plain = affine.relu, plain

    def forward(self, rows: Tensor) -> Tensor:
        """The map, and its positive part where it has a ReLU."""
        rows = rows.flatten(1).to(self.weight.dtype)
        if not self.plain and fused(rows):
            then = "relu" if self.relu else "none"
            return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, then, [], "")  # type: ignore[no-any-return]
        out = F.linear(rows, self.weight, self.bias)
        return out.relu() if self.relu else out


class EachStep(nn.Module):
    """A dense map of every time step by itself: (N, T, in) to (N, T, out)."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, rows: Tensor) -> Tensor:
        """The map."""
        pixels, steps, numbers = rows.shape
        out: Tensor = self.dense(rows.view(pixels * steps, numbers))
        return out.view(pixels, steps, -1)


def affine_module(affine: Affine, kind: torch.dtype, plain: bool = False, of_windows: bool = False) -> nn.Module:
    """One map as a module; a plain one uses public operators only, a convolution `of_windows` reads `as_windows`."""
    if of_windows:
        return EachStep(Dense(windowed(affine), kind, plain))
    return _Convolution(affine, kind, plain) if affine.over_time else Dense(affine, kind, plain)


def shared_reach(branches: Branches) -> int:
    """Steps before and after its own that the first convolution of every branch reads; 0 where windows do not pay.

    They pay where few numbers lie under the kernel: oneDNN's convolutions pad each step's channels to full registers.
    """
    firsts = {maps[0].weight.shape[1:] for maps in branches if len(maps) > 1 and maps[0].over_time}
    if len(firsts) != 1 or any(len(maps) < 2 or not maps[0].over_time for maps in branches):
        return 0
    channels, width = next(iter(firsts))
    return width // 2 if channels * width <= _NARROW else 0


def as_windows(rows: Tensor, reach: int, edge: int = 0) -> Tensor:
    """(N, T, C) to (N, T, (2 * reach + 1) * C): each step with its neighbours, `edge` where there are none."""
    pixels, steps, channels = rows.shape
    padded = F.pad(rows, (0, 0, reach, reach), value=edge)
    shape = (pixels, steps, (2 * reach + 1) * channels)
    return padded.as_strided(shape, (padded.stride(0), channels, 1)).contiguous()


def windowed(affine: Affine) -> Affine:
    """A convolution over time as a dense map of `as_windows`."""
    return Affine(affine.weight.transpose(1, 2).flatten(1), affine.bias, affine.relu)


def as_image(rows: Tensor) -> Tensor:
    """(N, T, C) as a channels-last image (N, C, 1, T), without a copy."""
    return rows.unsqueeze(1).permute(0, 3, 1, 2)


def as_rows(image: Tensor) -> Tensor:
    """(N, C, 1, T) as (N, T, C), without a copy where it is channels-last."""
    return image.permute(0, 2, 3, 1)[:, 0]


def fused(rows: Tensor) -> bool:
    """Whether oneDNN can add bias and ReLU while it multiplies (an eighth faster); else the public operators do."""
    if rows.device.type != "cpu" or not (torch.backends.mkldnn.enabled and torch._C._has_mkldnn):
        return False
    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_convolution_pointwise") and hasattr(ops, "_linear_pointwise")):
        return False
    return rows.dtype == torch.float32 or (rows.dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported()))
