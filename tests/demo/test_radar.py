"""What the radar measures: speckle with the right looks, wet soil, volume, and slopes by look direction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdico_cube.demo.landscape import BUILT, CRS, FOREST, GRASS, MAIZE, WATER
from mdico_cube.demo.noise import generator
from mdico_cube.demo.radar import LOOKS, backscatter, observe
from mdico_cube.demo.sampling import Footprints, footprints, grid_over
from mdico_cube.demo.world import World


@pytest.fixture(scope="module")
def prints(world: World) -> Footprints:
    found = footprints(world.landscape, grid_over(world.landscape.frame.bounds, CRS, 10, 0, 10))
    zero = np.zeros_like(found.east)
    return replace(found, east=zero, north=zero, vigour=found.vigour * 0, soil=found.soil * 0)


def measure(world: World, prints: Footprints, direction: str = "ascending", key: str = "a") -> np.ndarray:
    parcels = np.full((world.landscape.parcels, 2), 0.1, dtype=np.float32)
    none = np.zeros(prints.east.size, dtype=np.float32)
    built = np.zeros(world.landscape.parcels, dtype=np.float32)
    return observe(generator(0, key), prints, parcels, none, direction, built)


def test_speckle_has_the_declared_looks(world: World, prints: Footprints) -> None:
    power = measure(world, prints)
    assert power.dtype == np.float32
    assert np.allclose(power.mean(axis=0), 0.1016, rtol=0.03)
    assert np.allclose(power.mean(axis=0) ** 2 / power.var(axis=0), LOOKS, rtol=0.08)
    assert abs(np.corrcoef(power.T)[0, 1]) < 0.05


def test_slopes_facing_the_radar_are_brighter(world: World, prints: Footprints) -> None:
    east = replace(prints, east=prints.east + np.float32(0.15))  # rises to the east
    brighter = measure(world, east, "ascending") / measure(world, prints, "ascending")  # looks to the east
    darker = measure(world, east, "descending") / measure(world, prints, "descending")
    assert brighter.min() > 1.1
    assert darker.max() < 0.92


def power_of(world: World, day: int, moisture: float | None = None) -> np.ndarray:
    season = world.season
    if moisture is not None:
        weather = replace(season.weather, moisture=season.weather.moisture * 0 + np.float32(moisture))
        season = replace(season, weather=weather)
    return backscatter(generator(0, "b"), season, world.echo, world.landscape.kind, day, "descending")


def test_classes_stand_in_the_known_order(world: World) -> None:
    kind, power = world.landscape.kind, 10 * np.log10(power_of(world, 200))
    means = {k: power[kind == k].mean(axis=0) for k in (GRASS, FOREST, BUILT, WATER)}
    assert means[BUILT][0] > means[FOREST][0] > means[GRASS][0] > means[WATER][0] + 3
    assert means[FOREST][1] > means[GRASS][1] > means[WATER][1] + 3


def test_soil_moisture_raises_bare_fields(world: World) -> None:
    maize = world.landscape.kind == MAIZE
    rise = 10 * np.log10(power_of(world, 130, 0.9)[maize] / power_of(world, 130, 0.1)[maize])
    assert 2 < np.median(rise[:, 0]) < 6
    assert rise.min() > -0.01


def test_maize_grows_into_vh(world: World) -> None:
    maize = world.landscape.kind == MAIZE
    grown, bare = power_of(world, 225, 0.4)[maize], power_of(world, 135, 0.4)[maize]
    assert 10 * np.log10(grown[:, 1].mean() / bare[:, 1].mean()) > 1.5
