"""One sensor's model in, the same predictions several times faster out: for pixel series, without gradients."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdico_cube.colearn.chains import Affine, Chain, Chained, UnfoldableError, fold, joined
from mdico_cube.colearn.encoders.registry import halo_of
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Precision

_ONE = [1, 1]


class SeriesModel(Protocol):
    """What a map needs of a model."""

    def __call__(self, values: Tensor, valid: Tensor) -> Tensor:
        """(T, C, N) float32 in physical units and (T, N) True = observed to logits (N, K) float32."""


def fast_form(model: nn.Module, precision: Precision = "32-true") -> nn.Module:
    """The fastest form of a sensor's model that gives its predictions: a SeriesModel.

    A path that says what it computes (`Chained`) is folded; any other runs as it is.

    Args:
        model: in eval mode, images (B, T, C, H, W) and valid (B, T, H, W) to logits (B, K, H, W), pixel by pixel.
        precision: of the arithmetic. In bf16 the last map of each branch and the sum stay in float32.

    Raises:
        MdicoError: the model looks beyond the pixel.
    """
    chain = model.chain() if isinstance(model, Chained) else None
    if chain is not None:
        try:
            return FoldedForm(chain, precision)
        except UnfoldableError:
            pass
    return PlainForm(model, precision)


class PlainForm(nn.Module):
    """Any pixel model behind the series interface."""

    def __init__(self, model: nn.Module, precision: Precision = "32-true") -> None:
        super().__init__()
        if halo_of(model):
            raise MdicoError(
                f"this model looks {halo_of(model)} pixels around each pixel and reads no single series: map with it "
                "block by block, or train an encoder of series, as tempcnn."
            )
        self.model = model
        self.low = precision == "bf16"

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """See SeriesModel."""
        images = values.permute(2, 0, 1)[..., None, None].contiguous()  # (N, T, C, 1, 1)
        with torch.autocast(values.device.type, torch.bfloat16, enabled=self.low):
            logits: Tensor = self.model(images, valid.t()[..., None, None])  # (N, K, 1, 1)
        return logits[:, :, 0, 0].float()


class FoldedForm(nn.Module):
    """A chain of affine maps: batch norm and the head folded in, convolutions channels-last."""

    def __init__(self, chain: Chain, precision: Precision = "32-true") -> None:
        super().__init__()
        self.inputs = chain.inputs
        steps = chain.inputs.days.numel()
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.branches = nn.ModuleList(
            nn.Sequential(*(_module(each, kind) for each in maps[:-1]), _module(maps[-1], torch.float32))
            for maps in _with_head([fold(layers, steps) for layers in chain.branches], chain.head[0])
        )
        self.rest = nn.Sequential(*chain.head[1:])
        self.kind = kind

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """See SeriesModel."""
        series = self.inputs.series(values, valid).to(self.kind)  # (T, C, N)
        rows = series.permute(2, 0, 1).contiguous()  # (N, T, C)
        logits = torch.stack([branch(rows) for branch in self.branches]).sum(dim=0)
        found: Tensor = self.rest(logits)
        return found


class _Convolution(nn.Module):
    """A convolution over time: (N, T, C) to (N, T, out) as a channels-last image of one row."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype) -> None:
        super().__init__()
        weight = affine.weight.unsqueeze(2).to(kind).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)  # (out, in, 1, k)
        self.register_buffer("bias", affine.bias.to(kind))
        self.relu, self.padding = affine.relu, [0, affine.weight.shape[2] // 2]

    def forward(self, rows: Tensor) -> Tensor:
        image = rows.unsqueeze(1).permute(0, 3, 1, 2)  # (N, C, 1, T), channels last
        if _fused(image):
            then = "relu" if self.relu else "none"
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                image, self.weight, self.bias, self.padding, _ONE, _ONE, 1, then, [], ""
            )
        else:
            out = F.conv2d(image, self.weight, self.bias, padding=self.padding)
            out = out.relu_() if self.relu else out
        return out.permute(0, 2, 3, 1)[:, 0]  # (N, T, out)


class _Dense(nn.Module):
    """A linear map of the whole row: (N, T, C) or (N, in) to (N, out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", affine.weight.to(kind).contiguous())
        self.register_buffer("bias", affine.bias.to(kind))
        self.relu = affine.relu

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.flatten(1).to(self.weight.dtype)
        if _fused(rows):
            then = "relu" if self.relu else "none"
            return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, then, [], "")  # type: ignore[no-any-return]
        out = F.linear(rows, self.weight, self.bias)
        return out.relu_() if self.relu else out


def _module(affine: Affine, kind: torch.dtype) -> nn.Module:
    return _Convolution(affine, kind) if affine.over_time else _Dense(affine, kind)


def _with_head(branches: list[list[Affine]], head: nn.Module) -> list[list[Affine]]:
    """Each branch with its columns of the head: the sum of their outputs is the head of the joined branches."""
    if not isinstance(head, nn.Linear):
        raise UnfoldableError(type(head).__name__)
    widths = [len(maps[-1].bias) for maps in branches]
    bias = fold([head], 1)[0].bias
    columns = torch.split(head.weight.double(), widths, dim=1)
    biases = [bias, *(torch.zeros_like(bias) for _ in widths[1:])]
    return [joined([*maps, Affine(w, b)]) for maps, w, b in zip(branches, columns, biases, strict=True)]


def _fused(rows: Tensor) -> bool:
    """Whether oneDNN can add bias and ReLU while it multiplies (an eighth faster); else the public operators do."""
    if rows.device.type != "cpu" or not (torch.backends.mkldnn.enabled and torch._C._has_mkldnn):
        return False
    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_convolution_pointwise") and hasattr(ops, "_linear_pointwise")):
        return False
    return rows.dtype == torch.float32 or bool(ops._is_mkldnn_bf16_supported())
