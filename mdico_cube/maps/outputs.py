"""Logits of pixels in, the bytes of a map out: which variables a map holds, what they mean and how they are scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mdico_cube.recipe import MapOutput
from mdico_cube.spec import LabelClass

Bytes = npt.NDArray[np.uint8]
NODATA = 255
"""Value where the sensor never observed the pixel; in observations only where a shard was never written."""
LABEL = "label"
"""Dimension of the probabilities: one per class, in the order of the logits; its coordinate holds the map values."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a map, uint8."""

    name: str
    attrs: dict[str, Any]
    """CF attributes."""
    start: int
    """First of its layers in the stack (L, y, x) that a block gives."""
    layers: int | None = None
    """Number of its layers; None for a variable without the label dimension."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return ("y", "x") if self.layers is None else (LABEL, "y", "x")

    def of(self, stack: Any) -> Any:
        """Its part of a stack (L, y, x)."""
        return stack[self.start] if self.layers is None else stack[self.start : self.start + self.layers]


def variables(classes: Sequence[LabelClass], outputs: Sequence[MapOutput] = ()) -> tuple[Variable, ...]:
    """What a map holds: class and confidence, then the wanted extras in the order of their names here."""
    found = [
        Variable("class", _class_attrs(classes), 0),
        Variable("confidence", _attrs("largest class probability"), 1),
    ]
    if "probabilities" in outputs:
        found.append(Variable("probabilities", _attrs("class probability"), depth(found), len(classes)))
    if "entropy" in outputs:
        found.append(Variable("entropy", _attrs("entropy of the class probabilities, 100 = all equal"), depth(found)))
    if "observations" in outputs:
        attrs = {**_attrs("number of observed time steps"), "units": "1"}
        found.append(Variable("observations", attrs, depth(found)))
    return tuple(found)


def depth(found: Sequence[Variable]) -> int:
    """Layers of the stack that holds these variables."""
    return sum(each.layers or 1 for each in found)


def encode(logits: Tensor, values: Tensor, outputs: Sequence[MapOutput]) -> Tensor:
    """Everything that follows from the logits, in the order of `variables`.

    Args:
        logits: (N, K).
        values: (K,) uint8, the map value of each class.
        outputs: the wanted extras.

    Returns:
        (L, N) uint8: class, rounded percent of the largest softmax, rounded percent of each class, entropy as a rounded
        percent of ln K. Observations do not follow from logits and are left out.
    """
    shares = logits.float().softmax(dim=1)  # (N, K)
    best, index = shares.max(dim=1)
    layers = [values[index], _percent(best)]
    if "probabilities" in outputs:
        layers += _percent(shares).unbind(dim=1)
    if "entropy" in outputs:
        layers.append(_percent(torch.special.entr(shares).sum(dim=1) / math.log(shares.shape[1])))
    return torch.stack(layers)


def count_observations(masks: npt.NDArray[np.bool_]) -> Bytes:
    """Observed steps of each pixel, at most 254: (T, N) True = observed to (N,)."""
    counts: Bytes = np.minimum(masks.sum(axis=0), NODATA - 1).astype(np.uint8)
    return counts


def _percent(share: Tensor) -> Tensor:
    return (100 * share).round().clamp(0, 100).to(torch.uint8)


def _class_attrs(classes: Sequence[LabelClass]) -> dict[str, Any]:
    return {
        "long_name": "class",
        "flag_values": [item.value for item in classes],
        "flag_meanings": " ".join(item.name.strip().replace(" ", "_") for item in classes),
        "_FillValue": NODATA,
        "grid_mapping": "spatial_ref",
    }


def _attrs(title: str) -> dict[str, Any]:
    return {"long_name": title, "units": "percent", "_FillValue": NODATA, "grid_mapping": "spatial_ref"}
