"""A date in, what stands between the sensor and the ground out: sun, clouds, their shadows, cirrus and haze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mdico_cube.demo.landscape import CELL
from mdico_cube.demo.noise import generator, sigmoid, smooth_field
from mdico_cube.demo.sampling import SKY_CELL
from mdico_cube.spec import Floats

LATITUDE, LONGITUDE = 50.7, 6.0
CLOUDY_MONTHS = (11, 12, 1)
"""Months in which the sky hardly ever opens."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands; angles in degrees."""

    elevation: float
    azimuth: float
    """Clockwise from north."""


def sun_at(time: pd.Timestamp) -> Sun:
    """The sun over the region's middle at a UTC time, to about a degree."""
    declination = np.radians(-23.44 * np.cos(2 * np.pi * (time.dayofyear + 10) / 365.25))
    hour = np.radians(15 * (time.hour + time.minute / 60 + LONGITUDE / 15 - 12))
    latitude = np.radians(LATITUDE)
    high = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(latitude) * np.sin(declination) - np.sin(latitude) * np.cos(declination) * np.cos(hour)
    return Sun(float(np.degrees(np.arcsin(high))), float(np.degrees(np.arctan2(east, north)) % 360))


@dataclass(frozen=True, slots=True)
class Sky:
    """The sky of one date on S = H*W cells of 20 m over the frame."""

    sun: Sun
    layers: Floats
    """(S, 5): cloud opacity, shadow depth, cirrus reflectance, haze (0 = clear of it), how alert the masking is."""


def draw_sky(seed: int, cells: int, time: pd.Timestamp) -> Sky:
    """The sky at one time: the same for every sensor that passes on that day.

    Args:
        seed: same seed, same clouds.
        cells: landscape cells along the frame's side.
        time: UTC.
    """
    rng = generator(seed, "sky", str(time.date()))
    sun, side = sun_at(time), cells // SKY_CELL
    cover = _cover(rng, time.month)
    shape = (side, side)
    rough = smooth_field(rng, shape, 45) + 0.45 * smooth_field(rng, shape, 9, power=2)
    rough /= rough.std()
    level = float(np.quantile(rough, 1 - cover)) if 0 < cover < 1 else (9.0 if cover == 0 else -9.0)
    softness = rng.uniform(0.12, 0.4)
    depth = np.maximum(rough - level + softness, 0) / softness * (0.9 + (cover == 1) * 8)
    opacity = 1 - np.exp(-0.55 * depth**2)
    height = rng.uniform(700, 2600) / np.tan(np.radians(max(sun.elevation, 8))) / (CELL * SKY_CELL)
    azimuth = np.radians(sun.azimuth)
    shift = round(height * np.cos(azimuth)), -round(height * np.sin(azimuth))
    shadow = np.roll(opacity, shift, axis=(0, 1)) * (1 - opacity)
    thin = rng.random() < 0.3
    cirrus = thin * rng.uniform(0.015, 0.09) * sigmoid(2.5 * smooth_field(rng, shape, 80))
    haze = rng.gamma(1.5, 0.25) * (1 + 0.4 * smooth_field(rng, shape, 70)) - 0.3
    alert = smooth_field(rng, shape, 6, power=2)
    layers = np.stack([opacity, shadow, cirrus, haze, alert], axis=-1).reshape(-1, 5)
    return Sky(sun, layers.astype(np.float32))


def _cover(rng: np.random.Generator, month: int) -> float:
    """Cloud cover 0..1: mostly clear, broken or closed; nearly always closed in the cloudy months."""
    clear, broken = (0.0, 0.20) if month in CLOUDY_MONTHS else (0.22, 0.42)
    dice = rng.random()
    if dice < clear:
        return 0.0
    return float(rng.beta(1.1, 1.3) * 0.9 + 0.04) if dice < clear + broken else 1.0
