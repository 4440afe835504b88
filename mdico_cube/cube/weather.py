"""A recipe's weather in; everything a build will read of it out: stores, cells around the area, values per step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
import pystac
from odc.geo.geobox import GeoBox

from mdico_cube.cube.access import Access
from mdico_cube.cube.address import shown
from mdico_cube.cube.catalog import CatalogFile, load_catalog, source_for
from mdico_cube.cube.cells import BATCH, Cells, CoarseStore
from mdico_cube.cube.items import Answer
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import Origin
from mdico_cube.cube.pages import UnreachableError, catalog_href
from mdico_cube.cube.search import longitude
from mdico_cube.cube.store_search import recall_stores, store_items
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection, Recipe, Source, StoreRules
from mdico_cube.sensors.samples import Window, samples_of, solar_windows
from mdico_cube.sensors.weather import Making, Weather, band_recipe
from mdico_cube.spec import Modality

RULES = 1
"""Raised whenever the same stores and options would give other values; it makes older layers stale."""


@dataclass(frozen=True)
class WeatherPlan:
    """A coarse modality of the cube to build: one job, however large the area."""

    sensor: Weather
    modality: Modality
    """With the recipe's bands."""
    steps: tuple[str, ...]
    stops: tuple[str, ...]
    edges: tuple[tuple[datetime, datetime], ...]
    """First moment of each step and the first after it, UTC."""
    source: Source
    access: Access
    """How the catalog's stores are reached."""
    reading: ReadSection
    """How long to go on after faults."""
    items: tuple[pystac.Item, ...]
    latitudes: tuple[float, ...]
    longitudes: tuple[float, ...]
    lapse_rate: float
    """Kelvin per kilometre; 0 where temperatures stay as they are, or the source does not know its cells' heights."""
    per_step: tuple[int, ...]
    """Values that the source has for each step, of the first band."""
    requests: int = 0
    """Chunks to read, as many as those of the first variable for each."""
    memory: int = 0
    """Bytes of values that are unpacked at once."""

    @property
    def layer(self) -> Layer:
        """What the store needs."""
        return Layer(self.modality, self.steps, self.latitudes, self.longitudes, self.stops)

    @property
    def rules(self) -> StoreRules:
        """How the stores are to be read."""
        return rules_of(self.source, self.modality.name)

    @cached_property
    def makings(self) -> tuple[Making, ...]:
        """How each band is made, in the modality's order."""
        return _makings(self.sensor, self.modality, self.source)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The steps in UTC."""
        return tuple((pd.Timestamp(start), pd.Timestamp(end)) for start, end in self.edges)

    @property
    def cells(self) -> int:
        """Cells of the coarse grid."""
        return len(self.latitudes) * len(self.longitudes)

    @property
    def bytes_stored(self) -> int:
        """Bytes in the cube before compression."""
        return 4 * self.cells * len(self.steps) * len(self.modality.bands)

    @property
    def bytes_read(self) -> int:
        """Bytes of the values that are used, before compression; the chunks they stand in hold more."""
        return 4 * self.cells * sum(self.per_step) * len({v for making in self.makings for v in making.variables})

    def check(self) -> None:
        """Raise MdicoError where a band cannot be made of the source: before anything is read."""
        _ = self.makings

    @property
    def origin(self) -> Origin:
        """Everything that decides the layer, in parts that can be compared one by one."""
        settings = {
            "rules": RULES,
            "bands": self.modality.band_names,
            "lapse_rate": self.lapse_rate,
            "items": [[item.id, *sorted(shown(asset.href) for asset in item.assets.values())] for item in self.items],
            **{f"source.{key}": value for key, value in self.source.model_dump().items()},
        }
        steps = {
            name: _short([str(edge) for edge in window] + [count])
            for name, window, count in zip(self.steps, self.windows, self.per_step, strict=True)
        }
        texts = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        return Origin(texts, _short([self.latitudes, self.longitudes]), steps)


def _short(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def rules_of(source: Source, modality: str) -> StoreRules:
    """How a source's stores are to be read.

    Raises:
        MdicoError: neither the catalog file nor the recipe says it.
    """
    if source.zarr is None:
        raise MdicoError(
            f"{modality}: nobody says how the Zarr stores of {source.collection} are to be read. "
            f"Set modalities.{modality}.source.zarr as catalogs/earthdatahub.yml does."
        )
    return source.zarr


def _makings(sensor: Weather, modality: Modality, source: Source) -> tuple[Making, ...]:
    rules = rules_of(source, modality.name)
    return tuple(band_recipe(sensor, band, rules, source.collection) for band in modality.band_names)


def plan_weather(
    recipe: Recipe,
    catalog: CatalogFile,
    href: str | None,
    sensor: Weather,
    modality: Modality,
    geobox: GeoBox,
    saved: Answer | None = None,
    reuse: bool = False,
) -> tuple[WeatherPlan, Answer]:
    """Find the stores of a coarse modality and look at their axes; no value is read.

    Where the catalog or its stores cannot be reached, the first of the recipe's `fallback` catalogs that has the
    modality and can be reached is taken instead, under its own rules, and that is said.

    Args:
        recipe: what to build.
        catalog: where the modality is found.
        href: the catalog's address, where its file does not say.
        sensor: what the modality is.
        modality: with the recipe's bands.
        geobox: the cube's grid.
        saved: items found before: they are taken, or, with `reuse`, taken where the search is still the same.
        reuse: see there.

    Raises:
        MdicoError: a band that the source does not tell, no item, or a store that cannot be opened or used.
    """
    if saved is not None and not reuse:
        return _plan_from(recipe, catalog, href, sensor, modality, geobox, saved, reuse)
    try:
        return _plan_from(recipe, catalog, href, sensor, modality, geobox, saved, reuse)
    except UnreachableError as error:
        for section in recipe.fallback:
            other = load_catalog(section.catalog)
            if modality.name not in other.modalities:
                continue
            try:
                found = _plan_from(recipe, other, section.href, sensor, modality, geobox, saved, reuse, own=False)
            except UnreachableError:
                continue
            say(f"{error} {modality.name} is taken from {other.name} instead.")
            return found
        raise


def _plan_from(
    recipe: Recipe,
    catalog: CatalogFile,
    href: str | None,
    sensor: Weather,
    modality: Modality,
    geobox: GeoBox,
    saved: Answer | None,
    reuse: bool,
    own: bool = True,
) -> tuple[WeatherPlan, Answer]:
    """The plan from one catalog; the recipe's changes to the source hold in its `own` only.

    Raises:
        UnreachableError: the catalog or its stores cannot be read.
        MdicoError: see `plan_weather`.
    """
    name = modality.name
    source = source_for(catalog, recipe, name, sensor) if own else catalog.modalities[name]
    rules, makings = rules_of(source, name), _makings(sensor, modality, source)
    period = recipe.period.period
    windows = solar_windows(period.intervals(), longitude(geobox), rules.every)
    span = (windows[0][0].to_pydatetime(), windows[-1][1].to_pydatetime())
    if saved is not None and not reuse:
        answer = recall_stores(saved)
    else:
        answer = store_items(catalog, catalog_href(catalog, href), source, rules.items, span, saved, recipe.read)
    items = answer.items
    first = makings[0].variables[0].asset or rules.asset
    stores = [
        CoarseStore(item, first, rules, catalog.access, recipe.read)
        for item in [item for item in items if first in item.assets] or items[:1]
    ]
    for making in makings:
        for band, variable in zip(making.names, making.variables, strict=True):
            if (variable.asset or rules.asset) == first:
                stores[0].check(variable, sensor.unit(band))
    rows, columns = stores[0].around(geobox)
    names = {variable.name for making in makings for variable in making.variables}
    load = [_load(store, makings[0], windows, rules, (rows, columns)) for store in stores]
    plan = WeatherPlan(
        sensor=sensor,
        modality=modality,
        steps=period.steps(),
        stops=period.stops(),
        edges=tuple((start.to_pydatetime(), end.to_pydatetime()) for start, end in windows),
        source=source,
        access=catalog.access,
        reading=recipe.read,
        items=items,
        latitudes=rows.ticks,
        longitudes=columns.ticks,
        lapse_rate=_lapse_rate(recipe, modality, rules),
        per_step=_there(stores, makings[0], windows, rules),
        requests=sum(count for count, _ in load) * len(names),
        memory=max(max(size for _, size in load) * len(names), min(BATCH, sum(count * size for count, size in load))),
    )
    return plan, answer


def _there(
    stores: Sequence[CoarseStore], making: Making, windows: Sequence[Window], rules: StoreRules
) -> tuple[int, ...]:
    """Values that the stores have for each step."""
    samples = samples_of(making.kind, making.operator, windows, rules.every)
    there = np.zeros(len(samples.stamps), np.int64)
    for store in stores:
        found = store.places(samples, making.kind)
        there[found[found >= 0]] = 1
    return tuple(int(count) for count in (samples.weights != 0).astype(np.int64) @ there)


def _load(
    store: CoarseStore, making: Making, windows: Sequence[Window], rules: StoreRules, cells: tuple[Cells, Cells]
) -> tuple[int, int]:
    """Chunks of one variable that a store is asked for, and bytes of one."""
    samples = samples_of(making.kind, making.operator, windows, rules.every)
    return store.load(making.variables[0].name, np.flatnonzero(store.places(samples, making.kind) >= 0), cells)


def _lapse_rate(recipe: Recipe, modality: Modality, rules: StoreRules) -> float:
    """The recipe's rate where the cells' heights are known; where they are not, the reason is said."""
    rate = recipe.modalities[modality.name].lapse_rate
    if not rate or not any(band.lapses for band in modality.bands):
        return 0.0
    if rules.orography is None:
        say(f"{modality.name}: the source does not tell how high its cells lie, so temperatures stay as they are there")
        return 0.0
    terrain = recipe.modalities.get("dem")
    if terrain is None or (terrain.bands is not None and "elevation" not in terrain.bands):
        say(f"{modality.name}: the recipe has no dem with elevation, so temperatures stay at the height of their cells")
    return rate
