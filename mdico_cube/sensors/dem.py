"""Elevation in, terrain out: elevation, slope, northness and eastness in metres on the ground and true north."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mdico_cube.recipe import Source
from mdico_cube.sensors.sensor import Radiometry, Sensor, Steps
from mdico_cube.spec import Array, Band, Bools, Floats, Modality, Storage

MODALITY = Modality(
    name="dem",
    variable="terrain",
    bands=(
        Band("elevation", "m", "cubic", "elevation"),
        Band("slope", "degree", "cubic", "slope"),
        Band("northness", "1", "cubic", "cosine of the aspect"),
        Band("eastness", "1", "cubic", "sine of the aspect"),
    ),
    storage=Storage("float32", 1.0, np.nan),
    temporal=False,
    title="Terrain",
)
HALO = 2


def radiometry(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """Elevation is in metres already."""
    return Radiometry(1.0, 0.0, "metres")


def calibrate(raw: Array, nodata: float, rule: Radiometry) -> tuple[Array, Bools]:
    """Raw elevation (1, h, w) to float32 metres; (h, w) True where known."""
    metres = raw.astype(np.float32, copy=False)
    return metres, (np.isfinite(metres) & (metres != nodata)).all(axis=0)


def terrain(elevation: Floats, steps: Steps) -> Floats:
    """Elevation (h + 2 HALO, w + 2 HALO) in metres to (elevation, slope, northness, eastness) (4, h, w).

    Slope is atan(|gradient|) in degrees from central differences, one-sided where a neighbour is unknown. Northness
    and eastness are the cosine and sine of the aspect: the compass direction, from true north, in which the ground
    falls; flat ground has 0 in both.

    Args:
        elevation: NaN where unknown.
        steps: where a step to the next column and row leads, in metres on the ground.
    """
    core = elevation[HALO:-HALO, HALO:-HALO]
    rows, columns = slice(HALO, -HALO), slice(HALO, -HALO)
    after, before = slice(HALO + 1, 1 - HALO), slice(HALO - 1, -HALO - 1)
    right = _difference(elevation[rows, after] - core, core - elevation[rows, before])
    down = _difference(elevation[after, columns] - core, core - elevation[before, columns])
    turn = steps.east_x * steps.north_y - steps.east_y * steps.north_x
    with np.errstate(invalid="ignore", divide="ignore"):  # flat ground, and the pole itself, which has no north
        east = (right * steps.north_y - down * steps.north_x) / turn
        north = (down * steps.east_x - right * steps.east_y) / turn
        rise = np.hypot(east, north)
        northness = np.where(rise > 0, -north / rise, np.where(np.isnan(rise), np.nan, 0.0))
        eastness = np.where(rise > 0, -east / rise, np.where(np.isnan(rise), np.nan, 0.0))
    return np.stack([core, np.degrees(np.arctan(rise)), northness, eastness]).astype(np.float32)


def _difference(ahead: Floats, behind: Floats) -> Floats:
    """Mean of the differences to both neighbours, or the one that is known."""
    both = (ahead + behind) / 2
    return np.where(np.isnan(ahead), behind, np.where(np.isnan(behind), ahead, both))


def finish(work: Array, observed: Bools) -> Array:
    """Composite elevation (1, H, W) to NaN where unknown; `terrain` then derives the bands."""
    return np.where(observed, work, np.nan).astype(np.float32)


SENSOR = Sensor(
    modality=MODALITY,
    defaults=MODALITY.band_names,
    reducer="first",
    radiometry=radiometry,
    calibrate=calibrate,
    quality=None,
    finish=finish,
    raw_dtype="float32",
    reads=("elevation",),
    halo=HALO,
    derive=terrain,
)
