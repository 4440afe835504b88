"""Branches and rows of real pixels in, the ranges their values take and the same branches in 8-bit integers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdico_cube.colearn.chains import Affine
from mdico_cube.colearn.engines import (
    Branches,
    Dense,
    EachStep,
    Taps,
    affine_module,
    as_image,
    as_rows,
    as_windows,
    shared_reach,
    tap_modules,
    windowed,
    with_embedding,
)
from mdico_cube.errors import MdicoError

Ranges = tuple[tuple[tuple[float, float], ...], ...]
"""Per branch and map but the last: smallest and largest value that comes in; then that of the last map's input."""
LEVELS = 255
_WIDE, _NARROW = 127, 64  # largest integer of a weight; with 64 two products of bytes fit into 16 bits
_SUMS_IN_32_BITS = ("avx512_vnni", "avx_vnni", "amx_int8")  # as torch names a processor's abilities
_CUT = 1e-5  # share of values at each end that may lie outside their range
_SAMPLED = 1 << 20


@dataclass(frozen=True, slots=True)
class Scale:
    """value = (byte - zero) * step, bytes from 0 to 255."""

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """The scale that spans this range and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / LEVELS or 1.0 / LEVELS
        return cls(step, round(-low / step))


def observe(branches: Branches, rows: Tensor) -> Ranges:
    """What ranges the values take in front of every map.

    Args:
        branches: of a folded model.
        rows: (N, T, C) normalised series of real pixels, as many as show the spread.
    """
    found = []
    with torch.inference_mode():
        for maps in branches:
            values, ranges = rows, []
            for each in maps[:-1]:
                ranges.append(_range(values))
                values = affine_module(each, torch.float32)(values)
            found.append((*ranges, _range(values)))
    return tuple(found)


def _range(values: Tensor) -> tuple[float, float]:
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // _SAMPLED)]
    low, high = torch.quantile(some, torch.tensor([_CUT, 1 - _CUT])).tolist()
    return low, high


@cache
def largest_weight() -> int:
    """Largest integer of a weight on this processor.

    x86 processors without VNNI instructions add pairs of products in 16 bits, which overflow with whole 8-bit weights
    in every backend; they get weights of 7 bits.
    """
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    wide = found.get("architecture") not in (None, "x86_64") or any(found.get(name) for name in _SUMS_IN_32_BITS)
    return _WIDE if wide else _NARROW


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, ...) float to int8 and the step of each output (out,) float32; see `largest_weight`."""
    most = largest_weight()
    step = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12).float() / most
    shaped = step.view(-1, *(1,) * (weight.dim() - 1))
    return (weight / shaped).round().clamp(-most, most).to(torch.int8), step


class Int8Branches(nn.Module):
    """Branches in 8-bit integers; the last map of each and the sum stay in float32. Integers make it exact."""

    def __init__(self, branches: Branches, ranges: Ranges, taps: Taps | None = None) -> None:
        super().__init__()
        if not int8_runs():
            raise MdicoError(
                "precision int8 needs a torch whose oneDNN has 8-bit operators, this one has none. "
                "Use maps.backend onnx or openvino, or another precision."
            )
        check_ranges(branches, ranges)
        self.first, self.reach = Scale.of(*ranges[0][0]), shared_reach(branches)
        parts = [_Branch(maps, found, self.reach > 0) for maps, found in zip(branches, ranges, strict=True)]
        self.branches, self._parts = nn.ModuleList(parts), tuple(parts)
        self.taps = None if taps is None else tap_modules(taps)

    def forward(self, rows: Tensor) -> Tensor:
        """See RowModel."""
        shift = rows.new_tensor(self.first.zero + 0.5)
        coded = torch.add(shift, rows, alpha=1 / self.first.step).clamp_(0, LEVELS + 0.5).to(torch.uint8)
        coded = as_windows(coded, self.reach, self.first.zero) if self.reach else coded
        insides = [branch.inside(rows, coded) for branch in self._parts]
        outputs = [branch.last(inside) for branch, inside in zip(self._parts, insides, strict=True)]
        if self.taps is None:
            return torch.stack(outputs).sum(dim=0)
        return with_embedding(outputs, insides, self.taps)


class _Branch(nn.Module):
    def __init__(self, maps: Sequence[Affine], ranges: tuple[tuple[float, float], ...], of_windows: bool) -> None:
        super().__init__()
        scales = [Scale.of(*each) for each in ranges]
        last = len(maps) - 2
        inside = [windowed(maps[0]), *maps[1:-1]] if of_windows else maps[:-1]
        parts: list[nn.Module] = [
            _Map(each, scales[i], None if i == last else scales[i + 1]) for i, each in enumerate(inside)
        ]
        self.maps = nn.ModuleList([EachStep(parts[0]), *parts[1:]] if of_windows else parts)
        self.last = Dense(maps[-1], torch.float32)

    def inside(self, rows: Tensor, coded: Tensor) -> Tensor:
        """What the last map reads."""
        values = coded if len(self.maps) else rows
        for each in self.maps:
            values = each(values)
        return values


class _Map(nn.Module):
    """One affine map on bytes; to bytes, or to float32 where `after` is None."""

    weight: Tensor
    step: Tensor
    zeros: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, before: Scale, after: Scale | None) -> None:
        super().__init__()
        coded, step = quantise_weight(affine.weight)
        self.register_buffer("weight", coded)
        self.register_buffer("step", step)
        self.register_buffer("zeros", torch.zeros(len(step), dtype=torch.int64))
        self.register_buffer("bias", affine.bias.float())
        self.over_time, self.then = affine.over_time, "relu" if affine.relu else "none"
        self.padding = [0, affine.weight.shape[2] // 2] if affine.over_time else []
        self.before = before
        self.after = (1.0, 0, torch.float32) if after is None else (after.step, after.zero, torch.uint8)
        self.packed: dict[tuple[int, ...], Tensor] = {}

    def forward(self, rows: Tensor) -> Tensor:
        packed = self.packed.get(tuple(rows.shape))
        if packed is None:
            packed = self.packed[tuple(rows.shape)] = self._pack(rows)
        ops, before = torch.ops.onednn, self.before
        about = (before.step, before.zero, packed, self.step, self.zeros, self.bias)
        if self.over_time:
            out: Tensor = ops.qconv_pointwise(
                as_image(rows), *about, [1, 1], self.padding, [1, 1], 1, *self.after, self.then, [], ""
            )
            return as_rows(out)
        found: Tensor = ops.qlinear_pointwise(rows.flatten(1), *about, *self.after, self.then, [], "")
        return found

    def _pack(self, rows: Tensor) -> Tensor:
        """The weight as oneDNN wants it for rows of this shape."""
        ops, before = torch.ops.onednn, self.before
        if self.over_time:
            n, t, c = rows.shape
            weight = self.weight.unsqueeze(2)  # (out, in, 1, k)
            packed: Tensor = ops.qconv_prepack(
                weight, self.step, before.step, before.zero, [1, 1], self.padding, [1, 1], 1, [n, c, 1, t]
            )
            return packed
        found: Tensor = ops.qlinear_prepack(self.weight, [len(rows), self.weight.shape[1]])
        return found


def dequantised(affine: Affine) -> Affine:
    """A map with the weights that its 8-bit form really has."""
    coded, step = quantise_weight(affine.weight)
    weight = coded.double() * step.double().view(-1, *(1,) * (affine.weight.dim() - 1))
    return Affine(weight, affine.bias, affine.relu)


def simulate(branches: Branches, ranges: Ranges, rows: Tensor) -> Tensor:
    """What 8-bit branches compute, in float64: the oracle of every 8-bit backend."""
    total = None
    for maps, found in zip(branches, ranges, strict=True):
        values = rows.double()
        for each, scale in zip(maps[:-1], (Scale.of(*one) for one in found), strict=False):
            values = _apply(dequantised(each), _rounded(values, scale))
        out = _apply(maps[-1], values)
        total = out if total is None else total + out
    assert total is not None
    return total


def _rounded(values: Tensor, scale: Scale) -> Tensor:
    return ((values / scale.step).round() + scale.zero).clamp(0, LEVELS).sub(scale.zero) * scale.step


def _apply(affine: Affine, values: Tensor) -> Tensor:
    if affine.over_time:
        weight = affine.weight.double()
        out = F.conv1d(values.transpose(1, 2), weight, affine.bias.double(), padding=weight.shape[2] // 2).transpose(
            1, 2
        )
    else:
        out = F.linear(values.flatten(1), affine.weight.double(), affine.bias.double())
    return out.relu() if affine.relu else out


def check_ranges(branches: Branches, ranges: Ranges) -> None:
    """Raise MdicoError unless these ranges were measured on branches of this form."""
    if [len(maps) for maps in branches] != [len(found) for found in ranges]:
        raise MdicoError(
            "the bundle's int8 calibration was made for another network than its own. Calibrate it again with "
            "`mdico quantize`."
        )


def int8_runs() -> bool:
    """Whether this torch has oneDNN's operators on bytes."""
    ops = torch.ops.onednn
    return bool(torch._C._has_mkldnn) and hasattr(ops, "qconv_pointwise") and hasattr(ops, "qlinear_pointwise")
