"""Every sensor by name: adding one is a file beside this one and a line here."""

from __future__ import annotations

from difflib import get_close_matches

from mdico_cube.errors import MdicoError
from mdico_cube.sensors import dem, landsat, sentinel1, sentinel2
from mdico_cube.sensors.sensor import Sensor

SENSORS: dict[str, Sensor] = {
    "sentinel1": sentinel1.SENSOR,
    "sentinel2": sentinel2.SENSOR,
    "landsat": landsat.SENSOR,
    "dem": dem.SENSOR,
}


def get_sensor(name: str) -> Sensor:
    """The sensor of that name.

    Raises:
        MdicoError: there is none; the closest name is suggested.
    """
    if name in SENSORS:
        return SENSORS[name]
    close = get_close_matches(name, SENSORS, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise MdicoError(f"unknown modality {name!r}: known are {', '.join(SENSORS)}.{hint}")
