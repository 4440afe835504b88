"""The layers of one sensor's path in, the same function as a few affine maps out: what only training needs is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdico_cube.colearn.inputs import Normalise

Layers = tuple[nn.Module, ...]


@runtime_checkable
class Layered(Protocol):
    """An encoder that is a plain chain of layers over one pixel's series."""

    def layers(self) -> Layers:
        """Layers from (N, C, T) to (N, d): Conv1d, BatchNorm, ReLU, Dropout, Flatten, Linear."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A path as data: logits = head(cat of branches), each a chain of layers over the normalised series."""

    inputs: Normalise
    branches: tuple[Layers, ...]
    """From (N, C, T) to a part of what the head reads."""
    head: Layers
    """Begins with a Linear over the branches' joined outputs."""


@runtime_checkable
class Chained(Protocol):
    """A path that can say what it computes as a chain of layers."""

    def chain(self) -> Chain | None:
        """The path as data, sharing its weights; None where its encoder is no plain chain."""


class Keep(nn.Module):
    """Only the first outputs of the layer before: (N, F) to (N, count)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, rows: Tensor) -> Tensor:
        """The first columns."""
        return rows[:, : self.count]


class UnfoldableError(Exception):
    """A layer that is no part of a chain of affine maps; the model then runs as it is."""


@dataclass(frozen=True, slots=True)
class Affine:
    """W x + b, or the positive part of it."""

    weight: Tensor
    """(out, in) over a whole row, or (out, in, k) as a convolution over time with k // 2 zeros at each end."""
    bias: Tensor
    """(out,)."""
    relu: bool = False

    @property
    def over_time(self) -> bool:
        """A convolution."""
        return self.weight.dim() == 3


def encoder_layers(encoder: nn.Module) -> Layers | None:
    """An encoder's layers where it is a plain chain."""
    return encoder.layers() if isinstance(encoder, Layered) else None


def fold(layers: Sequence[nn.Module], steps: int) -> list[Affine]:
    """Layers as affine maps in float64: batch norm goes into the map before it, neighbouring linear maps become one.

    After the convolutions a row is read with time first, (T, C), as a channels-last convolution leaves it.

    Raises:
        UnfoldableError: a layer of another kind.
    """
    maps: list[Affine] = []
    for layer in layers:
        if isinstance(layer, nn.Conv1d):
            maps.append(_convolution(layer, maps))
        elif isinstance(layer, nn.Linear):
            maps.append(_dense(layer, maps, steps))
        elif isinstance(layer, _BatchNorm):
            maps = _scaled(maps, *_scale_and_shift(layer))
        elif isinstance(layer, nn.ReLU):
            maps[-1] = replace(maps[-1], relu=True)
        elif isinstance(layer, Keep):
            last = maps[-1]
            maps[-1] = replace(last, weight=last.weight[: layer.count], bias=last.bias[: layer.count])
        elif not isinstance(layer, nn.Dropout | nn.Flatten | nn.Identity):
            raise UnfoldableError(type(layer).__name__)
    return joined(maps)


def joined(maps: Sequence[Affine]) -> list[Affine]:
    """Neighbouring linear maps as one wherever that takes no more multiplications."""
    found: list[Affine] = []
    for each in maps:
        last = found[-1] if found else None
        if (
            last is None
            or last.relu
            or last.over_time
            or each.weight.numel() + last.weight.numel() < _product(last, each)
        ):
            found.append(each)
        else:
            found[-1] = Affine(each.weight @ last.weight, each.weight @ last.bias + each.bias, each.relu)
    return found


def _product(first: Affine, second: Affine) -> int:
    return first.weight.shape[1] * second.weight.shape[0]


def _convolution(layer: nn.Conv1d, before: list[Affine]) -> Affine:
    width = layer.kernel_size[0]
    plain = layer.stride == (1,) and layer.dilation == (1,) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not plain or width % 2 == 0 or layer.padding != (width // 2,) or any(not each.over_time for each in before):
        raise UnfoldableError("a convolution that does not keep the number of steps")
    return Affine(layer.weight.double(), _bias(layer))


def _dense(layer: nn.Linear, before: list[Affine], steps: int) -> Affine:
    weight = layer.weight.double()  # (out, C*T) after a flatten of (C, T)
    if not before or before[-1].over_time:
        weight = weight.view(len(weight), -1, steps).transpose(1, 2).flatten(1)  # (out, T*C)
    return Affine(weight, _bias(layer))


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Batch norm in eval mode as x * scale + shift."""
    if norm.running_mean is None or norm.running_var is None:
        raise UnfoldableError("batch norm without running statistics")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _scaled(maps: list[Affine], scale: Tensor, shift: Tensor) -> list[Affine]:
    """Batch norm after the last map; after a ReLU it is a map of its own, which the next linear one takes in."""
    if not maps or (maps[-1].relu and maps[-1].over_time):
        raise UnfoldableError("batch norm that no linear map stands beside")
    last = maps[-1]
    if last.relu:
        return [*maps, Affine(torch.diag(scale), shift)]
    weight = last.weight * scale.view(-1, *(1,) * (last.weight.dim() - 1))
    return [*maps[:-1], replace(last, weight=weight, bias=last.bias * scale + shift)]


def _bias(layer: nn.Linear | nn.Conv1d) -> Tensor:
    if layer.bias is None:
        return layer.weight.new_zeros(len(layer.weight), dtype=torch.float64)
    return layer.bias.double()
