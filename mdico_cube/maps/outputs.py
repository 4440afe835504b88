"""Scores of pixels in, the bytes of a map out: which variables a map holds, what they mean and how they are scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mdico_cube.recipe import MapOptions
from mdico_cube.spec import LabelClass

Bytes = npt.NDArray[np.uint8]
NODATA = 255
"""Value where no sensor observed the pixel or it lies outside the mask; in observations and sensor only the latter."""
LABEL = "label"
"""Dimension of the probabilities: one per class, in the order of the logits; its coordinate holds the map values."""
UNSURE, UNKNOWN = 1, 2
"""Bits of the layer abstain: the probability is too small; the pixel is too unlike what was trained on."""
NO_SENSOR = 0
"""Value of the layer sensor where none was observed."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What a map holds beside class and confidence."""

    probabilities: bool = False
    entropy: bool = False
    applicability: bool = False
    """Needs a distance as the last of a pixel's scores."""
    abstain: float | None = None
    """Smallest probability that counts as an answer; None = no such layer."""
    observations: bool = False
    sensors: tuple[str, ...] = ()
    """Names of the sensors the map chooses among or fuses; none = no such layer."""
    fused: bool = False
    """The layer sensor holds one bit per sensor instead of one number."""

    @classmethod
    def of(cls, options: MapOptions, sensors: tuple[str, ...] = (), fused: bool = False) -> Layers:
        """What the options ask for."""
        extras = dict.fromkeys(options.outputs, True)
        return cls(**extras, abstain=options.abstain, sensors=sensors, fused=fused)


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


def variables(classes: Sequence[LabelClass], layers: Layers | None = None) -> tuple[Variable, ...]:
    """What a map holds: class and confidence, then the wanted extras, those that follow from the scores first."""
    layers = layers or Layers()
    wanted: list[tuple[str, dict[str, Any], int | None]] = [
        ("class", _class_attrs(classes), None),
        ("confidence", _attrs("largest class probability"), None),
    ]
    if layers.probabilities:
        wanted.append(("probabilities", _attrs("class probability"), len(classes)))
    if layers.entropy:
        wanted.append(("entropy", _attrs("entropy of the class probabilities, 100 = all equal"), None))
    if layers.applicability:
        title = "distance to the training data, 100 = as far as the data themselves reach"
        wanted.append(("applicability", _attrs(title), None))
    if layers.abstain is not None:
        wanted.append(("abstain", _abstain_attrs(layers), None))
    if layers.observations:
        wanted.append(("observations", {**_attrs("number of observed time steps"), "units": "1"}, None))
    if layers.sensors:
        wanted.append(("sensor", _sensor_attrs(layers), None))
    found: list[Variable] = []
    for name, attrs, count in wanted:
        found.append(Variable(name, attrs, depth(found), count))
    return tuple(found)


def depth(found: Sequence[Variable]) -> int:
    """Layers of the stack that holds these variables."""
    return sum(each.layers or 1 for each in found)


def encode(scores: Tensor, values: Tensor, layers: Layers) -> Tensor:
    """Everything that follows from the scores, in the order of `variables`.

    Args:
        scores: (N, K) logits; with applicability (N, K + 1), the last being the distance in units of its threshold.
        values: (K,) uint8, the map value of each class.
        layers: what is wanted.

    Returns:
        (L, N) uint8: class, rounded percent of the largest softmax, rounded percent of each class, entropy as a rounded
        percent of ln K, distance as a rounded percent of its threshold (254 = so much or more), bits of abstain.
        Observations and sensor do not follow from scores and are left out.
    """
    count = len(values)
    shares = scores[:, :count].float().softmax(dim=1)  # (N, K)
    best, index = shares.max(dim=1)
    found = [values[index], _percent(best)]
    if layers.probabilities:
        found += _percent(shares).unbind(dim=1)
    if layers.entropy:
        found.append(_percent(torch.special.entr(shares).sum(dim=1) / math.log(count)))
    if layers.applicability:
        found.append(_percent(scores[:, count], NODATA - 1))
    if layers.abstain is not None:
        refused = UNSURE * (best < layers.abstain).to(torch.uint8)
        if layers.applicability:
            refused += UNKNOWN * (scores[:, count] > 1).to(torch.uint8)
        found.append(refused)
    return torch.stack(found)


def count_observations(masks: npt.NDArray[np.bool_]) -> Bytes:
    """Observed steps of each pixel, at most 254: (T, ...) True = observed to (...)."""
    counts: Bytes = np.minimum(masks.sum(axis=0), NODATA - 1).astype(np.uint8)
    return counts


def _percent(share: Tensor, most: int = 100) -> Tensor:
    return (100 * share).round().clamp(0, most).to(torch.uint8)


def _words(names: Sequence[str]) -> str:
    return " ".join(name.strip().replace(" ", "_") for name in names)


def _class_attrs(classes: Sequence[LabelClass]) -> dict[str, Any]:
    return {
        "long_name": "class",
        "flag_values": [item.value for item in classes],
        "flag_meanings": _words([item.name for item in classes]),
        "_FillValue": NODATA,
        "grid_mapping": "spatial_ref",
    }


def _abstain_attrs(layers: Layers) -> dict[str, Any]:
    found = {**_attrs("why no answer is given, 0 = an answer"), "units": "1", "flag_masks": [UNSURE]}
    found |= {"flag_meanings": "unsure", "smallest_probability": layers.abstain}
    if layers.applicability:
        found |= {"flag_masks": [UNSURE, UNKNOWN], "flag_meanings": "unsure unlike_the_training_data"}
    return found


def _sensor_attrs(layers: Layers) -> dict[str, Any]:
    found = {**_attrs("sensor the pixel was mapped with, 0 = none observed"), "units": "1"}
    if layers.fused:
        bits = [1 << bit for bit in range(len(layers.sensors))]
        return {**found, "long_name": "sensors the pixel was mapped with", "flag_masks": bits,
                "flag_meanings": _words(layers.sensors)}  # fmt: skip
    numbers = list(range(len(layers.sensors) + 1))
    return {**found, "flag_values": numbers, "flag_meanings": _words(("none", *layers.sensors))}


def _attrs(title: str) -> dict[str, Any]:
    return {"long_name": title, "units": "percent", "_FillValue": NODATA, "grid_mapping": "spatial_ref"}
