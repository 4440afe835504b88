"""What a small study of options tries, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mdico_cube.recipe.section import Section


class RangeSection(Section):
    """Numbers from low to high."""

    low: float
    high: float
    log: bool = False
    """Drawn evenly in their logarithm: for step sizes and weights."""
    whole: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"runs from low to a larger high, above 0 where it is log; came {self.low:g} to {self.high:g}"
            )
        return self


def _form(value: Any) -> str:
    return "range" if isinstance(value, dict | RangeSection) else "values"


Choices = Annotated[tuple[str | int | float | bool, ...], Field(min_length=2)]
Tried = Annotated[Annotated[RangeSection, Tag("range")] | Annotated[Choices, Tag("values")], Discriminator(_form)]


class TuneSection(Section):
    """A small study of options: `mdico tune`. It looks at the inner validation split only."""

    method: str | None = None
    """Method to tune; null = the last of methods."""
    trials: Annotated[int, Field(ge=1)] = 20
    """Settings that are tried, in all runs together."""
    modality: str | None = None
    """Judge by this sensor alone; null takes the mean over all."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Trainings of each trial; their mean counts."""
    space: dict[str, Tried] = {
        "train.learning_rate": RangeSection(low=3e-4, high=1e-2, log=True),
        "train.epochs": (20, 30, 40),
        "encoder.dropout": RangeSection(low=0.0, high=0.5),
        "encoder.hidden": (64, 128),
    }
    """Option of the colearn section -> its values: a list, or low and high."""
