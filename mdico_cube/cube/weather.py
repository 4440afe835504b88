"""Everything a build will read of a coarse modality: stores, cells around the area, values per step, digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pandas as pd
import pystac

from mdico_cube.cube.access import Access
from mdico_cube.cube.address import placed, shown
from mdico_cube.cube.catalog import Fallback
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import Origin
from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.recipe import ReadSection, Source, StoreRules
from mdico_cube.sensors.samples import Window
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
    fallbacks: tuple[Fallback, ...] = ()
    """Where the modality is looked for when its stores cannot be read after all, in this order."""
    catalog: str = ""
    """Address of the catalog that the stores were found in."""

    @property
    def period(self) -> Period:
        """The steps as a period with explicit windows."""
        lasts = [str((pd.Timestamp(stop) - pd.Timedelta(days=1)).date()) for stop in self.stops]
        return Period(self.steps[0], lasts[-1], windows=tuple(zip(self.steps, lasts, strict=True)))

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
        return band_makings(self.sensor, self.modality, self.source)

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

    def _placed(self, item: pystac.Item) -> list[str]:
        return [placed(shown(asset.href), self.catalog) for asset in item.assets.values()]

    @property
    def origin(self) -> Origin:
        """Everything that decides the layer, in parts that can be compared one by one."""
        settings = {
            "rules": RULES,
            "bands": self.modality.band_names,
            "lapse_rate": self.lapse_rate,
            "items": [[item.id, *sorted(self._placed(item))] for item in self.items],
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


def band_makings(sensor: Weather, modality: Modality, source: Source) -> tuple[Making, ...]:
    """How each band of a modality is made of a source."""
    rules = rules_of(source, modality.name)
    return tuple(band_recipe(sensor, band, rules, source.collection) for band in modality.band_names)
