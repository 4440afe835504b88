"""One sensor of an xarray object in; its steps, its grid, its picture and its share of observed pixels out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from mdico_cube.errors import MdicoError
from mdico_cube.maps.images import SIDE, QuickLook, look_at, stretched, view_bands
from mdico_cube.schema import LAPSE_RATE, OROGRAPHY
from mdico_cube.spec import Floats, Modality


@dataclass(frozen=True)
class View:
    """One sensor of the object at hand."""

    modality: Modality
    """With the bands that `array` has."""
    array: xr.DataArray
    """(time, band, y, x) or (band, y, x), physical values, NaN = missing; on another grid its own two axes."""
    heights: Floats | None = None
    """(latitude, longitude) metres of a coarse sensor's cells."""
    rate: float = 0.0
    """Kelvin per metre by which its temperatures follow the terrain."""

    @property
    def title(self) -> str:
        """What a person calls the sensor."""
        return self.modality.title or self.modality.name

    @property
    def on_grid(self) -> bool:
        """True where its rows and columns are the cube's."""
        return {"x", "y"} <= set(self.array.dims)

    @property
    def axes(self) -> tuple[str, str]:
        """Names of the rows' and the columns' dimension."""
        return ("y", "x") if self.on_grid else ("latitude", "longitude")

    @property
    def crs(self) -> str:
        """CRS of the rows and columns: a code where there is one."""
        crs = self.array.odc.crs if self.on_grid else None
        return "EPSG:4326" if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else str(crs)

    @property
    def steps(self) -> tuple[str, ...]:
        """ISO date of each step's first day; one empty string without time."""
        if "time" not in self.array.dims:
            return ("",)
        return tuple(str(day) for day in self.array["time"].dt.strftime("%Y-%m-%d").values)

    @property
    def thinned(self) -> xr.DataArray:
        """Every n-th pixel, so that no side is longer than a picture's."""
        step = max(1, -(-max(self.array.sizes[axis] for axis in self.axes) // SIDE))
        return self.array.isel(dict.fromkeys(self.axes, slice(None, None, step)))

    def looked_at(self) -> QuickLook:
        """The sensor as a person would look at it."""
        array = self.thinned
        if "time" not in array.dims:
            array = array.expand_dims("time")
        values = array.transpose("time", "band", *self.axes).to_numpy().astype(np.float32)  # (T, C, h, w)
        names = self.modality.band_names
        seen = ~np.isnan(values).any(axis=1, keepdims=True)
        chosen = np.where(seen, values[:, view_bands(names)], np.nan)
        return look_at(chosen, names, self.title, self.steps, metres(array))

    def at(self, time: str) -> View:
        """The sensor at one step, or at the steps of a part of a date such as "2021-06".

        Raises:
            MdicoError: it has no time steps, or none then.
        """
        if not self.modality.temporal:
            raise MdicoError(f"{self.modality.name}: has no time steps. Leave out `time`.")
        try:
            chosen = self.array.sel(time=slice(time, time))
        except (KeyError, ValueError, TypeError):
            chosen = self.array.isel(time=slice(0))
        if not chosen.sizes["time"]:
            steps = self.steps
            raise MdicoError(
                f"{self.modality.name}: has no step at {time!r}, its {len(steps)} run from {steps[0]} to {steps[-1]}."
            )
        return replace(self, array=chosen)

    def combined(self, bands: tuple[str, ...]) -> QuickLook:
        """Three bands as red, green and blue: the median over the steps at hand, each band stretched by itself.

        Raises:
            MdicoError: not three bands, or one that the sensor does not have.
        """
        if len(bands) != 3:
            raise MdicoError(f"bands: a picture takes three, for red, green and blue; came {len(bands)}.")
        chosen = self.modality.select(bands)
        array = self.thinned if "time" in self.array.dims else self.thinned.expand_dims("time")
        values = array.sel(band=list(bands)).transpose("band", "time", *self.axes).to_numpy().astype(np.float32)
        units = ", ".join(dict.fromkeys(chosen.units))
        span = self.steps[0] if len(self.steps) == 1 else f"median of {len(self.steps)} steps"
        middle = np.asarray(xr.DataArray(values).median("dim_1", skipna=True).values, np.float32)  # (3, h, w)
        title = f"{self.title}\n{', '.join(bands)} in {units} ({span})".replace(" ()", "")
        return QuickLook(stretched(middle), title, self.steps, ())


def named(modality: Modality, dataset: xr.Dataset) -> View:
    """The view of one sensor's group, with the bands that it has."""
    array = dataset[modality.variable]
    known = modality.select(tuple(str(band) for band in np.atleast_1d(array["band"].values)))
    if not modality.coarse or OROGRAPHY not in dataset:
        return View(known, array)
    rate = float(np.nan_to_num(dataset[LAPSE_RATE].values)) / 1000
    return View(known, array, dataset[OROGRAPHY].values.astype(np.float32), rate)


def metres(array: xr.DataArray) -> float | None:
    """Ground size of a pixel; None on grids in degrees and on grids without one pixel size."""
    geobox = array.odc.geobox
    if geobox is None or geobox.crs is None or geobox.crs.geographic:
        return None
    return float(abs(geobox.resolution.x))


def check_on_grid(view: View) -> None:
    """Raise MdicoError for a sensor that stands on a coarse grid of its own."""
    if not view.on_grid:
        raise MdicoError(f"{view.modality.name}: stands on a grid of its own and has no picture. Use `.series(x, y)`.")
