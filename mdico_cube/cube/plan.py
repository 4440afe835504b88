"""A recipe in, everything a build will do out, before any pixel is read: grid, items per step, shards, bytes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pystac
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely import STRtree

from mdico_cube.cube.access import Access
from mdico_cube.cube.catalog import CatalogFile, Fallback, load_catalog, source_for
from mdico_cube.cube.duplicates import item_time, newest
from mdico_cube.cube.globe import cut, unwrapped
from mdico_cube.cube.grid import Shard, grid_for, shards
from mdico_cube.cube.items import Answer, pack_items
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import Origin
from mdico_cube.cube.place import item_crs, settle_crs
from mdico_cube.cube.read import check_assets
from mdico_cube.cube.search import UnreachableError, adopt_keys, catalog_href, longitude, recall, search_items
from mdico_cube.cube.weather import WeatherPlan, plan_weather
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection, Recipe, Reducer, Source
from mdico_cube.sensors.quality import hidden_by
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.sensors.sensor import Radiometry, Sensor, counted
from mdico_cube.sensors.weather import Weather
from mdico_cube.spec import Modality, Period, Resampling

RULES = 3
"""Raised whenever the same items and options would give other pixels; it makes older shards stale."""


@dataclass(frozen=True)
class Scene:
    """One item that a build reads."""

    item: pystac.Item
    step: int
    """Time step it belongs to, by local solar time; 0 without time."""
    overpass: tuple[Any, ...]
    """Scenes of one solar day and orbit direction count as one observation."""
    footprint: Geometry
    """In the cube's CRS."""


@dataclass(frozen=True)
class LayerPlan:
    """One modality of the cube to build."""

    sensor: Sensor
    modality: Modality
    """What is stored: the recipe's bands, or the number of observations."""
    bands: tuple[str, ...]
    """Bands that are read."""
    steps: tuple[str, ...]
    """ISO date of each step's first day; one empty string without time."""
    stops: tuple[str, ...]
    """ISO date of the day after each step's last; nothing without time."""
    source: Source
    access: Access
    """How the catalog's files are reached."""
    reading: ReadSection
    """How long to go on after faults."""
    reducer: Reducer
    scenes: tuple[Scene, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Id of an item that was found and is not read -> why."""
    fallbacks: tuple[Fallback, ...] = ()
    """Where a scene that cannot be read is looked for, in this order."""
    resampling: Resampling | None = None
    """What the recipe asks for; None takes each band's own."""

    @property
    def layer(self) -> Layer:
        """What the store needs."""
        return Layer(self.modality, self.steps, stops=self.stops)

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys of the bands that are read."""
        return tuple(self.source.keys(band)[0] for band in self.bands)

    @property
    def quality_assets(self) -> tuple[str, ...]:
        """Asset key of the quality layer, or nothing where there is none."""
        return self.source.quality_keys[:1] if self.sensor.quality else ()

    @property
    def hides(self) -> tuple[int, ...]:
        """Classes or bits of the quality layer that hide the ground."""
        return hidden_by(self.modality.name, self.sensor.quality, self.source)

    @property
    def per_step(self) -> tuple[int, ...]:
        """Scenes in each step."""
        count = Counter(scene.step for scene in self.scenes)
        return tuple(count[step] for step in range(len(self.steps)))

    def scenes_of(self, geobox: GeoBox) -> tuple[Scene, ...]:
        """Scenes whose footprint touches a block."""
        return tuple(self.scenes[i] for i in self._touching(geobox))

    def _touching(self, geobox: GeoBox) -> list[int]:
        return sorted(int(i) for i in self._tree.query(geobox.extent.geom, predicate="intersects"))

    @cached_property
    def _tree(self) -> STRtree:
        return STRtree([scene.footprint.geom for scene in self.scenes])

    def radiometry(self, scene: Scene) -> Radiometry:
        """How one scene's counts become physical values.

        Raises:
            MdicoError: the item does not carry what the source's offset policy needs.
        """
        fields = scene.item.assets[self.assets[0]].extra_fields
        return self.sensor.radiometry(scene.item.id, scene.item.properties, fields, self.source)

    def without(self, kept: Sequence[int]) -> LayerPlan:
        """The same with no scene in some time steps, so that they are not read."""
        return replace(self, scenes=tuple(s for s in self.scenes if s.step not in kept)) if kept else self

    def check(self) -> None:
        """Raise MdicoError where an item does not carry what its calibration needs: before anything is read."""
        _ = self._scene_digests

    def origin(self, geobox: GeoBox) -> Origin:
        """Everything that decides the pixels of a block, in parts that can be compared one by one."""
        grid = [str(geobox.crs), list(geobox.affine)[:6], list(geobox.shape)]
        groups: dict[int, list[str]] = {}
        for i in self._touching(geobox):
            groups.setdefault(self.scenes[i].step, []).append(self._scene_digests[i])
        steps = {name: _sha(groups.get(step, []))[:16] for step, name in enumerate(self.steps)}
        return Origin(self._settings, _sha(grid)[:16], steps)

    @property
    def offsets(self) -> dict[str, int]:
        """Offset and why -> scenes it is applied to."""
        return dict(Counter(str(self.radiometry(scene)) for scene in self.scenes).most_common())

    @property
    def identity(self) -> str:
        """SHA-256 of what decides the whole modality."""
        return _sha([self.modality.name, self._settings, self.steps, self._scene_digests])

    def digest(self, geobox: GeoBox) -> str:
        """SHA-256 of everything that decides the pixels of a block."""
        return self.origin(geobox).digest

    @cached_property
    def _settings(self) -> dict[str, str]:
        """What decides pixels beside grid and items: name -> value as JSON."""
        facts = {
            "rules": RULES,
            "bands": self.bands,
            "storage": repr(self.modality.storage),
            "reducer": self.reducer,
            "resampling": self.resampling,
            "engine": self.reading.engine,
            "hides": self.hides,
            **{f"source.{key}": value for key, value in self.source.model_dump().items()},
        }
        return {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}

    @cached_property
    def _scene_digests(self) -> tuple[str, ...]:
        """One digest per scene: which item, how it is calibrated, where its files are."""
        assets = (*self.assets, *self.quality_assets)
        found = []
        for scene in self.scenes:
            rule = self.radiometry(scene)
            hrefs = [scene.item.assets[key].href.split("?")[0] for key in assets]
            found.append(_sha([scene.item.id, str(scene.overpass), rule.scale, rule.offset, *hrefs]))
        return tuple(found)


@dataclass(frozen=True)
class BuildPlan:
    """Everything a build will do."""

    geobox: GeoBox
    shard: int
    layers: tuple[LayerPlan, ...]
    """Modalities on the grid: a job for each shard."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """Modality -> everything that was found, as the catalog gave it."""
    weather: tuple[WeatherPlan, ...] = ()
    """Coarse modalities: one job each."""

    @property
    def every(self) -> tuple[LayerPlan | WeatherPlan, ...]:
        """All modalities."""
        return (*self.layers, *self.weather)

    def shards(self) -> Iterator[Shard]:
        """Shards of the grid in row order."""
        yield from shards((self.geobox.shape.y, self.geobox.shape.x), self.shard)

    @property
    def identity(self) -> str:
        """SHA-256 of everything that decides the cube: two builders with the same one may share the work."""
        grid = [str(self.geobox.crs), list(self.geobox.affine)[:6], list(self.geobox.shape), self.shard]
        coarse = [[weather.modality.name, weather.origin.digest] for weather in self.weather]
        return _sha([grid, [layer.identity for layer in self.layers], coarse])

    def shard_at(self, row: int, column: int) -> Shard:
        """One shard by its place."""
        (height, width), side = self.geobox.shape, self.shard
        y, x = row * side, column * side
        return Shard(row, column, slice(y, min(y + side, height)), slice(x, min(x + side, width)))

    def layer(self, modality: str) -> LayerPlan | WeatherPlan:
        """One modality's plan."""
        (found,) = [layer for layer in self.every if layer.modality.name == modality]
        return found

    def block(self, shard: Shard) -> GeoBox:
        """The grid of one shard."""
        return self.geobox[shard.y, shard.x]

    def items_file(self) -> bytes:
        """Everything that was found as stac-geoparquet: a build from it is this build again."""
        return pack_items(self.answers, {layer.modality.name: layer.left_out for layer in self.layers})

    def gaps(self) -> dict[str, tuple[str, ...]]:
        """Modality -> steps for which the catalog has no scene at all."""
        found = {
            layer.modality.name: tuple(step for step, n in zip(layer.steps, layer.per_step, strict=True) if n == 0)
            for layer in self.every
        }
        return {name: steps for name, steps in found.items() if steps}

    def bytes_stored(self, layer: LayerPlan | WeatherPlan) -> int:
        """Bytes of one modality in the cube before compression."""
        if isinstance(layer, WeatherPlan):
            return layer.bytes_stored
        pixels = self.geobox.shape.y * self.geobox.shape.x
        size = np.dtype(layer.modality.storage.dtype).itemsize
        return pixels * len(layer.steps) * len(layer.modality.bands) * size

    def bytes_read(self, layer: LayerPlan | WeatherPlan) -> int:
        """Bytes to read on the cube's grid before compression: scenes x assets x the part of the area they cover."""
        if isinstance(layer, WeatherPlan):
            return layer.bytes_read
        pixels = self.geobox.shape.y * self.geobox.shape.x
        extent = self.geobox.extent
        share = sum(float(scene.footprint.intersection(extent).area / extent.area) for scene in layer.scenes)
        size = len(layer.assets) * np.dtype(layer.sensor.raw_dtype).itemsize
        if layer.sensor.quality is not None and layer.quality_assets:
            size += np.dtype(layer.sensor.quality.dtype).itemsize
        return round(pixels * share * size)

    def summary(self) -> dict[str, Any]:
        """The plan as plain data, for JSON and for tables."""
        return {
            "crs": str(self.geobox.crs),
            "shape": list(self.geobox.shape),
            "resolution": self.geobox.resolution.x,
            "shards": len(list(self.shards())),
            "jobs": len(list(self.shards())) * len(self.layers) + len(self.weather),
            "modalities": {
                layer.modality.name: {
                    "bands": list(layer.modality.band_names),
                    "steps": list(layer.steps),
                    "scenes_per_step": list(layer.per_step),
                    "scenes": len(layer.items if isinstance(layer, WeatherPlan) else layer.scenes),
                    "left_out": {} if isinstance(layer, WeatherPlan) else dict(layer.left_out),
                    "offsets": {} if isinstance(layer, WeatherPlan) else layer.offsets,
                    "bytes_read": self.bytes_read(layer),
                    "bytes_stored": self.bytes_stored(layer),
                }
                for layer in self.every
            },
            "gaps": {name: list(steps) for name, steps in self.gaps().items()},
        }


def _sha(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
        answer, strange = recall(saved, href or catalog.href, source, geobox, period)
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
