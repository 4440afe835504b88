"""A sensor and a point in, its values there out: one row per time step and band."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geom import point

from mdico_cube.accessor.view import View
from mdico_cube.cube.coarse import CoarseLayer, beside, interpolate
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Floats


def pixel_rows(view: View, x: float, y: float, crs: str, ground: Floats) -> pd.DataFrame:
    """Everything one sensor knows of a point: modality, time, band, value, unit.

    Args:
        view: the sensor.
        x: easting or longitude in `crs`.
        y: northing or latitude.
        crs: of x and y.
        ground: (1, 1) height of the terrain there, NaN where it is not known.

    Raises:
        MdicoError: the point lies outside.
    """
    ((column, row),) = point(x, y, crs).to_crs(view.crs).points
    if not view.on_grid:
        column = float(beside(np.array([column]), view.array["longitude"].values)[0])
    for axis, value in zip(view.axes, (row, column), strict=True):
        ticks = view.array[axis].values
        reach = abs(ticks[-1] - ticks[0]) / max(len(ticks) - 1, 1) / 2 or np.inf
        if not min(ticks[0], ticks[-1]) - reach <= value <= max(ticks[0], ticks[-1]) + reach:
            raise MdicoError(
                f"{axis} {value:.9g} lies outside {view.modality.name}, which runs from {ticks.min():.9g} to "
                f"{ticks.max():.9g} in {view.crs}. Give a point inside, or its crs."
            )
    if view.on_grid:
        values = view.array.sel(dict(zip(view.axes, (row, column), strict=True)), method="nearest")
    else:
        values = _between_cells(view, column, row, ground)
    array = values if "time" in values.dims else values.expand_dims(time=[np.datetime64("NaT", "ns")])
    data = array.transpose("time", "band").to_numpy()  # (T, C)
    times, bands = np.meshgrid(np.arange(data.shape[0]), np.arange(data.shape[1]), indexing="ij")
    return pd.DataFrame(
        {
            "modality": view.modality.name,
            "time": array["time"].values[times.ravel()],
            "band": np.array(view.modality.band_names, object)[bands.ravel()],
            "value": data.ravel(),
            "unit": np.array(view.modality.units, object)[bands.ravel()],
        }
    )


def _between_cells(view: View, lon: float, lat: float, ground: Floats) -> xr.DataArray:
    """(time, band) of a coarse sensor at a point, as its pixels are read."""
    array = view.array.transpose("time", "band", *view.axes)
    values = array.to_numpy().astype(np.float32)
    heights = np.full(values.shape[-2:], np.nan, np.float32) if view.heights is None else view.heights
    latitudes, longitudes = (array[axis].values.astype(np.float64) for axis in view.axes)
    lapses = tuple(band.lapses for band in view.modality.bands)
    layer = CoarseLayer(values, latitudes, longitudes, lapses, heights, view.rate)
    found = interpolate(layer, np.array([[lon]]), np.array([[lat]]), ground)[:, :, 0, 0]
    return array.isel(dict.fromkeys(view.axes, 0)).copy(data=found)
