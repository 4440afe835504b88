"""A modality's section of a recipe and its sensor in; a fault out where an option means nothing to that sensor."""

from __future__ import annotations

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ModalitySection
from mdico_cube.sensors.sensor import Sensor
from mdico_cube.sensors.weather import Weather


def check_options(name: str, section: ModalitySection, sensor: Sensor | Weather) -> None:
    """Refuse what would be ignored in silence.

    Args:
        name: the modality.
        section: as the recipe has it.
        sensor: what the modality is.

    Raises:
        MdicoError: the section sets something that does not apply to the sensor.
    """
    why = _weather(sensor) if isinstance(sensor, Weather) else _pictures(sensor)
    given = {key for key in section.model_fields_set if getattr(section, key) is not None}
    given |= {f"source.{key}" for key in section.source.model_fields_set if getattr(section.source, key) is not None}
    for option, reason in why.items():
        if option in given:
            raise MdicoError(f"modalities.{name}.{option}: {reason}. Leave {option} out.")


def _weather(sensor: Weather) -> dict[str, str]:
    operators = ", ".join(f"{band}: {operator}" for band, operator in sensor.operators.items())
    masked = "weather has no quality layer: a value that is not known is missing in its store"
    return {
        "reducer": f"every band has its own ({operators})",
        "resampling": "weather keeps its own coarse grid, and is interpolated bilinearly where it is read",
        **dict.fromkeys(("source.quality", "source.hide", "source.dilate"), masked),
        "source.offset": "only Sentinel-2 has offsets; units and factors stand in source.zarr.variables",
        "source.nodata": "values that are missing are named in source.zarr.variables",
    }


def _pictures(sensor: Sensor) -> dict[str, str]:
    title = sensor.modality.title
    why = {
        "lapse_rate": f"{title} has no air temperatures to bring to the height of the ground, only weather has",
        "source.zarr": f"{title} is read from raster files, only weather from Zarr stores",
    }
    if sensor.quality is None:
        masked = f"{title} has no quality layer that could hide the ground"
        why |= dict.fromkeys(("source.quality", "source.hide", "source.dilate"), masked)
    if sensor.reducer == "count":
        why["reducer"] = f"{sensor.modality.name} counts observations, and nothing else"
    elif sensor.sentinel is None:
        why["source.offset"] = f"{title} has one scale for all scenes, only Sentinel-2's offset changes by item"
    if not sensor.modality.temporal:
        why["reducer"] = f"{title} has no time steps to reduce: of tiles that overlap the first one counts"
    return why
