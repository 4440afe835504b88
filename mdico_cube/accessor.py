"""A cube opened with xarray in; pictures, availability, pixel series and the ledger out, as `cube.mdico`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from odc.geo.geom import point

from mdico_cube.cube.coarse import CoarseLayer, beside, interpolate
from mdico_cube.cube.layer import layer_from
from mdico_cube.cube.ledger import STATE_NAMES, Ledger
from mdico_cube.cube.reader import open_cube
from mdico_cube.cube.target import Location, locate
from mdico_cube.errors import MdicoError
from mdico_cube.maps.charts import availability_figure
from mdico_cube.maps.images import SIDE, QuickLook, look_at, view_bands
from mdico_cube.maps.plots import Panel, panels_figure
from mdico_cube.maps.predict import predict_map
from mdico_cube.maps.series import series_figure
from mdico_cube.schema import LAPSE_RATE, OROGRAPHY
from mdico_cube.sensors.registry import SENSORS, WEATHER
from mdico_cube.spec import Floats, Modality

_LIGHT = ("red", "B04")
"""A modality with one of these bands can be shown as true colour."""


@dataclass(frozen=True)
class _View:
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
        return self.modality.title or self.modality.name

    @property
    def on_grid(self) -> bool:
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
        return look_at(chosen, names, self.title, self.steps, _metres(array))


class Views:
    """What can be asked of a cube, of one of its groups, or of one group's Dataset."""

    def _found(self) -> Iterator[_View]:
        raise NotImplementedError

    @cached_property
    def _views(self) -> dict[str, _View]:
        views = {view.modality.name: view for view in self._found()}
        if not views:
            raise MdicoError("this xarray object holds no sensor of a cube. Open a cube with `mdico_cube.open_cube`.")
        return views

    def _view(self, name: str) -> _View:
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

    def rgb(self, modality: str | None = None, time: str | None = None) -> xr.DataArray:
        """A picture of one sensor, at most about 1000 pixels a side; draw it with `.plot.imshow()`.

        Args:
            modality: sensor; None takes the first with visible light, else the first on the grid.
            time: a step, a month or a range's part such as "2021-06"; None chooses among all steps.

        Returns:
            (y, x, rgb) in 0..1 with the cube's coordinates; `long_name` says what red, green and blue are.

        Raises:
            MdicoError: no such sensor, or no step at that time.
        """
        view = self._view(modality or self._first_to_look_at())
        _on_grid(view)
        if time is not None:
            view = _View(view.modality, _at(view, time))
        look = view.looked_at()
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
        tables = [_pixel(view, x, y, crs or self._crs, self._ground(x, y, crs)) for view in self._views.values()]
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
        return panels_figure([Panel(look.image, look.title) for look in looks], _metres(first.thinned))

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


@xr.register_datatree_accessor("mdico")  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
class CubeAccessor(Views):
    """`cube.mdico` on a cube, or on one of its groups."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def _found(self) -> Iterator[_View]:
        for name, facts in self._tree.root.attrs.get("mdico_modalities", {}).items():
            modality = layer_from(facts).modality
            node = self._tree if self._tree.name == name else self._tree.children.get(name)
            if node is not None and modality.variable in node.data_vars:  # the ledger has groups of the same names
                yield _named(modality, node.to_dataset())

    @property
    def path(self) -> Location:
        """Where the cube lies.

        Raises:
            MdicoError: the tree was not opened from disk.
        """
        source = self._tree.root.encoding.get("source")
        if source is None:
            raise MdicoError("this tree does not know its cube on disk. Open it with `mdico_cube.open_cube`.")
        return locate(source)

    def ledger(self) -> pd.DataFrame:
        """How every shard came about: one row per sensor and shard, written by the build."""
        return pd.DataFrame([row for name in self._views for row in _ledger_rows(self.path, name)])

    def predict(self, bundle: str | Path) -> xr.Dataset:
        """The map of the whole cube by one sensor's model, lazily: class and confidence (y, x)."""
        return predict_map(self.path, Path(bundle))


@xr.register_dataset_accessor("mdico")  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
class GroupAccessor(Views):
    """`dataset.mdico` on the Dataset of one group: the sensor is known by its variable and bands."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def _found(self) -> Iterator[_View]:
        images, weather = ((sensor.modality for sensor in some.values()) for some in (SENSORS, WEATHER))
        for modality in (*images, *weather):
            array = self._dataset.data_vars.get(modality.variable)
            if array is not None and set(array["band"].values.tolist()) <= set(modality.band_names):
                yield _named(modality, self._dataset)


def _named(modality: Modality, dataset: xr.Dataset) -> _View:
    array = dataset[modality.variable]
    known = modality.select(tuple(str(band) for band in np.atleast_1d(array["band"].values)))
    if not modality.coarse or OROGRAPHY not in dataset:
        return _View(known, array)
    rate = float(np.nan_to_num(dataset[LAPSE_RATE].values)) / 1000
    return _View(known, array, dataset[OROGRAPHY].values.astype(np.float32), rate)


def _metres(array: xr.DataArray) -> float | None:
    """Ground size of a pixel; None on grids in degrees and on grids without one pixel size."""
    geobox = array.odc.geobox
    if geobox is None or geobox.crs is None or geobox.crs.geographic:
        return None
    return float(abs(geobox.resolution.x))


def _on_grid(view: _View) -> None:
    if not view.on_grid:
        raise MdicoError(f"{view.modality.name}: stands on a grid of its own and has no picture. Use `.series(x, y)`.")


def _at(view: _View, time: str) -> xr.DataArray:
    if not view.modality.temporal:
        raise MdicoError(f"{view.modality.name}: has no time steps. Leave out `time`.")
    try:
        chosen = view.array.sel(time=slice(time, time))
    except (KeyError, ValueError, TypeError):
        chosen = view.array.isel(time=slice(0))
    if not chosen.sizes["time"]:
        steps = view.steps
        raise MdicoError(
            f"{view.modality.name}: has no step at {time!r}, its {len(steps)} run from {steps[0]} to {steps[-1]}."
        )
    return chosen


def _pixel(view: _View, x: float, y: float, crs: str, ground: Floats) -> pd.DataFrame:
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


def _between_cells(view: _View, lon: float, lat: float, ground: Floats) -> xr.DataArray:
    """(time, band) of a coarse sensor at a point, as its pixels are read."""
    array = view.array.transpose("time", "band", *view.axes)
    values = array.to_numpy().astype(np.float32)
    heights = np.full(values.shape[-2:], np.nan, np.float32) if view.heights is None else view.heights
    latitudes, longitudes = (array[axis].values.astype(np.float64) for axis in view.axes)
    lapses = tuple(band.lapses for band in view.modality.bands)
    layer = CoarseLayer(values, latitudes, longitudes, lapses, heights, view.rate)
    found = interpolate(layer, np.array([[lon]]), np.array([[lat]]), ground)[:, :, 0, 0]
    return array.isel(dict.fromkeys(view.axes, 0)).copy(data=found)


def _ledger_rows(cube: Location, name: str) -> Iterator[dict[str, Any]]:
    for (row, column), entry in Ledger(cube, name).entries().items():
        yield {
            "modality": name,
            "shard": f"{row},{column}",
            "state": STATE_NAMES[entry.state],
            "items": len(entry.items),
            "valid_fraction": entry.valid_fraction,
            "offsets": "; ".join(sorted(set(entry.offsets.values()))),
            "seconds": entry.seconds,
            "bytes_written": entry.bytes_written,
            "failed_reads": len(entry.failed_reads),
            "error": entry.error,
            "version": entry.version,
            "digest": entry.digest[:8],
        }


__all__ = ["CubeAccessor", "GroupAccessor", "open_cube"]
