"""A seed, a size and a year in, everything the sensors look at out."""

from __future__ import annotations

from dataclasses import dataclass

from mdico_cube.demo.landscape import Landscape, build_landscape
from mdico_cube.demo.radar import Echo, tune_echo
from mdico_cube.demo.season import Season, Weather, draw_weather, grow
from mdico_cube.demo.spectra import Materials, mix_materials


@dataclass(frozen=True, slots=True)
class World:
    """One landscape in one year."""

    seed: int
    year: int
    landscape: Landscape
    season: Season
    materials: Materials
    echo: Echo

    @property
    def weather(self) -> Weather:
        """The year's weather."""
        return self.season.weather


def build_world(seed: int, size: int, year: int) -> World:
    """Draw the landscape, let it grow through the year and give every parcel its colours and echoes."""
    landscape = build_landscape(seed, size)
    season = grow(seed, landscape.kind, draw_weather(seed, year))
    materials = mix_materials(seed, landscape.kind, season)
    return World(seed, year, landscape, season, materials, tune_echo(seed, landscape.kind))
