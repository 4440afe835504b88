"""A recipe's weather in, its plan out: stores found, their axes looked at, fallbacks kept; no value is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from odc.geo.geobox import GeoBox

from mdico_cube.cube.catalog import CatalogFile, Fallback, load_catalog, source_for
from mdico_cube.cube.cells import BATCH, Cells, CoarseStore
from mdico_cube.cube.items import Answer
from mdico_cube.cube.pages import UnreachableError, catalog_href
from mdico_cube.cube.search import catalog_of, longitude
from mdico_cube.cube.store_search import recall_stores, store_items
from mdico_cube.cube.weather import WeatherPlan, band_makings, rules_of
from mdico_cube.period import Period
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection, Recipe, Source, StoreRules, WeatherKind
from mdico_cube.sensors.samples import Samples, Window, samples_of, solar_windows
from mdico_cube.sensors.weather import Making, Weather
from mdico_cube.spec import Modality


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
    modality and can be reached is taken instead, under its own rules, and that is said. Those after it are kept for
    stores that fail during the build.

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
    name = modality.name
    period, fallbacks = recipe.period.period, _fallbacks(recipe, name)

    def rate(rules: StoreRules) -> float:
        return _lapse_rate(recipe, modality, rules)

    facts = (sensor, modality, period, geobox, recipe.read, rate, saved, reuse)
    try:
        source = source_for(catalog, recipe, name, sensor)
        if saved is not None and not reuse:
            own = Fallback(catalog, href or catalog.href or "", source)
            found = catalog_of(saved, name, (own, *fallbacks))
            catalog, href, source = found.catalog, found.href or None, found.source
        plan, answer = weather_from(catalog, href, source, *facts)
    except UnreachableError as error:
        if saved is not None and not reuse:
            raise
        for i, other in enumerate(fallbacks):
            try:
                plan, answer = weather_from(other.catalog, other.href, other.source, *facts)
            except UnreachableError:
                continue
            say(f"{error} {name} is taken from {other.catalog.name} instead.")
            return replace(plan, fallbacks=fallbacks[i + 1 :]), answer
        raise
    return replace(plan, fallbacks=fallbacks), answer


def _fallbacks(recipe: Recipe, modality: str) -> tuple[Fallback, ...]:
    """The recipe's other catalogs that have the modality, under their own rules."""
    catalogs = [(load_catalog(section.catalog), section.href) for section in recipe.fallback]
    return tuple(
        Fallback(catalog, catalog_href(catalog, href), catalog.modalities[modality])
        for catalog, href in catalogs
        if modality in catalog.modalities
    )


def weather_from(
    catalog: CatalogFile,
    href: str | None,
    source: Source,
    sensor: Weather,
    modality: Modality,
    period: Period,
    geobox: GeoBox,
    reading: ReadSection,
    rate: Callable[[StoreRules], float],
    saved: Answer | None = None,
    reuse: bool = False,
) -> tuple[WeatherPlan, Answer]:
    """The plan of a coarse modality from one catalog; see `plan_weather`.

    Args:
        catalog: where it is found.
        href: the catalog's address, where its file does not say.
        source: where the modality stands in it.
        sensor: what the modality is.
        modality: with the recipe's bands.
        period: the time steps.
        geobox: the cube's grid.
        reading: how long to go on after faults.
        rate: kelvin per kilometre that temperatures fall, by the rules of the stores.
        saved: items found before.
        reuse: take them only where the search is still the same.

    Raises:
        UnreachableError: the catalog or its stores cannot be read.
        MdicoError: see `plan_weather`.
    """
    name = modality.name
    rules, makings = rules_of(source, name), band_makings(sensor, modality, source)
    windows = solar_windows(period.intervals(), longitude(geobox), rules.every)
    span = (windows[0][0].to_pydatetime(), windows[-1][1].to_pydatetime())
    if saved is not None and not reuse:
        answer = recall_stores(saved, href or catalog.href)
    else:
        answer = store_items(catalog, catalog_href(catalog, href), source, rules.items, span, saved, reading)
    items = answer.items
    first = makings[0].variables[0].asset or rules.asset
    stores = [
        CoarseStore(item, first, rules, catalog.access, reading)
        for item in [item for item in items if first in item.assets] or items[:1]
    ]
    for making in makings:
        for band, variable in zip(making.names, making.variables, strict=True):
            if (variable.asset or rules.asset) == first:
                stores[0].check(variable, sensor.unit(band))
    rows, columns = stores[0].around(geobox)
    names = {variable.name for making in makings for variable in making.variables}
    load = [_load(store, makings[0], windows, rules, (rows, columns)) for store in stores]
    samples = samples_of(makings[0].kind, makings[0].operator, windows, rules.every)
    per_step = _there(stores, makings[0].kind, samples)
    _tell_short(name, period.steps(), per_step, samples, rules)
    plan = WeatherPlan(
        sensor=sensor,
        modality=modality,
        steps=period.steps(),
        stops=period.stops(),
        edges=tuple((start.to_pydatetime(), end.to_pydatetime()) for start, end in windows),
        source=source,
        access=catalog.access,
        reading=reading,
        items=items,
        latitudes=rows.ticks,
        longitudes=columns.ticks,
        lapse_rate=rate(rules),
        per_step=per_step,
        requests=sum(count for count, _ in load) * len(names),
        catalog=answer.catalog,
        memory=max(max(size for _, size in load) * len(names), min(BATCH, sum(count * size for count, size in load))),
    )
    return plan, answer


def _there(stores: Sequence[CoarseStore], kind: WeatherKind, samples: Samples) -> tuple[int, ...]:
    """Values that the stores have for each step."""
    there = np.zeros(len(samples.stamps), np.int64)
    for store in stores:
        found = store.places(samples, kind)
        there[found[found >= 0]] = 1
    return tuple(int(count) for count in (samples.weights != 0).astype(np.int64) @ there)


def _tell_short(name: str, steps: Sequence[str], there: Sequence[int], samples: Samples, rules: StoreRules) -> None:
    """Say how many steps have some values and yet too few, and so will be missing."""
    share = 1.0 if samples.operator == "sum" else rules.coverage
    short = [
        (step, have, need)
        for step, have, need in zip(steps, there, samples.needed.tolist(), strict=True)
        if 0 < have < share * need
    ]
    if short:
        step, have, need = short[0]
        say(
            f"{name}: {len(short)} of {len(steps)} steps have too few values and stay missing: {step} has {have} of "
            f"{need}, one every {rules.every} (source.zarr.every)"
        )


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
