"""One opened Zarr store on a latitude-longitude grid in; its cells around an area, its dates and their values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox

from mdico_cube.cube.access import Access
from mdico_cube.cube.coarse import Degrees
from mdico_cube.cube.place import degrees_from
from mdico_cube.cube.stores import open_store, reason
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ReadSection, StoreRules, StoreVariable, WeatherKind
from mdico_cube.sensors.samples import Samples, stamps_of
from mdico_cube.sensors.units import conversion
from mdico_cube.spec import Floats

BATCH = 128 << 20
"""Bytes of a store's chunks that are unpacked at once: bounds the memory, whatever the period."""
AXES = {"time": ("valid_time", "time"), "latitude": ("latitude", "lat"), "longitude": ("longitude", "lon")}
"""What the axes of a store may be called."""
Index = npt.NDArray[np.intp]
_SIDE = 33  # points on each side of an area's outline


class Cells(NamedTuple):
    """The cells of one axis around an area, one beyond its edge on either side."""

    at: Index
    """Where they stand in the store."""
    ticks: tuple[float, ...]
    """Their centres in degrees: from north to south, or from west to east without a jump."""


class CoarseStore:
    """One asset that holds variables on (time, latitude, longitude), in whatever order and direction."""

    def __init__(self, item: pystac.Item, key: str, rules: StoreRules, access: Access, reading: ReadSection) -> None:
        self.where = f"{item.collection_id}: item {item.id}, asset {key}"
        self._href, self._rules = item.assets[key].href if key in item.assets else "", rules
        self._data = open_store(item, key, access, reading)
        self._names = {axis: self._axis(axis) for axis in AXES}

    def _axis(self, axis: str) -> str:
        names = [name for name in AXES[axis] if name in self._data.dims and self._data[name].ndim == 1]
        if not names:
            raise MdicoError(
                f"{self.where}: has no {axis} axis ({' or '.join(AXES[axis])}): its dimensions are "
                f"{', '.join(map(str, self._data.dims))}. Use a store on a regular grid in degrees."
            )
        return names[0]

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """UTC dates of the values."""
        found = self._data.indexes[self._names["time"]]
        if not isinstance(found, pd.DatetimeIndex):
            raise MdicoError(f"{self.where}: its {self._names['time']} are no dates. Use a store that follows CF.")
        return found

    def places(self, samples: Samples, kind: WeatherKind) -> Index:
        """(times,) where each value stands among some samples; -1 where it is not wanted."""
        return samples.stamps.get_indexer(stamps_of(self.times, kind, self._rules))

    def around(self, geobox: GeoBox) -> tuple[Cells, Cells]:
        """Latitudes and longitudes of the cells around an area.

        Raises:
            MdicoError: the store does not cover the area.
        """
        lon, lat = _outline(geobox)
        rows = self._around("latitude", lat, np.asarray(self._data[self._names["latitude"]].values, np.float64))
        every = np.asarray(self._data[self._names["longitude"]].values, np.float64)
        middle = (lon.min() + lon.max()) / 2
        columns = self._around("longitude", lon, middle + ((every - middle + 180) % 360 - 180))
        return Cells(rows.at[::-1], rows.ticks[::-1]), columns

    def _around(self, axis: str, edge: Degrees, ticks: Degrees) -> Cells:
        """Cells from one before the edge to one behind it, ascending."""
        order = np.argsort(ticks, kind="stable")
        ordered = ticks[order]
        step = float(np.median(np.diff(ordered))) if ordered.size > 1 else 1.0
        if edge.max() < ordered[0] - step / 2 or edge.min() > ordered[-1] + step / 2:
            raise MdicoError(
                f"{self.where}: covers {axis} {ordered[0]:.4g} to {ordered[-1]:.4g}, the area lies at "
                f"{edge.min():.4g} to {edge.max():.4g}. Use a source that covers it."
            )
        first = max(int(np.searchsorted(ordered, edge.min(), side="right")) - 1, 0)
        last = min(int(np.searchsorted(ordered, edge.max(), side="left")), ordered.size - 1)
        chosen = slice(max(first, 0), max(last, first) + 1)
        return Cells(order[chosen], tuple(float(round(tick, 9)) for tick in ordered[chosen]))

    def window(self, cells: tuple[Cells, Cells]) -> xr.Dataset:
        """Everything in the store, of these cells only; nothing is read yet."""
        places = {self._names[axis]: one.at for axis, one in zip(("latitude", "longitude"), cells, strict=True)}
        ticks = {name: list(one.ticks) for name, one in zip(places, cells, strict=True)}
        return self._data.isel(places).assign_coords(ticks)

    def parts(self, names: Iterable[str]) -> Iterator[slice]:
        """Stretches of time that end where chunks end, each of about `BATCH` bytes once unpacked."""
        arrays = [self._variable(name) for name in sorted(names)]
        dims = [array.dims.index(self._names["time"]) for array in arrays]
        chunks = [array.encoding.get("chunks") or array.shape for array in arrays]
        length = max(chunk[dim] for chunk, dim in zip(chunks, dims, strict=True))
        heavy = sum(
            int(np.prod(chunk)) * array.dtype.itemsize * -(-length // chunk[dim])
            for array, chunk, dim in zip(arrays, chunks, dims, strict=True)
        )
        length *= max(1, BATCH // max(heavy, 1))
        for start in range(0, len(self.times), length):
            yield slice(start, min(start + length, len(self.times)))

    def load(self, name: str, rows: Index, cells: tuple[Cells, Cells]) -> tuple[int, int]:
        """Chunks of a variable that hold some of the dates and cells, and bytes of one once unpacked."""
        array = self._variable(name)
        chunk = dict(zip(array.dims, array.encoding.get("chunks") or array.shape, strict=True))
        wanted = dict(zip(self._names.values(), (rows, cells[0].at, cells[1].at), strict=True))
        count = [len(np.unique(at // chunk[dim])) for dim, at in wanted.items() if dim in chunk]
        return int(np.prod(count)), int(np.prod(list(chunk.values()))) * array.dtype.itemsize

    def read(self, variable: StoreVariable, unit: str, rows: Index, cells: tuple[Cells, Cells]) -> Degrees:
        """Values (rows, cells) of a variable in a unit, NaN where missing.

        Raises:
            MdicoError: there is no such variable, its unit is another one, or its chunks cannot be read.
        """
        array, (factor, shift) = self._variable(variable.name), self.check(variable, unit)
        time, latitude, longitude = self._names.values()
        picked = {time: _plain(rows), latitude: _plain(cells[0].at), longitude: _plain(cells[1].at)}
        try:
            part = array.isel({name: index for name, (index, _) in picked.items() if name in array.dims})
            raw = part.transpose(*(name for name in picked if name in array.dims)).to_numpy()
        except MdicoError:
            raise
        except Exception as error:  # every transport and codec has its own: each means that it cannot be read
            raise MdicoError(f"{self.where}: {variable.name}: {reason(error, self._href)}") from error
        back = tuple(order for name, (_, order) in picked.items() if name in array.dims)
        values = raw[np.ix_(*back)].astype(np.float64)
        if variable.missing is not None:
            values[values == variable.missing] = np.nan
        return np.asarray(values * factor + shift).reshape(len(rows), -1)

    def check(self, variable: StoreVariable, unit: str) -> tuple[float, float]:
        """Factor and shift that bring a variable to a unit.

        Raises:
            MdicoError: there is no such variable, it has other dimensions, or its unit is another one.
        """
        return conversion(variable, unit, self._variable(variable.name).attrs.get("units"), self.where)

    def heights(self, variable: StoreVariable, cells: tuple[Cells, Cells]) -> Floats:
        """Metres (ny, nx) of the cells' ground; of the first date where the store repeats it over time."""
        values = self.read(variable, "m", np.zeros(1, np.intp), cells)
        return values.reshape(len(cells[0].ticks), len(cells[1].ticks)).astype(np.float32)

    def _variable(self, name: str) -> xr.DataArray:
        if name not in self._data.data_vars:
            known = [str(key) for key in self._data.data_vars]
            raise MdicoError(
                f"{self.where}: has no variable {name!r}: it has {', '.join(known) or 'none'}. "
                f"Correct source.zarr.variables.{did_you_mean(name, known)}"
            )
        array = self._data[name]
        axes = set(self._names.values())
        extra = {dim: 0 for dim in array.dims if dim not in axes}
        if any(array.sizes[dim] > 1 for dim in extra) or not axes - {self._names["time"]} <= set(array.dims):
            raise MdicoError(
                f"{self.where}: {name} has dimensions {', '.join(map(str, array.dims))}, weather has "
                f"{', '.join(self._names.values())}. Name another variable."
            )
        return array.isel(extra)


def _plain(index: Index) -> tuple[slice | Index, Index]:
    """An index in the store's own order, as a slice where it has no gaps, and how to bring its values back in order."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    back = np.argsort(order, kind="stable")
    if ordered.size and ordered[-1] - ordered[0] + 1 == ordered.size:
        return slice(int(ordered[0]), int(ordered[-1]) + 1), back
    return ordered, back


def _outline(geobox: GeoBox) -> tuple[Degrees, Degrees]:
    """Longitudes, without a jump, and latitudes of points on an area's edge."""
    height, width = geobox.shape
    along = np.linspace(0, 1, _SIDE)
    column = np.concatenate([along, along, 0 * along, 0 * along + 1]) * width
    row = np.concatenate([0 * along, 0 * along + 1, along, along]) * height
    affine = geobox.affine
    east, north = affine.a * column + affine.b * row + affine.c, affine.d * column + affine.e * row + affine.f
    lon, lat = (np.asarray(part) for part in degrees_from(str(geobox.crs)).transform(east, north))
    return lon[0] + ((lon - lon[0] + 180) % 360 - 180), lat
