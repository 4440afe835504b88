"""A year's weather and a landscape in, the daily state of every parcel out: leaves, straw, flowers, standing mass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mdico_cube.demo.landscape import BEET, BUILT, CLASSES, FOREST, GRASS, MAIZE, RAPESEED, WATER, WHEAT
from mdico_cube.demo.noise import generator, sigmoid, smooth_series
from mdico_cube.spec import Array, Floats

DAYS = 366
"""Simulated days of a year; the last one counts in leap years only."""
LEAD = 120
"""Days simulated before 1 January, so that the year starts with a settled soil."""


@dataclass(frozen=True, slots=True)
class Weather:
    """Daily weather of one year in the region's middle."""

    year: int
    temperature: Floats
    """(366,) daily mean at 2 m, degrees Celsius."""
    rain: Floats
    """(366,) daily sum, mm."""
    moisture: Floats
    """(366,) soil moisture, 0 = dry, 1 = full."""
    usual: Floats
    """(366,) temperature of an average year, degrees Celsius."""

    def day(self, time: pd.Timestamp) -> int:
        """Index of a date's day."""
        return int(time.dayofyear) - 1

    def shift(self, usual_day: float, base: float) -> float:
        """Days later (positive) than usual that the thermal sum of `usual_day` above `base` is reached."""
        usual, actual = (np.cumsum(np.maximum(t - base, 0)) for t in (self.usual, self.temperature))
        reached = int(np.searchsorted(actual, usual[int(usual_day)]))
        return float(np.clip(reached - usual_day, -18, 18))


def draw_weather(seed: int, year: int) -> Weather:
    """A temperate year: one cold or warm anomaly per season, wet and dry spells, a soil that fills and empties."""
    rng = generator(seed, "weather", year)
    day = np.arange(-LEAD, DAYS)
    usual = 10.4 - 8.3 * np.cos(2 * np.pi * (day - 17) / 365.25)
    spell = 1.1 * smooth_series(rng, (1, 4 * day.size), 35)[0, : day.size] + rng.normal(0, 0.5)
    quick = 2.6 * smooth_series(rng, (1, 4 * day.size), 2.0)[0, : day.size]
    temperature = usual + spell + quick
    wetness = 0.8 * smooth_series(rng, (1, 4 * day.size), 1.5)[0, : day.size] + 0.6 * rng.standard_normal(day.size)
    rain = np.where(wetness > 0.1, rng.gamma(0.75, 6.2, day.size), 0.0)
    moisture = np.empty(day.size)
    store = 0.7
    for i in range(day.size):
        loss = 0.0105 * max(temperature[i] + 3, 0.5) / 4.2 * store
        store = float(np.clip(store + rain[i] / 75 - loss * 1.6, 0.05, 1.0))
        moisture[i] = store
    kept = slice(LEAD, None)
    fields = (temperature, rain, moisture, usual)
    return Weather(year, *(values[kept].astype(np.float32) for values in fields))


@dataclass(frozen=True, slots=True)
class Calendar:
    """How one class goes through the year: days of the year, each with the spread between fields."""

    up: tuple[float, float]
    """Middle of green-up."""
    rise: float
    """Speed of green-up per day."""
    down: tuple[float, float]
    """Middle of senescence."""
    fall: float
    """Speed of senescence per day."""
    peak: tuple[float, float]
    """Largest green leaf area per ground area."""
    winter: tuple[float, float]
    """Leaf area before green-up."""
    harvest: tuple[float, float]
    """Harvest day; beyond the year where there is none."""
    before: tuple[float, float, float]
    """Share of fields with a catch crop until spring, its leaf area, the day it is ploughed in."""
    after: tuple[float, float, float]
    """Share of fields that turn green again after harvest, the leaf area they reach, days until they do."""
    base: float
    """Temperature above which the plant develops, degrees Celsius."""


NEVER = (500.0, 0.0)
NOTHING = (0.0, 0.0, 0.0)
CALENDARS = {
    WHEAT: Calendar(
        (98, 11), 0.075, (182, 9), 0.13, (5.0, 1.3), (0.7, 0.45), (211, 10), NOTHING, (0.55, 1.9, 45), base=0
    ),
    RAPESEED: Calendar(
        (87, 11), 0.080, (178, 9), 0.12, (4.6, 1.3), (1.2, 0.5), (202, 10), NOTHING, (0.70, 1.3, 38), base=1
    ),
    MAIZE: Calendar(
        (167, 13), 0.092, (261, 15), 0.080, (4.3, 1.2), (0.0, 0.0), (268, 13), (0.45, 1.6, 112), (0.25, 0.6, 35), base=7
    ),
    BEET: Calendar(
        (160, 13), 0.087, (316, 22), 0.045, (4.5, 1.1), (0.0, 0.0), (291, 20), (0.40, 1.4, 84), (0.30, 0.5, 30), base=4
    ),
    GRASS: Calendar((98, 12), 0.060, (292, 16), 0.05, (3.6, 1.1), (1.3, 0.6), NEVER, NOTHING, NOTHING, base=2),
    FOREST: Calendar((119, 6), 0.160, (294, 8), 0.10, (4.6, 0.7), (0.5, 0.2), NEVER, NOTHING, NOTHING, base=5),
    BUILT: Calendar((104, 12), 0.060, (295, 15), 0.05, (3.0, 0.8), (1.0, 0.4), NEVER, NOTHING, NOTHING, base=3),
    WATER: Calendar(NEVER, 0.1, NEVER, 0.1, (0.0, 0.0), (0.0, 0.0), NEVER, NOTHING, NOTHING, base=0),
}


@dataclass(frozen=True, slots=True)
class Season:
    """Daily state of P parcels, each (P, 366) unless said otherwise."""

    weather: Weather
    green: Floats
    """Green leaf area per ground area."""
    straw: Floats
    """Dry standing or lying plant area per ground area."""
    flower: Floats
    """Share of the canopy in yellow bloom."""
    mass: Floats
    """Standing plant water and structure, about 0..5; drives the radar volume."""
    rough: Floats
    """Soil roughness against the mean, dB."""
    cover: Floats
    """(P,) share of the ground that plants can cover: below 1 in villages, 0 on water."""
    conifer: Floats
    """(P,) share of evergreen trees; 0 outside forests."""


def grow(seed: int, kind: npt.NDArray[np.uint8], weather: Weather) -> Season:
    """Let every parcel grow through the year.

    Args:
        seed: same seed, same fields.
        kind: (P,) class index.
        weather: drives development (thermal sums), leaf area (soil moisture) and the look of the soil.
    """
    parts = [(index, np.flatnonzero(kind == index)) for index in range(len(CLASSES))]
    states = {name: np.zeros((kind.size, DAYS), dtype=np.float32) for name in ("green", "straw", "flower", "mass")}
    rough = np.zeros((kind.size, DAYS), dtype=np.float32)
    for index, rows in parts:
        rng = generator(seed, "season", CLASSES[index].name)
        grown, tilled = _one_class(rng, index, rows.size, weather)
        for name, values in grown.items():
            states[name][rows] = values
        rough[rows] = tilled
    rng = generator(seed, "stands")
    built, forest = kind == BUILT, kind == FOREST
    cover = np.where(kind == WATER, 0.0, np.where(built, 0.08 + 0.62 * rng.beta(2.0, 2.6, kind.size), 1.0))
    conifer = np.where(forest, rng.beta(0.5, 0.9, kind.size), 0.0)
    return Season(weather, **states, rough=rough, cover=cover.astype(np.float32), conifer=conifer.astype(np.float32))


def _one_class(rng: np.random.Generator, index: int, count: int, weather: Weather) -> tuple[dict[str, Array], Array]:
    """The states of `count` parcels of one class, and their roughness."""
    plan, day = CALENDARS[index], np.arange(DAYS)[None, :]

    def draw(pair: tuple[float, float]) -> Array:
        return pair[0] + pair[1] * rng.standard_normal((count, 1))

    late = weather.shift(plan.up[0], plan.base) if plan.up[0] < DAYS else 0.0
    ripe = 0.7 * weather.shift(plan.down[0], plan.base) if plan.down[0] < DAYS else 0.0
    up, down, harvest = draw(plan.up) + late, draw(plan.down) + ripe, draw(plan.harvest) + ripe
    harvest = np.maximum(harvest, down + 8) if index in (WHEAT, RAPESEED, MAIZE) else harvest
    rise, fall = (speed * np.exp(0.18 * rng.standard_normal((count, 1))) for speed in (plan.rise, plan.fall))
    water = weather.moisture[max(int(plan.up[0]) % DAYS - 10, 0) : int(plan.up[0]) % DAYS + 50].mean()
    drought = np.clip(1 + 0.6 * (water - 0.55) * np.exp(0.4 * rng.standard_normal((count, 1))), 0.6, 1.15)
    peak, winter = np.maximum(draw(plan.peak) * drought, 0.0), np.maximum(draw(plan.winter), 0.0)
    standing = day < harvest
    wander = 1 + 0.09 * smooth_series(rng, (count, 2 * DAYS), 12)[:, :DAYS] if count else np.ones((0, DAYS))
    ripening = sigmoid(fall * (day - down))
    canopy = (winter + np.maximum(peak - winter, 0) * sigmoid(rise * (day - up))) * wander
    evergreen = np.minimum(winter, canopy) if index in (GRASS, BUILT) else 0.0
    green = (evergreen + (canopy - evergreen) * (1 - ripening)) * standing
    mass = (winter + np.maximum(peak - winter, 0) * sigmoid(rise * (day - up - 12))) * (1 - 0.6 * ripening) * standing
    if index in (GRASS, BUILT):
        cut = _mowing(rng, count, day)
        green, mass = green * cut, mass * cut
    straw = (canopy - evergreen) * (0.3 if index in (GRASS, BUILT) else 0.75) * ripening * standing + _stubble(
        rng, day, harvest, count
    )
    extra = _between_crops(rng, plan, day, harvest, count)
    flower = np.zeros_like(green)
    if index == RAPESEED:
        first, length = 122 + 5 * rng.standard_normal((count, 1)) + late, 24 + 4 * rng.standard_normal((count, 1))
        flower = 0.85 * sigmoid(0.5 * (day - first)) * sigmoid(-0.5 * (day - first - length))
    states = {"green": green + extra, "straw": straw, "flower": flower, "mass": mass + 0.7 * extra}
    return states, _tillage(rng, plan, day, harvest, count)


def _mowing(rng: np.random.Generator, count: int, day: Array) -> Array:
    """(count, 366) factor: meadows are cut up to four times and recover, pastures are grazed a little all the time."""
    times, left = rng.integers(0, 5, (count, 1)), np.ones((count, day.size))
    for number, middle in enumerate((143, 188, 232, 274)):
        since = day - (middle + 11 * rng.standard_normal((count, 1)))
        drop = rng.uniform(0.45, 0.8, (count, 1)) * (number < times)
        left *= 1 - drop * np.where(since >= 0, np.exp(-np.maximum(since, 0) / 24), 0)
    return left


def _stubble(rng: np.random.Generator, day: Array, harvest: Array, count: int) -> Array:
    """(count, 366) straw left after harvest until the field is tilled; only crops have a harvest."""
    tilled = harvest + rng.uniform(4, 60, (count, 1))
    return 0.9 * np.where(day >= harvest, np.exp(-np.maximum(day - harvest, 0) / 40), 0) * (day < tilled)


def _between_crops(rng: np.random.Generator, plan: Calendar, day: Array, harvest: Array, count: int) -> Array:
    """(count, 366) leaf area of catch crops, volunteers and the next year's sowing."""
    share, area, ploughed = plan.before
    early = area * np.exp(0.35 * rng.standard_normal((count, 1))) * (rng.random((count, 1)) < share)
    early = early * sigmoid(-0.5 * (day - ploughed - 9 * rng.standard_normal((count, 1)))) * (0.6 + 0.4 * day / 100)
    share, area, delay = plan.after
    late = area * np.exp(0.4 * rng.standard_normal((count, 1))) * (rng.random((count, 1)) < share)
    start = harvest + delay + 14 * rng.standard_normal((count, 1))
    return early * (day < 200) + late * sigmoid(0.11 * (day - start)) * (day > harvest)


def _tillage(rng: np.random.Generator, plan: Calendar, day: Array, harvest: Array, count: int) -> Array:
    """(count, 366) dB: rough after ploughing and harvest, smoothed by the weather within weeks."""
    rough = 0.8 * rng.standard_normal((count, 1)) + 0.0 * day
    for moment in (harvest + rng.uniform(5, 60, (count, 1)), plan.up[0] - 45 + 8 * rng.standard_normal((count, 1))):
        height = 2.2 * rng.random((count, 1)) * (plan.harvest[0] < DAYS)
        rough = rough + height * np.where(day >= moment, np.exp(-np.maximum(day - moment, 0) / 30), 0)
    return rough
