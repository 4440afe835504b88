"""Every sensor by name: adding one is a file beside this one and a line here."""

from __future__ import annotations

from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.sensors import dem, landsat, sentinel1, sentinel2
from mdico_cube.sensors.sensor import Sensor

SENSORS: dict[str, Sensor] = {
    "sentinel1": sentinel1.SENSOR,
    "sentinel1_ascending": sentinel1.one_way("ascending"),
    "sentinel1_descending": sentinel1.one_way("descending"),
    "sentinel2": sentinel2.SENSOR,
    "landsat": landsat.SENSOR,
    "landsat_st": landsat.THERMAL_SENSOR,
    "dem": dem.SENSOR,
}


def get_sensor(name: str) -> Sensor:
    """The sensor of that name.

    Raises:
        MdicoError: there is none; the closest name is suggested.
    """
    if name in SENSORS:
        return SENSORS[name]
    raise MdicoError(f"unknown modality {name!r}: known are {', '.join(SENSORS)}.{did_you_mean(name, SENSORS)}")
