"""A recipe in, the plan of its build out: searched, assigned to time steps, laid out; no pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pandas as pd
import pystac
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from mdico_cube.cube.catalog import CatalogFile, Fallback, load_catalog, source_for
from mdico_cube.cube.duplicates import item_time, newest
from mdico_cube.cube.globe import cut, unwrapped
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.items import Answer
from mdico_cube.cube.pages import UnreachableError, catalog_href
from mdico_cube.cube.place import item_crs, settle_crs
from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene
from mdico_cube.cube.read import check_assets
from mdico_cube.cube.search import adopt_keys, catalog_of, longitude, recall, search_items
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_planning import plan_weather
from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection, Recipe, Source
from mdico_cube.sensors.options import check_options
from mdico_cube.sensors.quality import hidden_by
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.sensors.sensor import Sensor, counted
from mdico_cube.sensors.weather import Weather
from mdico_cube.spec import Modality


def plan_build(
    recipe: Recipe, items: Mapping[str, Answer] | None = None, reuse: bool = False, geobox: GeoBox | None = None
) -> BuildPlan:
    """Search the catalog and lay out the build.

    Args:
        recipe: what to build.
        items: saved items: the catalog is not asked, exactly these are taken.
        reuse: take the saved items only of modalities whose search is still the same; search for the others.
        geobox: the grid, if not exactly the recipe's area: that of a cube which stands and has grown.

    Raises:
        MdicoError: unknown modality or band, nothing found, a missing asset, or a product a sensor cannot use.
    """
    sensors = {name: get_sensor(name) for name in recipe.modalities}
    for name, sensor in sensors.items():
        check_options(name, recipe.modalities[name], sensor)
    modalities = {
        name: sensor.modality.select(recipe.modalities[name].bands or sensor.defaults)
        for name, sensor in sensors.items()
    }
    geobox = geobox or grid_for(recipe.area)
    recipe.period.period.steps()
    lacking = [name for name in recipe.modalities if name not in items] if items is not None and not reuse else []
    if lacking:
        raise MdicoError(
            f"the saved items have none of {', '.join(lacking)}: they are of {', '.join(items or {})}. Take the "
            "modality out of the recipe, or build without --items to search for it."
        )
    layers: list[LayerPlan] = []
    weather: list[WeatherPlan] = []
    answers: dict[str, Answer] = {}
    for name, sensor in sensors.items():
        catalog, href = _catalog_of(recipe, name)
        saved = (items or {}).get(name)
        if isinstance(sensor, Weather):
            coarse, answers[name] = plan_weather(recipe, catalog, href, sensor, modalities[name], geobox, saved, reuse)
            weather.append(coarse)
        else:
            layer, answers[name] = _plan_layer(recipe, catalog, href, sensor, modalities[name], geobox, saved, reuse)
            layers.append(layer)
    return BuildPlan(geobox, recipe.store.shard, tuple(layers), answers, tuple(weather))


def _catalog_of(recipe: Recipe, modality: str) -> tuple[CatalogFile, str | None]:
    """The catalog a modality is found in, and where the recipe says that it is: its own, else the recipe's."""
    section = recipe.modalities[modality]
    if section.catalog is None:
        return load_catalog(recipe.catalog), section.href or recipe.href
    return load_catalog(section.catalog), section.href


def _plan_layer(
    recipe: Recipe,
    catalog: CatalogFile,
    href: str | None,
    sensor: Sensor,
    modality: Modality,
    geobox: GeoBox,
    saved: Answer | None,
    reuse: bool,
) -> tuple[LayerPlan, Answer]:
    source = source_for(catalog, recipe, modality.name, sensor)
    hidden_by(modality.name, sensor.quality, source)
    period = recipe.period.period if modality.temporal else None
    if sensor.refuse is not None:
        sensor.refuse(source.collection, {})
    strange: dict[str, str] = {}
    fallbacks = _fallbacks(recipe, modality.name, sensor, source)
    if saved is not None and not reuse:
        own = Fallback(catalog, href or catalog.href or "", source)
        found = catalog_of(saved, modality.name, (own, *fallbacks))
        catalog, source = found.catalog, found.source
        answer, strange = recall(saved, found.href or None, source, geobox, period)
    else:
        try:
            answer = search_items(catalog, catalog_href(catalog, href), source, geobox, period, saved, recipe.read)
        except UnreachableError as error:
            catalog, source, answer = _elsewhere(error, fallbacks, geobox, period, saved, recipe.read)
    if len(strange) == len(answer.items):
        raise MdicoError(
            f"{modality.name}: none of the saved items is of the area and the query. Search again without --items."
        )
    bands = sensor.reads or modality.band_names
    items, left_out = usable([i for i in answer.items if i.id not in strange], source, sensor, bands)
    left_out |= strange
    scenes = _assign(items, geobox, None if period is None else period.intervals())
    if not scenes:
        raise MdicoError(
            f"{source.collection}: the items found lie outside the period {recipe.period.start} to "
            f"{recipe.period.end} in local solar time. Widen the period."
        )
    inside = {scene.item.id for scene in scenes}
    left_out |= {item.id: "outside the period in local solar time" for item in items if item.id not in inside}
    steps, stops = (("",), ()) if period is None else (period.steps(), period.stops())
    options = recipe.modalities[modality.name]
    reducer = options.reducer or sensor.reducer
    if reducer == "count":
        modality = counted(modality)
    layer = LayerPlan(
        *(sensor, modality, bands, steps, stops, source, catalog.access, recipe.read, reducer, scenes, left_out),
        fallbacks=fallbacks,
        resampling=options.resampling,
        catalog=answer.catalog,
    )
    check_assets([scene.item for scene in scenes], (*layer.assets, *layer.quality_assets))
    return layer, answer


def _elsewhere(
    error: UnreachableError,
    fallbacks: Sequence[Fallback],
    geobox: GeoBox,
    period: Period | None,
    saved: Answer | None,
    reading: ReadSection,
) -> tuple[CatalogFile, Source, Answer]:
    """The search's answer from the first other catalog that can be reached; raises what came where none can."""
    for other in fallbacks:
        try:
            answer = search_items(other.catalog, other.href, other.source, geobox, period, saved, reading)
        except UnreachableError:
            continue
        say(f"{error} Its scenes are taken from {other.catalog.name} instead.")
        return other.catalog, other.source, answer
    raise error


def _fallbacks(recipe: Recipe, modality: str, sensor: Sensor, source: Source) -> tuple[Fallback, ...]:
    """The recipe's other catalogs, as far as they have the modality; what hides the ground stays as it is."""
    found = []
    for section in recipe.fallback:
        catalog = load_catalog(section.catalog)
        entry = catalog.modalities.get(sensor.entry or modality)
        if entry is not None:
            changes = {"hide": source.hide, "dilate": source.dilate, "query": {**entry.query, **sensor.query}}
            href = catalog_href(catalog, section.href)
            found.append(Fallback(catalog, href, entry.model_copy(update=changes)))
    return tuple(found)


def usable(
    found: Sequence[pystac.Item], source: Source, sensor: Sensor, bands: Sequence[str]
) -> tuple[list[pystac.Item], dict[str, str]]:
    """Items to read, mended copies of those found, and item id -> why it is left out, for the others.

    Raises:
        MdicoError: a product the sensor cannot use, a wrong CRS, or no item with the assets.
    """
    if sensor.refuse is not None:
        for item in found:
            sensor.refuse(source.collection, item.properties)
    kept, left_out = newest(found)
    items = [adopt_keys(item, source, bands) for item in kept]
    if sensor.scarce:
        first = source.keys(bands[0])
        lacking = [item for item in items if first[0] not in item.assets]
        if len(lacking) < len(items):
            left_out |= {item.id: f"has no asset {' or '.join(first)}" for item in lacking}
            items = [item for item in items if item.id not in left_out]
    mended = {item.id for item in items if _settle(item, source.keys(bands[0])[0])}
    if mended:
        say(f"{source.collection}: {len(mended)} items with a CRS that lost its zone's zero, mended: {min(mended)} ...")
    return items, left_out


def _settle(item: pystac.Item, asset: str) -> bool:
    """Mend the item's CRS where it needs it; True where it did."""
    return item_crs(item, asset) != settle_crs(item, asset)


def _assign(
    items: list[pystac.Item], geobox: GeoBox, intervals: pd.IntervalIndex[pd.Interval[pd.Timestamp]] | None
) -> tuple[Scene, ...]:
    """Each item to its step by local solar time; items outside every step are left out."""
    shift = timedelta(hours=longitude(geobox) / 15)
    scenes = []
    for item in items:
        moment = pd.Timestamp(item_time(item) + shift)
        step = 0 if intervals is None else int(intervals.get_indexer(pd.DatetimeIndex([moment]))[0])
        if step < 0:
            continue
        overpass = () if intervals is None else (moment.date(), item.properties.get("sat:orbit_state"))
        scenes.append(Scene(item, step, overpass, _footprint(item, geobox)))
    return tuple(scenes)


def _footprint(item: pystac.Item, geobox: GeoBox) -> Geometry:
    assert item.geometry is not None
    assert geobox.crs is not None
    whole = unwrapped(item.geometry, longitude(geobox))
    if whole.boundingbox.left < -180 or whole.boundingbox.right > 180:
        item.geometry = cut(whole).json  # so that whoever reads the item finds it on both sides
    return whole.to_crs(geobox.crs, resolution=0.02).buffer(2 * abs(geobox.resolution.x))
