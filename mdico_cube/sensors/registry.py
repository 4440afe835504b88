"""Every sensor by name: adding one is a file beside this one and a line here."""

from __future__ import annotations

from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.sensors import dem, era5, landsat, sentinel1, sentinel2
from mdico_cube.sensors.sensor import Sensor, counting
from mdico_cube.sensors.weather import Weather

SENSORS: dict[str, Sensor] = {
    "sentinel1": sentinel1.SENSOR,
    "sentinel1_ascending": sentinel1.one_way("ascending"),
    "sentinel1_descending": sentinel1.one_way("descending"),
    "sentinel1_count": counting(sentinel1.SENSOR, "vv"),
    "sentinel2": sentinel2.SENSOR,
    "sentinel2_count": counting(sentinel2.SENSOR, "B04"),
    "landsat": landsat.SENSOR,
    "landsat_count": counting(landsat.SENSOR, "red"),
    "landsat_st": landsat.THERMAL_SENSOR,
    "dem": dem.SENSOR,
}
"""Sensors whose items are pictures of the ground."""
WEATHER: dict[str, Weather] = {"era5": era5.WEATHER}
"""Sensors that come as coarse grids in time."""


def get_sensor(name: str) -> Sensor | Weather:
    """The sensor of that name.

    Raises:
        MdicoError: there is none; the closest name is suggested.
    """
    known: dict[str, Sensor | Weather] = {**SENSORS, **WEATHER}
    if name in known:
        return known[name]
    raise MdicoError(f"unknown modality {name!r}: known are {', '.join(known)}.{did_you_mean(name, known)}")
