"""Parcel states of one day in, reflectance per parcel and band out: soil, leaves, straw, flowers, roofs and water."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.demo.landscape import BEET, BUILT, CLASSES, FOREST, GRASS, MAIZE, RAPESEED, WATER, WHEAT
from mdico_cube.demo.noise import generator
from mdico_cube.demo.season import Season
from mdico_cube.spec import Array, Floats

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Sentinel-2 names; every spectrum below is in this order, reflectance 0..1."""
LEAVES = {
    WHEAT: (0.024, 0.050, 0.025, 0.086, 0.270, 0.350, 0.375, 0.395, 0.175, 0.080),
    MAIZE: (0.025, 0.051, 0.026, 0.086, 0.272, 0.350, 0.372, 0.392, 0.180, 0.082),
    RAPESEED: (0.028, 0.058, 0.029, 0.095, 0.290, 0.385, 0.410, 0.430, 0.188, 0.088),
    BEET: (0.025, 0.057, 0.027, 0.094, 0.310, 0.405, 0.430, 0.450, 0.192, 0.088),
    GRASS: (0.029, 0.060, 0.034, 0.098, 0.272, 0.345, 0.368, 0.388, 0.200, 0.100),
    FOREST: (0.021, 0.042, 0.022, 0.070, 0.245, 0.330, 0.350, 0.372, 0.160, 0.070),
    BUILT: (0.026, 0.052, 0.031, 0.088, 0.245, 0.310, 0.330, 0.350, 0.180, 0.088),
    WATER: (0.029, 0.060, 0.034, 0.098, 0.272, 0.345, 0.368, 0.388, 0.200, 0.100),
}
NEEDLES = np.array((0.018, 0.031, 0.018, 0.046, 0.140, 0.185, 0.198, 0.212, 0.092, 0.042))
STRAW = np.array((0.068, 0.105, 0.140, 0.172, 0.205, 0.225, 0.245, 0.268, 0.325, 0.240))
FLOWER = np.array((0.052, 0.135, 0.118, 0.158, 0.300, 0.372, 0.395, 0.412, 0.195, 0.098))
SOIL = np.array((0.052, 0.076, 0.100, 0.124, 0.142, 0.158, 0.174, 0.190, 0.262, 0.225))
LITTER = np.array((0.034, 0.050, 0.064, 0.086, 0.118, 0.135, 0.150, 0.168, 0.205, 0.150))
ROOFS = np.array((0.086, 0.104, 0.122, 0.132, 0.142, 0.150, 0.158, 0.168, 0.190, 0.172))
LAKE = np.array((0.034, 0.040, 0.027, 0.021, 0.014, 0.012, 0.010, 0.009, 0.005, 0.004))
MODES = np.array(
    (
        (0.9, 0.8, 1.0, 0.8, 0.2, 0.0, 0.0, 0.0, 0.1, 0.2),
        (0.1, 0.3, 0.1, 0.4, 0.9, 1.0, 1.0, 1.0, 0.5, 0.4),
        (0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.0, 0.1, 1.0, 1.2),
    )
)
"""How leaf colour, leaf structure and leaf water move the bands."""
SPREAD = np.array((0.19, 0.12, 0.15))
"""Their standard deviation between fields of one class, in log reflectance."""


@dataclass(frozen=True, slots=True)
class Materials:
    """What the P parcels are made of, each (P, 10) reflectance."""

    leaves: Floats
    soil: Floats
    """Dry; darkened by moisture on the day."""
    base: Floats
    """What lies under and between the plants where it is not soil: roofs, water, forest floor."""
    paved: Floats
    """(P, 1) share of the uncovered ground that is `base` and not soil."""


def mix_materials(seed: int, kind: npt.NDArray[np.uint8], season: Season) -> Materials:
    """Draw the spectra of every parcel around those of its class."""
    rng = generator(seed, "spectra")

    def vary(sd: float) -> Array:
        return np.exp(sd * rng.standard_normal((kind.size, 1)))

    modes = np.exp((SPREAD * rng.standard_normal((kind.size, 3))) @ MODES)
    leaves = np.array([LEAVES[index] for index in range(len(CLASSES))])[kind]
    leaves = (leaves * (1 - season.conifer[:, None]) + NEEDLES * season.conifer[:, None]) * modes
    tilt = np.exp(0.10 * rng.standard_normal((kind.size, 1)) * np.linspace(-1, 1, len(BANDS)))
    soil = SOIL * vary(0.16) * tilt
    roofs = ROOFS * vary(0.28) * np.exp(0.16 * rng.standard_normal((kind.size, 1)) * np.linspace(-1, 1, len(BANDS)))
    lake = LAKE * vary(0.30)
    base = np.where((kind == WATER)[:, None], lake, np.where((kind == BUILT)[:, None], roofs, LITTER * vary(0.15)))
    paved = np.where(np.isin(kind, (WATER, BUILT, FOREST)), 1.0, 0.0)[:, None]
    return Materials(*(part.astype(np.float32) for part in (leaves, soil, base, paved)))


@dataclass(frozen=True, slots=True)
class Surface:
    """Reflectance of the P parcels on one day, each (P, 10)."""

    mean: Floats
    by_vigour: Floats
    """Change for one standard deviation of the plants' texture."""
    by_soil: Floats
    """Change for one standard deviation of the soil's texture."""


def surface(season: Season, materials: Materials, day: int) -> Surface:
    """Mix what is seen from above on one day (0 = 1 January)."""
    mean, ground = _mixture(season, materials, day, 1.0)
    lush, _ = _mixture(season, materials, day, 1.28)
    return Surface(mean, lush - mean, np.asarray(0.11 * ground, dtype=np.float32))


def _mixture(season: Season, materials: Materials, day: int, vigour: float) -> tuple[Floats, Floats]:
    """Reflectance (P, 10), and the part of it that comes from the bare ground."""
    cover = season.cover[:, None]
    needles = 2.6 * season.conifer
    leaf = np.maximum(vigour * season.green[:, day] * (1 - season.conifer) + needles, 0)
    green = 1 - np.exp(-0.52 * leaf)[:, None]
    straw = (1 - green) * (1 - np.exp(-0.6 * vigour * season.straw[:, day] * (1 - season.conifer)))[:, None]
    straw = straw * (1 - 0.8 * materials.paved)
    wet = 1 - 0.42 * float(season.weather.moisture[day]) ** 0.8
    ground = materials.paved * materials.base + (1 - materials.paved) * materials.soil * wet
    bloom = season.flower[:, day][:, None]
    plants = materials.leaves * (1 - bloom) + FLOWER * bloom
    bare = 1 - cover * (green + straw)
    seen = cover * (green * plants + straw * STRAW * (0.75 + 0.25 * wet)) + bare * ground
    return np.asarray(seen, dtype=np.float32), np.asarray(bare * ground * (1 - materials.paved), dtype=np.float32)
