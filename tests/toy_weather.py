"""Toy weather stores: hourly fields whose every value is known, written as the great archives write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import xarray as xr

LATITUDES = np.arange(51.0, 49.9, -0.25)
LONGITUDES = np.arange(5.25, 6.6, 0.25)
RULES: dict[str, Any] = {
    "every": "1h",
    "variables": {
        "t2m": {"name": "t2m", "unit": "K"},
        "d2m": {"name": "d2m", "unit": "K"},
        "tp": {"name": "tp", "kind": "since_midnight", "unit": "m"},
    },
    "orography": {"name": "z", "unit": "m2 s-2"},
}
"""As ERA5-Land stands on the Earth Data Hub, with geopotential."""


def hourly_weather(
    start: str = "2020-12-31", end: str = "2021-04-02", latitudes: Any = LATITUDES, longitudes: Any = LONGITUDES
) -> xr.Dataset:
    """Temperature, dew point, hourly rain in mm as `fell` and its running total in m as `tp`, and geopotential."""
    hours = pd.date_range(start, end, freq="h", name="valid_time")
    rng = np.random.default_rng(5)
    shape = (hours.size, len(latitudes), len(longitudes))
    day = np.asarray(hours.hour)[:, None, None]
    t2m = 280 + 4 * np.sin((day - 9) / 24 * 2 * np.pi) + rng.normal(0, 3, shape)
    fell = rng.gamma(0.2, 1.0, shape)
    running = np.zeros(shape)
    total = np.zeros(shape[1:])
    for i, hour in enumerate(hours):
        total = fell[i] + (0 if hour.hour == 1 else total)  # the hour up to 01:00 is a day's first
        running[i] = total
    axes = ("valid_time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (axes, t2m.astype(np.float32), {"units": "K"}),
            "d2m": (axes, (t2m - rng.gamma(2, 2, shape)).astype(np.float32), {"units": "K"}),
            "tp": (axes, (running / 1000).astype(np.float32), {"units": "m"}),
            "fell": (axes, fell.astype(np.float32), {"units": "mm"}),
            "z": (axes[1:], rng.uniform(0, 9000, shape[1:]).astype(np.float32), {"units": "m**2 s**-2"}),
        },
        coords={"valid_time": hours, "latitude": latitudes, "longitude": longitudes},
    )


def write_store(
    path: Path, data: xr.Dataset, zarr_format: int = 3, hours: int = 240, consolidated: bool = True
) -> None:
    """Write a store with chunks of so many hours and three by four cells."""
    sizes = {"valid_time": hours, "time": hours, "latitude": 3, "lat": 3, "longitude": 4, "lon": 4}
    encoding = {
        str(name): {
            "chunks": tuple(min(sizes[str(dim)], size) for dim, size in zip(array.dims, array.shape, strict=True))
        }
        for name, array in data.data_vars.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        data.to_zarr(path, mode="w", zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)  # type: ignore[call-overload]


def weather_item(name: str, href: str, times: pd.DatetimeIndex, **fields: Any) -> pystac.Item:
    """An item of a global store: its box is the globe's, as archives have it."""
    item = pystac.Item(
        name,
        {"type": "Polygon", "coordinates": [[[0, -90], [359.9, -90], [359.9, 90], [0, 90], [0, -90]]]},
        [0, -90, 359.9, 90],
        None,
        {},
        start_datetime=times[0].to_pydatetime(),
        end_datetime=times[-1].to_pydatetime(),
    )
    item.add_asset("data", pystac.Asset(href, media_type="application/vnd+zarr", roles=["data"], extra_fields=fields))
    return item


def weather_catalog(folder: Path, items: list[pystac.Item]) -> Path:
    """A static catalog with one collection, era5."""
    extent = pystac.Extent(
        pystac.SpatialExtent([[0, -90, 359.9, 90]]),
        pystac.TemporalExtent([[pystac.utils.str_to_datetime("2020-01-01T00:00:00Z"), None]]),
    )
    collection = pystac.Collection("era5", "Weather.", extent)
    collection.add_items(items)
    catalog = pystac.Catalog("weather", "A toy catalog.")
    catalog.add_child(collection)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def save_weather(folder: Path, data: xr.Dataset, **options: Any) -> Path:
    """One store and its catalog."""
    write_store(folder / "weather.zarr", data, **options)
    times = pd.DatetimeIndex(data[next(dim for dim in data.dims if "time" in str(dim))].values)
    return weather_catalog(folder, [weather_item("weather", str(folder / "weather.zarr"), times)])
