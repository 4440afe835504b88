"""One modality of a cube as a frozen object, and the same as plain data for JSON attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdico_cube.spec import Band, Modality, Storage


@dataclass(frozen=True, slots=True)
class Layer:
    """One modality to store: (T, C, y, x), (C, y, x) without time, or (T, C, latitude, longitude) on its own grid."""

    modality: Modality
    steps: tuple[str, ...]
    """ISO date of each step's first day; one empty string without time."""
    latitudes: tuple[float, ...] = ()
    """Cell centres of a coarse modality from north to south, degrees; empty for all others."""
    longitudes: tuple[float, ...] = ()
    """Cell centres of a coarse modality from west to east, degrees without a jump; empty for all others."""
    stops: tuple[str, ...] = ()
    """ISO date of the day after each step's last; nothing where that is not known."""


def describe_layer(layer: Layer) -> dict[str, Any]:
    """A layer as plain data for JSON attributes; `layer_from` reads it back."""
    facts = asdict(layer.modality)
    if np.isnan(layer.modality.storage.missing):
        facts["storage"]["missing"] = None
    own_grid = {"latitudes": list(layer.latitudes), "longitudes": list(layer.longitudes)}
    return {
        **facts,
        "steps": list(layer.steps),
        "stops": list(layer.stops),
        **(own_grid if layer.modality.coarse else {}),
    }


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
        coarse=facts.get("coarse", False),
    )
    steps, latitudes, longitudes, stops = (
        tuple(facts.get(key, ())) for key in ("steps", "latitudes", "longitudes", "stops")
    )
    return Layer(modality, steps, latitudes, longitudes, stops)
