"""A weather plan whose stores cannot be read in; the same layer from another catalog, on the same cells, out."""

from __future__ import annotations

from dataclasses import replace

from odc.geo.geobox import GeoBox

from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_planning import weather_from
from mdico_cube.cube.weather_read import WeatherLayer, read_weather
from mdico_cube.errors import MdicoError


def read_elsewhere(plan: WeatherPlan, geobox: GeoBox, error: MdicoError) -> tuple[WeatherLayer, WeatherPlan, str]:
    """The layer from the first of the plan's other catalogs that can give it, its plan there, and whose it is.

    Args:
        plan: what could not be read.
        geobox: the whole grid of the cube.
        error: why.

    Raises:
        MdicoError: none of them can; the text says why of each.
    """
    whys = []
    for fallback in plan.fallbacks:
        name = fallback.catalog.name
        try:
            other, _ = weather_from(
                *(fallback.catalog, fallback.href, fallback.source, plan.sensor, plan.modality, plan.period, geobox),
                plan.reading,
                lambda rules: 0.0 if rules.orography is None else plan.lapse_rate,
            )
            _check_same(plan, other)
            layer = read_weather(other, geobox)
        except MdicoError as why:
            whys.append(f"{name}: {why}")
            continue
        ids = ", ".join(item.id for item in other.items)
        return layer, replace(other, fallbacks=()), f"{name}/{fallback.source.collection}/{ids}"
    raise MdicoError("; ".join([str(error), *whys])) from error


def _check_same(plan: WeatherPlan, other: WeatherPlan) -> None:
    """Raise MdicoError unless another source has the cells of the cube's layer, and values wherever the first had."""
    if (other.latitudes, other.longitudes) != (plan.latitudes, plan.longitudes):
        raise MdicoError(
            f"its cells are others ({len(other.latitudes)} x {len(other.longitudes)} around the area, not "
            f"{len(plan.latitudes)} x {len(plan.longitudes)}). To build from it, name it as "
            f"modalities.{plan.modality.name}.catalog."
        )
    counts = zip(plan.steps, plan.per_step, other.per_step, strict=True)
    lacking = [step for step, own, found in counts if own and not found]
    if lacking:
        raise MdicoError(f"it has nothing of {', '.join(lacking)}.")
