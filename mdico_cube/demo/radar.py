"""A landscape, its season and a date in, radar backscatter out: linear gamma0 of VV and VH with speckle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.demo.landscape import BEET, BUILT, CLASSES, FOREST, GRASS, MAIZE, RAPESEED, WATER, WHEAT
from mdico_cube.demo.noise import generator
from mdico_cube.demo.sampling import Footprints
from mdico_cube.demo.season import Season
from mdico_cube.spec import Array, Floats

LOOKS = 4.4
"""Equivalent number of looks of a 10 m pixel."""
FLOOR = np.array((0.0016, 0.0016), dtype=np.float32)
"""Noise power added to VV and VH, about -28 dB."""
LOOK_AZIMUTH = {"ascending": 78.0, "descending": 282.0}
"""Direction the radar looks to, degrees clockwise from north."""
VOLUME = {
    WHEAT: (-14.5, -20.5, 0.30, 0.16),
    MAIZE: (-9.6, -15.8, 0.16, 0.14),
    RAPESEED: (-10.0, -14.6, 0.17, 0.16),
    BEET: (-9.0, -15.0, 0.18, 0.14),
    GRASS: (-11.8, -18.4, 0.14, 0.10),
    FOREST: (-9.4, -14.6, 0.30, 0.30),
    BUILT: (-9.5, -15.5, 0.12, 0.12),
    WATER: (-30.0, -35.0, 0.0, 0.0),
}
"""Backscatter of an endlessly deep canopy in VV and VH (dB), and how fast a unit of mass hides the soil in each."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What stays the same about each of the P parcels all year, (P, 2) in VV and VH unless said otherwise."""

    canopy: Floats
    """Backscatter of a deep canopy, linear."""
    hiding: Floats
    """Attenuation per unit of mass."""
    soil: Floats
    """dB against the mean soil."""
    walls: dict[str, Floats]
    """Linear backscatter of buildings, by orbit direction."""
    rows: dict[str, Floats]
    """dB of row direction and drainage, by orbit direction, (P, 1)."""


def tune_echo(seed: int, kind: npt.NDArray[np.uint8]) -> Echo:
    """Draw the parcels' radar traits around those of their class."""
    rng = generator(seed, "echo")
    table = np.array([VOLUME[index] for index in range(len(CLASSES))], dtype=float)[kind]

    def vary(sd: float, columns: int = 1) -> Array:
        return sd * rng.standard_normal((kind.size, columns))

    canopy = 10 ** ((table[:, :2] + vary(1.3) + vary(0.7, 2)) / 10)
    hiding = table[:, 2:] * np.exp(vary(0.32))
    soil = vary(1.1) + vary(0.5, 2)
    built = (kind == BUILT)[:, None]
    walls, rows = {}, {}
    for direction in LOOK_AZIMUTH:
        height = np.array((-6.2, -13.6)) + vary(2.3) + vary(0.8, 2)
        walls[direction] = np.where(built, 10 ** (height / 10), 0.0).astype(np.float32)
        rows[direction] = np.where(kind[:, None] < GRASS, vary(0.5), vary(0.2)).astype(np.float32)
    return Echo(canopy.astype(np.float32), hiding.astype(np.float32), soil.astype(np.float32), walls, rows)


def backscatter(
    rng: np.random.Generator,
    season: Season,
    echo: Echo,
    kind: npt.NDArray[np.uint8],
    day: int,
    direction: str,
) -> Floats:
    """(P, 2) linear gamma0 of VV and VH per parcel on one day: canopy over soil, walls, or open water."""
    weather = season.weather
    moisture, frozen = float(weather.moisture[day]), float(weather.temperature[day]) < -0.5
    soil = np.array((-15.6, -23.2)) + np.array((7.0, 5.5)) * moisture + echo.soil
    soil = soil + season.rough[:, day][:, None] * np.array((1.0, 0.9)) + echo.rows[direction] - 3.5 * frozen
    wood = (kind == FOREST) * (3.2 + 0.6 * season.conifer)
    mass = (season.mass[:, day] * (1 - season.conifer) * (1 - 0.6 * (kind == FOREST)) + wood)[:, None]
    through = np.exp(-2 * echo.hiding * np.maximum(mass, 0) / np.cos(np.radians(38)))
    damp = 1 + 0.12 * (weather.rain[day] > 2) - 0.25 * frozen
    field = echo.canopy * damp * (1 - through) + 10 ** (soil / 10) * through
    built = echo.walls[direction] * (1 - 0.8 * season.cover[:, None]) + field * season.cover[:, None]
    calm = np.array((-20.5, -27.5)) + rng.gamma(1.5, 1.6) * np.array((1.0, 0.5))
    water = 10 ** ((calm + 0.3 * echo.soil) / 10)
    kinds = kind[:, None]
    return np.where(kinds == WATER, water, np.where(kinds == BUILT, built, field)).astype(np.float32)


def scatterers(seed: int, pixels: int) -> Floats:
    """(N,) dB: some pixels of a village hold a strong reflector all year."""
    rng = generator(seed, "scatterers")
    return np.asarray(3.2 * rng.standard_normal(pixels) + 2.0 * (rng.random(pixels) < 0.08), dtype=np.float32)


def observe(
    rng: np.random.Generator, prints: Footprints, parcels: Floats, walls: Floats, direction: str, built: Floats
) -> Floats:
    """Measure VV and VH on a grid.

    Args:
        rng: speckle.
        prints: what each pixel sees.
        parcels: (P, 2) linear gamma0.
        walls: (N,) dB of single reflectors.
        direction: "ascending" or "descending".
        built: (P,) 1 where a parcel is built up.

    Returns:
        (N, 2) linear gamma0, gamma-distributed around its mean with LOOKS looks.
    """
    azimuth = np.radians(LOOK_AZIMUTH[direction])
    facing = prints.east * np.sin(azimuth) + prints.north * np.cos(azimuth)
    town = prints.shares @ built
    decibels = 5.5 * facing + 0.5 * prints.vigour[:, 0] + 0.35 * prints.soil[:, 0] + walls * town
    mean = (prints.shares @ parcels) * 10 ** (decibels[:, None] / 10) + FLOOR
    speckle = rng.standard_gamma(LOOKS, size=mean.shape, dtype=np.float32) / np.float32(LOOKS)
    return np.asarray(mean * speckle, dtype=np.float32)
