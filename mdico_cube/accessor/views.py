"""The sensors of an xarray object in; pictures, tables and figures of them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from odc.geo.geom import point

from mdico_cube.accessor.pixel import pixel_rows
from mdico_cube.accessor.view import View, check_on_grid, metres
from mdico_cube.errors import MdicoError
from mdico_cube.maps.charts import availability_figure
from mdico_cube.maps.plots import Panel, panels_figure
from mdico_cube.maps.series import series_figure
from mdico_cube.spec import Floats

_LIGHT = ("red", "B04")
"""A modality with one of these bands can be shown as true colour."""


class Views(ABC):
    """What can be asked of a cube, of one of its groups, or of one group's Dataset."""

    @abstractmethod
    def _found(self) -> Iterator[View]:
        """Every sensor that is there."""

    @cached_property
    def _views(self) -> dict[str, View]:
        views = {view.modality.name: view for view in self._found()}
        if not views:
            raise MdicoError("this xarray object holds no sensor of a cube. Open a cube with `mdico_cube.open_cube`.")
        return views

    def _view(self, name: str) -> View:
        if name not in self._views:
            raise MdicoError(f"there is no {name!r} here, only {', '.join(self._views)}.")
        return self._views[name]

    @property
    def units(self) -> pd.DataFrame:
        """Every band: modality, band, title, unit."""
        rows = [
            (view.modality.name, band.name, band.title, band.unit)
            for view in self._views.values()
            for band in view.modality.bands
        ]
        return pd.DataFrame(rows, columns=["modality", "band", "title", "unit"])

    def rgb(
        self, modality: str | None = None, time: str | None = None, bands: Sequence[str] | None = None
    ) -> xr.DataArray:
        """A picture of one sensor, at most about 1000 pixels a side; draw it with `.plot.imshow()`.

        Args:
            modality: sensor; None takes the first with visible light, else the first on the grid.
            time: a step, a month or a range's part such as "2021-06"; None chooses among all steps.
            bands: three bands for red, green and blue, each stretched by itself; None takes what suits the sensor.

        Returns:
            (y, x, rgb) in 0..1 with the cube's coordinates; `long_name` says what red, green and blue are.

        Raises:
            MdicoError: no such sensor or band, or no step at that time.
        """
        view = self._view(modality or self._first_to_look_at())
        check_on_grid(view)
        if time is not None:
            view = view.at(time)
        look = view.looked_at() if bands is None else view.combined(tuple(bands))
        coords = {axis: view.thinned.coords[axis] for axis in ("y", "x")}
        return xr.DataArray(
            look.image,
            dims=("y", "x", "rgb"),
            coords={**coords, "rgb": ["red", "green", "blue"]},
            name=view.modality.name,
            attrs={"long_name": look.title.replace("\n", ", ")},
        )

    def availability(self) -> pd.DataFrame:
        """Share (0..1) of pixels observed in every band: one row per time step, one column per sensor with time.

        Large cubes are looked at every n-th pixel, as in the pictures.
        """
        shares = {
            name: view.thinned.notnull().all("band").mean(view.axes).to_series()
            for name, view in self._views.items()
            if view.modality.temporal
        }
        return pd.DataFrame(shares).rename_axis("time")

    def series(self, x: float, y: float, crs: str | None = None) -> pd.DataFrame:
        """Everything known of one pixel, one row per value.

        Args:
            x: easting in the cube's CRS, or what `crs` says (longitude for "EPSG:4326").
            y: northing, or latitude.
            crs: of x and y; None means the cube's own.

        Returns:
            modality, time (NaT for terrain), band, value (NaN = not observed), unit.

        Raises:
            MdicoError: the point lies outside the cube.
        """
        tables = [pixel_rows(view, x, y, crs or self._crs, self._ground(x, y, crs)) for view in self._views.values()]
        return pd.concat(tables, ignore_index=True)

    def _ground(self, x: float, y: float, crs: str | None) -> Floats:
        """(1, 1) height of the terrain at a point, NaN where there is none."""
        height = np.full((1, 1), np.nan, np.float32)
        terrain = self._views.get("dem")
        if terrain is not None and terrain.on_grid and "elevation" in terrain.modality.band_names:
            ((column, row),) = point(x, y, crs or self._crs).to_crs(terrain.crs).points
            height[:] = terrain.array.sel(band="elevation").sel(x=column, y=row, method="nearest").values
        return height

    def series_plot(self, x: float, y: float, crs: str | None = None) -> Figure:
        """The series of one pixel over time, one panel per sensor; radar and optical bands keep their own units."""
        place = f"x {x:.9g}, y {y:.9g} ({crs or self._crs})"
        titles = {name: view.title for name, view in self._views.items()}
        return series_figure(self.series(x, y, crs), titles, place)

    def quicklook(self) -> Figure:
        """Every sensor on the grid side by side, with a scale bar."""
        looks = [view.looked_at() for view in self._views.values() if view.on_grid]
        first = next(view for view in self._views.values() if view.on_grid)
        return panels_figure([Panel(look.image, look.title) for look in looks], metres(first.thinned))

    def availability_plot(self) -> Figure:
        """Observed pixels per time step in percent, one row of bars per sensor."""
        views = {name: view for name, view in self._views.items() if view.modality.temporal and view.on_grid}
        return availability_figure({name: view.looked_at() for name, view in views.items()})

    def _first_to_look_at(self) -> str:
        lit = [name for name, view in self._views.items() if set(_LIGHT) & set(view.modality.band_names)]
        return (lit or [name for name, view in self._views.items() if view.on_grid] or list(self._views))[0]

    @property
    def _crs(self) -> str:
        views = self._views.values()
        return next((view.crs for view in views if view.on_grid), "EPSG:4326")
