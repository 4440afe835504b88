"""Which maps are made, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdico_cube.recipe.section import Section
from mdico_cube.recipe.training import Precision

MapOutput = Literal["probabilities", "entropy", "observations"]


class MapSection(Section):
    """Which maps are drawn."""

    modalities: tuple[str, ...] | None = None
    """Sensors to map with, one at a time; null = every co-learned one."""
    methods: tuple[str, ...] | None = None
    """Methods to map with; null = every trained one."""
    seeds: Literal["first", "all"] = "first"
    """Map with the first seed's model or with every seed's (scores then come with a spread)."""
    pixels: Annotated[int, Field(ge=1)] = 1024
    """Pixels that go through the model at once: small enough to stay in the processor's cache."""
    precision: Precision = "32-true"
    """Arithmetic of the model: bf16 is about twice as fast where the processor knows it and changes a few classes; the
    share is measured on the validation windows and written into the bundle's scores and the map's attributes."""
    outputs: tuple[MapOutput, ...] = ()
    """A map's extras beside class and confidence: probabilities and entropy in percent, observations = valid steps."""
