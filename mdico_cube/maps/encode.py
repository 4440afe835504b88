"""Scores of pixels in, the bytes of a map out, as `mdico_cube.maps.outputs` lays them: classes, labels or a value."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mdico_cube.maps.outputs import NODATA, UNKNOWN, UNSURE, Layers, bits_dtype

_LOW, _HIGH = -(1 << 15), (1 << 15) - 2  # of a value in counts; the largest int16 means missing
_LANES = 64
"""Pixels of which a multiple is computed at once: processors round what is left over in another way."""
_LN2 = math.log(2)


def encode(scores: Tensor, values: Tensor, layers: Layers) -> Tensor:
    """Everything that follows from the scores, in the order of `variables`.

    Args:
        scores: (N, K) outputs of a model; with applicability (N, K + 1), the last being the distance in units of its
            threshold.
        values: (K,) uint8, the map value of each class; of labels and of a value only their number counts.
        layers: what is wanted.

    Returns:
        (L, N) uint8. Classes: the class, rounded percent of the largest softmax. Labels: bits of those whose sigmoid is
        above one half, rounded percent of the least sure label's answer. Value: in its unit, as float32 or as counts.
        Then rounded percent of each class or label, entropy as a rounded percent of its largest, distance as a rounded
        percent of its threshold (254 = so much or more), bits of abstain. Observations and sensor do not follow from
        scores and are left out.
    """
    count = len(values)
    answers = scores[:, :count].float()
    if layers.task == "regression":
        found = _value(answers[:, 0], layers)
        sure = None
    elif layers.task == "multilabel":
        found, sure = _labels(answers, layers)
    else:
        found, sure = _classes(answers, values, layers)
    if layers.applicability:
        found.append(_percent(scores[:, count], NODATA - 1))
    if layers.abstain is not None:
        assert sure is not None  # refused before anything is read
        refused = UNSURE * (sure < layers.abstain).to(torch.uint8)
        if layers.applicability:
            refused += UNKNOWN * (scores[:, count] > 1).to(torch.uint8)
        found.append(refused)
    return torch.stack(found)


def _classes(logits: Tensor, values: Tensor, layers: Layers) -> tuple[list[Tensor], Tensor]:
    count, classes = logits.shape
    rows = F.pad(logits.t(), (0, -count % _LANES))  # (K, N and a few more): pixels side by side are computed together
    shares = rows.softmax(dim=0)
    best, index = shares.max(dim=0)
    found = [values.index_select(0, index), _percent(best)]
    if layers.probabilities:
        found += _percent(shares).unbind(dim=0)
    if layers.entropy:
        found.append(_percent(torch.special.entr(shares).sum(dim=0) / math.log(classes)))
    return [each[:count] for each in found], best[:count]


def _labels(logits: Tensor, layers: Layers) -> tuple[list[Tensor], Tensor]:
    shares = logits.sigmoid()  # (N, K)
    there = logits > 0
    least = torch.maximum(shares, 1 - shares).amin(dim=1)
    place = torch.arange(shares.shape[1], device=shares.device)
    bits = (there.long() << place).sum(dim=1)
    found = [*_bytes(bits, _size(bits_dtype(shares.shape[1]))), _percent(least)]
    if layers.probabilities:
        found += _percent(shares).unbind(dim=1)
    if layers.entropy:
        both = torch.special.entr(shares) + torch.special.entr(1 - shares)
        found.append(_percent(both.mean(dim=1) / _LN2))
    return found, least


def _value(scores: Tensor, layers: Layers) -> list[Tensor]:
    value = scores * layers.scale.std + layers.scale.mean  # (N,)
    if layers.step is None:
        return list(value.contiguous().view(torch.uint8).view(-1, 4).unbind(dim=1))
    counts = (value.double() / layers.step).round().clamp(_LOW, _HIGH).long()
    return _bytes(counts - _LOW, 2)


def _bytes(whole: Tensor, size: int) -> list[Tensor]:
    """(N,) whole numbers to their bytes, the lowest first."""
    return [(whole >> (8 * place) & 255).to(torch.uint8) for place in range(size)]


def _size(dtype: str) -> int:
    return int(dtype.removeprefix("uint")) // 8


def _percent(share: Tensor, most: int = 100) -> Tensor:
    return (100 * share).round().clamp(0, most).to(torch.uint8)
