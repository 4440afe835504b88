"""A task and what is wanted in, a map's variables out: what each means, its type, its place in a block's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdico_cube.colearn.tasks import Scale
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
MAIN = {"classes": "class", "multilabel": "labels", "regression": "value"}
"""Task -> the variable that holds its answer."""
_UNSCALED = Scale()


@dataclass(frozen=True, slots=True)
class Layers:
    """What a map holds beside class and confidence."""

    task: str = "classes"
    """What the answer is; see MAIN."""
    scale: Scale = _UNSCALED
    """Of a value: mean and standard deviation that a model's output is given in."""
    step: float | None = None
    """Of a value: what one count of an integer is worth; None = float32."""
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
    def of(
        cls, options: MapOptions, sensors: tuple[str, ...] = (), fused: bool = False, task: str = "classes",
        scale: Scale = _UNSCALED,
    ) -> Layers:  # fmt: skip
        """What the options ask for; a map of labels side by side always holds the probability of each."""
        extras: dict[str, Any] = dict.fromkeys(options.outputs, True)
        extras |= {"probabilities": True} if task == "multilabel" else {}
        facts: dict[str, Any] = {"task": task, "scale": scale, "step": options.step, "abstain": options.abstain}
        return cls(**extras, **facts, sensors=sensors, fused=fused)


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a map."""

    name: str
    attrs: dict[str, Any]
    """CF attributes."""
    start: int
    """First of its bytes in the stack (L, y, x) that a block gives."""
    layers: int | None = None
    """Number of its layers; None for a variable without the label dimension."""
    dtype: str = "uint8"
    """Of its values; several bytes stand one behind the other in the stack, the lowest first."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return ("y", "x") if self.layers is None else (LABEL, "y", "x")

    @property
    def missing(self) -> float:
        """Its value where nothing was predicted."""
        return missing(self.dtype)

    @property
    def depth(self) -> int:
        """Its bytes per pixel."""
        return (self.layers or 1) * np.dtype(self.dtype).itemsize

    def of(self, stack: Any) -> Any:
        """Its part of a stack (L, y, x); lazy where the stack is."""
        part = stack[self.start : self.start + self.depth]
        if self.layers is not None:
            return part
        if self.depth == 1:
            return part[0]
        if isinstance(part, np.ndarray):
            return assembled(part, self.dtype)
        return part.map_blocks(assembled, self.dtype, dtype=self.dtype, drop_axis=0)

    def predicted(self, stack: Bytes) -> npt.NDArray[np.bool_]:
        """(y, x) True where a stack holds a value of it."""
        found = self.of(stack)
        return np.asarray(~np.isnan(found) if self.dtype == "float32" else found != self.missing)


def missing(dtype: str) -> float:
    """What stands for no prediction: NaN, or the largest integer."""
    return float("nan") if dtype == "float32" else int(np.iinfo(dtype).max)


def assembled(planes: Bytes, dtype: str) -> npt.NDArray[Any]:
    """Bytes (b, y, x), the lowest first, to values (y, x); bytes that are all 255 give the missing value.

    Signed integers are counted from their smallest one on.
    """
    rows = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    if dtype == "float32":
        found = rows.view("<f4")[..., 0]
        return np.where(np.isnan(found), np.float32(np.nan), found)
    counts = rows.view(f"<u{rows.shape[-1]}")[..., 0]
    low = np.iinfo(dtype).min
    return counts if low == 0 else (counts.astype(np.int64) + low).astype(dtype)


def bits_dtype(labels: int) -> str:
    """The smallest unsigned integer that has a bit for each label and one to spare: all ones then mean missing."""
    return next(f"uint{size}" for size in (8, 16, 32, 64) if labels < size)


def value_dtype(step: float | None) -> str:
    """Of a map of values."""
    return "float32" if step is None else "int16"


def variables(classes: Sequence[LabelClass], layers: Layers | None = None) -> tuple[Variable, ...]:
    """What a map holds: its answer first, then the wanted extras, those that follow from the scores first."""
    layers = layers or Layers()
    wanted: list[tuple[str, dict[str, Any], int | None, str]] = []

    def add(name: str, attrs: dict[str, Any], count: int | None = None, dtype: str = "uint8") -> None:
        wanted.append((name, attrs, count, dtype))

    if layers.task == "regression":
        add("value", _value_attrs(classes[0], layers), None, value_dtype(layers.step))
    elif layers.task == "multilabel":
        dtype = bits_dtype(len(classes))
        add("labels", _labels_attrs(classes, dtype), None, dtype)
        add("confidence", _attrs("probability of the answer to the least sure label"))
    else:
        add("class", _class_attrs(classes))
        add("confidence", _attrs("largest class probability"))
    if layers.probabilities:
        what = "label" if layers.task == "multilabel" else "class"
        add("probabilities", _attrs(f"{what} probability"), len(classes))
    if layers.entropy:
        title = "entropy of the class probabilities, 100 = all equal"
        several = "mean entropy of the labels' probabilities, 100 = all of them one half"
        add("entropy", _attrs(several if layers.task == "multilabel" else title))
    if layers.applicability:
        add("applicability", _attrs("distance to the training data, 100 = as far as the data themselves reach"))
    if layers.abstain is not None:
        add("abstain", _abstain_attrs(layers))
    if layers.observations:
        add("observations", {**_attrs("number of observed time steps"), "units": "1"})
    if layers.sensors:
        add("sensor", _sensor_attrs(layers))
    found: list[Variable] = []
    for name, attrs, count, dtype in wanted:
        found.append(Variable(name, attrs, depth(found), count, dtype))
    return tuple(found)


def depth(found: Sequence[Variable]) -> int:
    """Bytes per pixel of the stack that holds these variables."""
    return sum(each.depth for each in found)


def stack_depth(classes: int, layers: Layers) -> int:
    """The same for a number of classes whose names nobody asks for."""
    first = {"classes": 1, "regression": np.dtype(value_dtype(layers.step)).itemsize}
    main = first.get(layers.task) or np.dtype(bits_dtype(classes)).itemsize
    extras = (layers.entropy, layers.applicability, layers.abstain is not None, layers.observations, layers.sensors)
    sure = layers.task != "regression"
    return main + sure + classes * layers.probabilities + sum(map(bool, extras))


def count_observations(masks: npt.NDArray[np.bool_]) -> Bytes:
    """Observed steps of each pixel, at most 254: (T, ...) True = observed to (...)."""
    counts: Bytes = np.minimum(masks.sum(axis=0), NODATA - 1).astype(np.uint8)
    return counts


def _words(names: Sequence[str]) -> str:
    return " ".join(name.strip().replace(" ", "_") for name in names)


def _value_attrs(item: LabelClass, layers: Layers) -> dict[str, Any]:
    found: dict[str, Any] = {"long_name": item.name, "grid_mapping": "spatial_ref"}
    if layers.step is not None:  # of a float, NaN says it
        found |= {"scale_factor": layers.step, "add_offset": 0.0, "_FillValue": missing("int16")}
    return found


def _labels_attrs(classes: Sequence[LabelClass], dtype: str) -> dict[str, Any]:
    return {
        "long_name": "labels that are there",
        "units": "1",
        "flag_masks": [1 << bit for bit in range(len(classes))],
        "flag_meanings": _words([item.name for item in classes]),
        "_FillValue": missing(dtype),
        "grid_mapping": "spatial_ref",
    }


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
