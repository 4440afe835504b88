"""Everything a build will do, before any pixel is read: grid, scenes per time step, shards, bytes, digests."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely import STRtree

from mdico_cube.cube.access import Access
from mdico_cube.cube.address import placed
from mdico_cube.cube.catalog import Fallback
from mdico_cube.cube.grid import Shard, shards
from mdico_cube.cube.items import Answer, pack_items
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import Origin
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.recipe import ReadSection, Reducer, Source
from mdico_cube.sensors.quality import hidden_by
from mdico_cube.sensors.sensor import Radiometry, Sensor
from mdico_cube.spec import Modality, Resampling

RULES = 4
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
    catalog: str = ""
    """Address of the catalog that the scenes were found in."""

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
            hrefs = [placed(scene.item.assets[key].href.split("?")[0], self.catalog) for key in assets]
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
