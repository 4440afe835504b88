"""A landscape, its season and a sky in, what an optical sensor measures out: reflectance and what hides the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdico_cube.demo.sampling import Footprints
from mdico_cube.demo.sky import Sky, Sun
from mdico_cube.demo.spectra import BANDS, Surface
from mdico_cube.spec import Array, Bools, Floats

CLOUD = np.array((0.62, 0.62, 0.63, 0.64, 0.66, 0.67, 0.68, 0.68, 0.45, 0.34), dtype=np.float32)
"""Reflectance of thick cloud, bands as in spectra.BANDS."""
DIFFUSE = np.array((0.34, 0.26, 0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.06, 0.04), dtype=np.float32)
"""Share of the light that reaches the ground from the whole sky, and so also into shadows."""
HAZE = np.array((0.016, 0.011, 0.008, 0.006, 0.004, 0.004, 0.003, 0.003, 0.001, 0.001), dtype=np.float32)
"""Reflectance left over by an imperfect atmospheric correction, per unit of haze."""
CIRRUS = np.array((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2), dtype=np.float32)
"""How much of a thin high cloud each band sees."""


@dataclass(frozen=True, slots=True)
class View:
    """What one grid sees on one date, N pixels."""

    reflectance: Floats
    """(N, C) with clouds, shadows and noise in it."""
    cloud: Floats
    """(N,) opacity 0..1."""
    shadow: Floats
    """(N,) depth 0..1."""
    cirrus: Floats
    """(N,) reflectance of thin high cloud."""
    alert: Floats
    """(N,) how eager the cloud masking is here, standard deviations."""
    ground: Floats
    """(N, C) what a cloudless sky would have shown."""


def look(
    rng: np.random.Generator, prints: Footprints, parcels: Surface, sky: Sky, bands: tuple[str, ...], tint: Floats
) -> View:
    """Measure bands on a grid.

    Args:
        rng: the sensor's noise.
        prints: what each pixel sees.
        parcels: reflectance of the parcels on that day.
        sky: what lies above them.
        bands: names out of spectra.BANDS, the C axis.
        tint: (10,) factor of this date for all of spectra.BANDS, for view angles and calibration.
    """
    index = [BANDS.index(band) for band in bands]
    width = len(index)
    tables = np.concatenate([part[:, index] for part in (parcels.mean, parcels.by_vigour, parcels.by_soil)], axis=1)
    seen = prints.shares @ np.ascontiguousarray(tables)  # (N, 3 C)
    ground = seen[:, :width] + prints.vigour * seen[:, width : 2 * width] + prints.soil * seen[:, 2 * width :]
    diffuse = DIFFUSE[index]
    light = diffuse + (1 - diffuse) * _light(prints, sky.sun)[:, None]
    ground = np.maximum(ground, 0.002) * light * tint[index]
    cloud, shadow, cirrus, haze, alert = (prints.sky @ sky.layers).T
    image = ground * (1 - (1 - diffuse) * 0.92 * shadow[:, None]) + HAZE[index] * haze[:, None]
    image = image + cirrus[:, None] * CIRRUS[index]
    bright = CLOUD[index] * (0.85 + 0.1 * alert[:, None])
    image = image + cloud[:, None] * (bright - image)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * (0.0016 + 0.012 * image)
    return View(np.asarray(image, dtype=np.float32), cloud, shadow, cirrus, alert, ground.astype(np.float32))


def _light(prints: Footprints, sun: Sun) -> Floats:
    """(N,) sunlight on the slope against sunlight on flat land: the cosine law, dulled a little by the correction."""
    high, azimuth = np.radians(sun.elevation), np.radians(sun.azimuth)
    rise = np.sqrt(1 + prints.east**2 + prints.north**2)
    towards = np.sin(azimuth) * prints.east + np.cos(azimuth) * prints.north
    cosine = (np.sin(high) - np.cos(high) * towards) / rise / np.sin(high)
    return np.asarray(1 + 0.7 * (np.clip(cosine, 0.15, 2.0) - 1), dtype=np.float32)


def date_tint(rng: np.random.Generator) -> Floats:
    """(10,) factor near 1 for each of spectra.BANDS that differs from date to date."""
    factor = (1 + 0.025 * rng.standard_normal()) * (1 + 0.012 * rng.standard_normal(len(BANDS)))
    return np.asarray(factor, dtype=np.float32)


def classify_scene(view: View, bands: tuple[str, ...], inside: Bools) -> Array:
    """The scene classification (N,) uint8 a Sentinel-2 processor would give; it misses thin cloud and faint shadow."""
    red, nir = view.reflectance[:, bands.index("B04")], view.reflectance[:, bands.index("B8A")]
    green_index = (nir - red) / np.maximum(nir + red, 1e-3)
    sure = view.cloud + 0.07 * view.alert
    rules = {
        0: ~inside,
        9: sure > 0.72,
        8: sure > 0.30,
        3: view.shadow + 0.07 * view.alert > 0.42,
        10: view.cirrus + 0.006 * view.alert > 0.035,
        6: (nir < 0.075) & (green_index < 0.15),
        7: sure > 0.24,
        4: green_index > 0.42,
    }
    return np.select(list(rules.values()), list(rules), default=5).astype(np.uint8)


def quality_bits(view: View, bands: tuple[str, ...], shape: tuple[int, int], inside: Bools) -> Array:
    """Landsat's QA_PIXEL (N,) uint16; bits 0 fill, 1 dilated, 2 cirrus, 3 cloud, 4 shadow, 6 clear, 7 water."""
    sure = (view.cloud + 0.07 * view.alert).reshape(shape)
    cloud = sure > 0.34
    near = _dilated(cloud, 2).ravel()
    cloud, medium = cloud.ravel(), (sure > 0.2).ravel()
    shadow = (view.shadow + 0.07 * view.alert > 0.42) & ~cloud
    cirrus = view.cirrus + 0.006 * view.alert > 0.035
    nir, red = view.ground[:, bands.index("B8A")], view.ground[:, bands.index("B04")]
    water = (nir < 0.075) & (nir < 1.3 * red) & ~cloud
    dilated = near & ~cloud
    bits = (dilated << 1) | (cirrus << 2) | (cloud << 3) | (shadow << 4) | (~near << 6) | (water << 7)
    confidence = (np.select([cloud, medium], [3, 2], default=1) << 8) | (np.where(shadow, 3, 1) << 10)
    bits = bits | confidence | (1 << 12) | (np.where(cirrus, 3, 1) << 14)
    return np.where(inside, bits, 1).astype(np.uint16)


def _dilated(mask: Bools, steps: int) -> Bools:
    for _ in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask
