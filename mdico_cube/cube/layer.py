"""One modality of a cube as a frozen object, and the same as plain data for JSON attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdico_cube.spec import Band, Modality, Storage


@dataclass(frozen=True, slots=True)
class Layer:
    """One modality to store: (T, C, y, x), or (C, y, x) without time."""

    modality: Modality
    steps: tuple[str, ...]
    """ISO date of each step's first day; one empty string without time."""


def describe_layer(layer: Layer) -> dict[str, Any]:
    """A layer as plain data for JSON attributes; `layer_from` reads it back."""
    facts = asdict(layer.modality)
    if np.isnan(layer.modality.storage.missing):
        facts["storage"]["missing"] = None
    return {**facts, "steps": list(layer.steps)}


def layer_from(facts: Mapping[str, Any]) -> Layer:
    """The layer that `describe_layer` wrote."""
    storage = dict(facts["storage"])
    if storage["missing"] is None:
        storage["missing"] = np.nan
    modality = Modality(
        name=facts["name"],
        variable=facts["variable"],
        bands=tuple(Band(**band) for band in facts["bands"]),
        storage=Storage(**storage),
        temporal=facts["temporal"],
        title=facts["title"],
    )
    return Layer(modality, tuple(facts["steps"]))
