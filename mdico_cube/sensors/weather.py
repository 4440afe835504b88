"""What a weather sensor is to the cube: its bands, what each is made of, and which of that a source can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import StoreRules, StoreVariable, WeatherKind
from mdico_cube.spec import Array, Modality

Operator = Literal["mean", "sum", "min", "max"]
MAKES: dict[WeatherKind, tuple[Operator, ...]] = {
    "instant": ("mean", "min", "max"),
    "mean": ("mean",),
    "min": ("min",),
    "max": ("max",),
    "sum": ("sum",),
    "per_day": ("sum",),
    "since_midnight": ("sum",),
}
"""What can be made of samples of each kind: the mean of a day has no hourly minimum in it, a sum no mean."""


class Formula(NamedTuple):
    """A band that is computed from several variables at every moment, before anything is averaged."""

    needs: tuple[str, ...]
    compute: Callable[..., Array]


@dataclass(frozen=True, slots=True)
class Weather:
    """A sensor that comes as coarse grids in time: what its bands are and how each becomes one value per step."""

    modality: Modality
    """Every band it can give, in stored order."""
    defaults: tuple[str, ...]
    """Bands a recipe gets when it names none."""
    operators: Mapping[str, Operator]
    """Band -> what becomes of its samples in a step."""
    formulas: Mapping[str, Formula] = field(default_factory=dict)
    """Band -> how it follows from other bands' samples, where the source does not give it."""
    entry: str = ""
    """Entry of a catalog file it is found under, where that is not its own name."""
    query: Mapping[str, object] = field(default_factory=dict)
    """Properties that its items must have."""

    def unit(self, band: str) -> str:
        """The unit of one of its bands."""
        return next(one.unit for one in self.modality.bands if one.name == band)


@dataclass(frozen=True, slots=True)
class Making:
    """How one band is made of one source."""

    band: str
    operator: Operator
    names: tuple[str, ...]
    """Bands whose values are read: its own, or those that a formula joins."""
    variables: tuple[StoreVariable, ...]
    """Where they stand, one for each name."""
    compute: Callable[..., Array] | None
    """(values of each variable) -> values of the band; None where there is only one variable."""

    @property
    def kind(self) -> WeatherKind:
        """What the samples are; a formula joins moments only."""
        return self.variables[0].kind


def band_recipe(weather: Weather, band: str, rules: StoreRules, source: str) -> Making:
    """How a band is made of what a source has.

    Args:
        weather: the sensor.
        band: one of its bands.
        rules: how the source stands.
        source: what to call it in an error.

    Raises:
        MdicoError: the source has no variable that the band can be made of.
    """
    operator, formula = weather.operators[band], weather.formulas.get(band)
    own = rules.variables.get(band)
    if own is not None:
        if operator not in MAKES[own.kind]:
            raise MdicoError(
                f"{source}: {band} is the {operator} over a step, which values of kind {own.kind} do not tell. "
                f"Declare a variable of kind {' or '.join(kind for kind, can in MAKES.items() if operator in can)}."
            )
        return Making(band, operator, (band,), (own,), None)
    parts = [rules.variables.get(name) for name in formula.needs] if formula else []
    if formula and parts and all(part is not None and part.kind == "instant" for part in parts):
        found = tuple(part for part in parts if part is not None)
        return Making(band, operator, formula.needs, found, formula.compute)
    needs = f"; it would take values of single moments of {' and '.join(formula.needs)}" if formula else ""
    raise MdicoError(
        f"{source} does not tell {weather.modality.name}'s {band}: it has {', '.join(rules.variables)}{needs}. "
        f"Leave {band} out of the bands, or use another source."
    )
