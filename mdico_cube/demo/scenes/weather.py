"""The year's weather in, one ERA5-like item out: daily temperature and rain on a few cells of a quarter degree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from mdico_cube.demo.catalog import ZARR, Collection, Json, Scene
from mdico_cube.demo.noise import generator
from mdico_cube.demo.world import World
from mdico_cube.spec import Array

LATITUDES = np.arange(51.25, 49.99, -0.25)
LONGITUDES = np.arange(5.25, 6.76, 0.25)
"""Degrees east, 0..359.75."""
LAPSE = 0.0065
"""Kelvin by which it is colder for each metre up."""
COLLECTION = Collection(
    id="era5",
    title="ERA5 daily (simulated)",
    description="Simulated daily weather on 0.25 degrees: t2m is the daily mean in K, tp the daily sum in mm.",
    keywords=("ERA5", "weather", "simulated"),
    summaries={"gsd": [28_000]},
    extensions=("cube", "xarray"),
    item_assets={
        "data": {
            "type": ZARR,
            "roles": ["data"],
            "title": "Daily weather as one Zarr store",
            "xarray:open_kwargs": {"engine": "zarr", "chunks": {}, "consolidated": False},
        }
    },
)


def scenes(world: World) -> list[Callable[[], Scene]]:
    """One job: the whole year in one store."""
    return [lambda: _scene(world)]


def daily_weather(world: World) -> xr.Dataset:
    """Daily t2m in K and tp in mm, and geopotential z: the region's weather, a little different in every cell.

    Every cell has a height of its own around the region's mean, and is the colder the higher it lies.
    """
    days = pd.date_range(f"{world.year}-01-01", f"{world.year}-12-31", freq="D")
    rng = generator(world.seed, "era5")
    shape = (days.size, LATITUDES.size, LONGITUDES.size)
    warmer = 0.8 * (50.7 - LATITUDES)[:, None] + 0.4 * rng.standard_normal(shape[1:])
    wetter = np.exp(0.10 * rng.standard_normal(shape[1:]))
    temperature = world.weather.temperature[: days.size, None, None] + 273.15 + warmer
    rain = world.weather.rain[: days.size, None, None] * wetter * np.exp(0.25 * rng.standard_normal(shape))
    above = 60 * generator(world.seed, "era5", "orography").standard_normal(shape[1:])
    temperature = temperature - LAPSE * above
    height = np.maximum(world.landscape.elevation.mean() + above, 0)
    axes = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (
                axes,
                (temperature + 0.3 * rng.standard_normal(shape)).astype(np.float32),
                {"units": "K", "long_name": "2 metre temperature", "cell_methods": "time: mean"},
            ),
            "tp": (
                axes,
                rain.astype(np.float32),
                {"units": "mm", "long_name": "Total precipitation", "cell_methods": "time: sum"},
            ),
            "z": (
                axes[1:],
                (9.80665 * height).astype(np.float32),
                {"units": "m**2 s**-2", "long_name": "Geopotential", "standard_name": "geopotential"},
            ),
        },
        coords={
            "time": days,
            "latitude": ("latitude", LATITUDES, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", LONGITUDES, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        attrs={"Conventions": "CF-1.10", "title": "Simulated daily weather"},
    )


def _scene(world: World) -> Scene:
    west, east = LONGITUDES[0] - 0.125, LONGITUDES[-1] + 0.125
    south, north = LATITUDES[-1] - 0.125, LATITUDES[0] + 0.125
    start = pd.Timestamp(f"{world.year}-01-01")
    end = pd.Timestamp(f"{world.year}-12-31T23:59:59")
    return Scene(
        id=f"era5-{world.year}",
        time=start,
        end=end,
        properties={"gsd": 28_000, **_cube(start, end)},
        assets={"data": daily_weather(world)},
        footprint=("EPSG:4326", (float(west), float(south), float(east), float(north))),
    )


def _cube(start: pd.Timestamp, end: pd.Timestamp) -> Json:
    axes = ["time", "latitude", "longitude"]

    def axis(name: str, values: Array) -> Json:
        extent = [float(values.min()), float(values.max())]
        return {"type": "spatial", "axis": name, "extent": extent, "reference_system": 4326}

    return {
        "cube:dimensions": {
            "time": {
                "type": "temporal",
                "extent": [start.strftime("%Y-%m-%dT%H:%M:%SZ"), end.strftime("%Y-%m-%dT%H:%M:%SZ")],
                "step": "P1D",
            },
            "latitude": axis("y", LATITUDES),
            "longitude": axis("x", LONGITUDES),
        },
        "cube:variables": {
            "t2m": {"type": "data", "dimensions": axes, "unit": "K", "description": "daily mean"},
            "tp": {"type": "data", "dimensions": axes, "unit": "mm", "description": "daily sum"},
            "z": {"type": "auxiliary", "dimensions": axes[1:], "unit": "m**2 s**-2", "description": "geopotential"},
        },
    }
