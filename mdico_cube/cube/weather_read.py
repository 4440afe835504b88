"""A weather plan in, the coarse layer out: stores read part by part of time, values gathered into steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pystac
from odc.geo.geobox import GeoBox

from mdico_cube.cube.cells import Cells, CoarseStore, Index
from mdico_cube.cube.coarse import Degrees
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import StoreVariable
from mdico_cube.sensors.samples import Running, samples_of
from mdico_cube.sensors.weather import Making
from mdico_cube.spec import Floats


@dataclass(frozen=True)
class WeatherLayer:
    """A coarse modality, ready to be stored."""

    values: Floats
    """(T, C, ny, nx), NaN = missing."""
    heights: Floats
    """(ny, nx) metres, NaN where unknown or not wanted."""


@dataclass(frozen=True)
class _Filling:
    """One band on its way."""

    making: Making
    running: Running
    left: npt.NDArray[np.bool_]
    """(samples,) True where no store has given the value yet."""

    @property
    def inputs(self) -> list[tuple[str, StoreVariable]]:
        """What is read: the band a variable stands for, and the variable."""
        return list(zip(self.making.names, self.making.variables, strict=True))


def read_weather(plan: WeatherPlan, geobox: GeoBox) -> WeatherLayer:
    """Read a planned modality; only the cells around the area are kept, and a stretch of time at once.

    A value that stands in several stores is taken from the first of them.

    Raises:
        MdicoError: a store cannot be read, or stands on another grid than the first.
    """
    samples = [samples_of(m.kind, m.operator, plan.windows, plan.rules.every) for m in plan.makings]
    fillings = [
        _Filling(making, Running(one, plan.cells), np.ones(len(one.stamps), np.bool_))
        for making, one in zip(plan.makings, samples, strict=True)
    ]
    for item in plan.items:
        stores = _Stores(plan, item, geobox)
        groups: dict[str, list[_Filling]] = {}
        for one in fillings:
            groups.setdefault(stores.key(one.making.variables[0]), []).append(one)
        for key, bands in groups.items():
            if key in item.assets:
                _fill(stores, key, bands)
    values = np.stack([one.running.result(plan.rules.coverage) for one in fillings], axis=1)  # (T, C, cells)
    grid = (len(plan.latitudes), len(plan.longitudes))
    return WeatherLayer(values.reshape(*values.shape[:2], *grid), _heights(plan, geobox))


class _Stores:
    """The stores of one item, opened when they are asked for, with their cells around the area."""

    def __init__(self, plan: WeatherPlan, item: pystac.Item, geobox: GeoBox) -> None:
        self._plan, self._item, self._geobox = plan, item, geobox
        self._open: dict[str, tuple[CoarseStore, tuple[Cells, Cells]]] = {}

    def key(self, variable: StoreVariable) -> str:
        """Asset key of the store a variable stands in."""
        return variable.asset or self._plan.rules.asset

    def get(self, key: str) -> tuple[CoarseStore, tuple[Cells, Cells]]:
        """A store and its cells.

        Raises:
            MdicoError: its cells are not those of the plan.
        """
        if key not in self._open:
            plan = self._plan
            store = CoarseStore(self._item, key, plan.rules, plan.access, plan.reading)
            cells = store.around(self._geobox)
            if (cells[0].ticks, cells[1].ticks) != (plan.latitudes, plan.longitudes):
                raise MdicoError(
                    f"{store.where}: stands on another grid than the first store of {plan.modality.name}. "
                    "Set source.zarr.items to items of one grid."
                )
            self._open[key] = store, cells
        return self._open[key]

    def read(self, entry: tuple[str, StoreVariable], rows: Index, dates: CoarseStore) -> Degrees:
        """Values (rows, cells) of a variable in its band's unit; the rows count the dates of a store.

        Raises:
            MdicoError: it cannot be read, or has other dates.
        """
        name, variable = entry
        store, cells = self.get(self.key(variable))
        if not store.times.equals(dates.times):
            raise MdicoError(f"{store.where}: has other dates than {dates.where}, so the two cannot be joined.")
        return store.read(variable, self._plan.sensor.unit(name), rows, cells)


def _fill(stores: _Stores, key: str, bands: Sequence[_Filling]) -> None:
    """Give some bands what one store holds of them: stretches of time, one after the other."""
    store, _ = stores.get(key)
    places = [store.places(band.running.samples, band.making.kind) for band in bands]
    own = {variable.name for band in bands for _, variable in band.inputs if stores.key(variable) == key}
    for part in store.parts(own):
        wanted = [_wanted(place, band.left, part) for place, band in zip(places, bands, strict=True)]
        needs: dict[tuple[str, StoreVariable], list[Index]] = {}
        for rows, band in zip(wanted, bands, strict=True):
            for entry in band.inputs:
                needs.setdefault(entry, []).append(rows)
        every = {entry: np.unique(np.concatenate(rows)) for entry, rows in needs.items()}
        values = {entry: stores.read(entry, rows, store) for entry, rows in every.items() if rows.size}
        for rows, place, band in zip(wanted, places, bands, strict=True):
            if rows.size:
                inputs = [values[entry][np.searchsorted(every[entry], rows)] for entry in band.inputs]
                band.running.add(place[rows], band.making.compute(*inputs) if band.making.compute else inputs[0])
                band.left[place[rows]] = False


def _wanted(place: Index, left: npt.NDArray[np.bool_], part: slice) -> Index:
    """Rows of a stretch of time that a band still needs, each sample once, in their order."""
    rows = part.start + np.flatnonzero(place[part] >= 0)
    rows = rows[left[place[rows]]]
    return np.asarray(rows[np.sort(np.unique(place[rows], return_index=True)[1])])


def _heights(plan: WeatherPlan, geobox: GeoBox) -> Floats:
    """Heights of the cells' ground, NaN where they are not wanted."""
    variable = plan.rules.orography
    nothing = np.full((len(plan.latitudes), len(plan.longitudes)), np.nan, np.float32)
    if variable is None or not plan.lapse_rate:
        return nothing
    key = variable.asset or plan.rules.asset
    holding = next((item for item in plan.items if key in item.assets), plan.items[0])
    store, cells = _Stores(plan, holding, geobox).get(key)
    return store.heights(variable, cells)
