"""A sensor of a cube in, its tiles, legends and values out: pixels from the cube, weather from between its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mdico_cube.cube.coarse import interpolate, pixel_degrees
from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.looks import Limits, Look, channels, hexes, limits, looks, paint, parse_look, ramp, shown
from mdico_cube.explorer.overview import Far
from mdico_cube.explorer.pyramid import BUDGET, Kept, Place, Raster, cut, levels, window
from mdico_cube.maps.images import Image
from mdico_cube.spec import Array, Floats, Modality

_SAMPLES = 25
"""About how many chunks are looked at to find what is dark and what is bright."""
_LATTICE = 64
"""Weather is looked at in so many places a side to find its range."""


@dataclass
class SensorLayer:
    """One sensor of the cube."""

    reader: CubeReader
    key: str
    kept: Kept = field(repr=False)
    far: Far | None = field(default=None, repr=False)
    """Overviews, where they can be kept."""
    _limits: dict[tuple[str, int], Limits] = field(default_factory=dict, repr=False)

    @property
    def modality(self) -> Modality:
        """Bands and units."""
        return self.reader.modalities[self.key]

    def facts(self) -> dict[str, Any]:
        """Name, steps with their ends, pictures, bands."""
        return {
            "key": self.key,
            "kind": "sensor",
            "title": self.modality.title or self.key,
            "coarse": self.modality.coarse,
            "steps": [day for day in self.reader.steps(self.key) if day],
            "stops": list(self.reader.stops(self.key)),
            "looks": [{"key": look.key, "title": title} for look, title in looks(self.modality)],
            "bands": [{"name": band.name, "title": band.title, "unit": band.unit} for band in self.modality.bands],
        }

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """One time step of the sensor.

        Raises:
            MdicoError: no such picture or step.
        """
        chosen = self._look(look)
        self.check_step(step)
        values = self.values(place, chosen, step)
        if values is None:
            return None
        metres = abs(float(self.reader.geobox.resolution.x)) * 2 ** -min(place[0], 0)
        table = ramp(chosen, self._units[chosen.bands[0]])
        return paint(chosen, channels(chosen, values), self.limits(look, step), metres, table)

    def values(self, place: Place, look: Look, step: int) -> Floats | None:
        """Physical values (b, h, w) of a tile, NaN = not observed; None outside the raster."""
        names = [self.modality.band_names.index(band) for band in look.bands]
        if self.far is not None and (found := self.far.tile(place, step)) is not None:
            return self._physical(found[names])
        raster = Raster(self.reader.shape, self.reader.chunk, lambda y, x: self._stored(look, y, x))
        budget = BUDGET if self.far is None else self.far.budget(place)
        stored = self.kept.get((self.key, look.bands, place), lambda: cut(raster, *place, budget))
        return None if stored is None else self._physical(stored[step])

    def limits(self, look: str, step: int = 0) -> Limits:
        """What is dark and what is bright in a picture, the same for every tile and step; found once."""
        if (look, 0) not in self._limits:
            chosen, sample = self._look(look), []
            for y, x in self._windows():
                found = channels(chosen, self._physical(self._stored(chosen, y, x)))  # (T, c, h, w)
                sample.append(np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])[::7])
            self._limits[look, 0] = limits(chosen, np.concatenate(sample))
        return self._limits[look, 0]

    def _windows(self) -> Iterator[tuple[slice, slice]]:
        """A few chunks, spread over the shards that were built; over all where none was."""
        states = Ledger(self.reader.path, self.key).states()
        built = np.argwhere(np.isin(states, STANDS))
        shards = built if len(built) else np.argwhere(np.ones(states.shape, bool))
        some = shards[np.unique(np.linspace(0, len(shards) - 1, _SAMPLES).astype(int))]
        across = math.ceil(math.sqrt(_SAMPLES / len(some)))  # chunks per side of a shard
        side, (height, width) = self.reader.chunk, self.reader.shape
        offsets = np.linspace(0, self.reader.shard, across, endpoint=False).astype(int) // side * side
        for row, column in some * self.reader.shard:
            for top, left in itertools.product(row + np.unique(offsets), column + np.unique(offsets)):
                if top < height and left < width:
                    yield slice(int(top), min(int(top) + side, height)), slice(int(left), min(int(left) + side, width))

    def legend(self, look: str, step: int = 0) -> dict[str, Any]:
        """What the colours of a picture mean, in units for people."""
        chosen = self._look(look)
        unit, added = ("", 0.0) if chosen.kind == "difference" else shown(self._units[chosen.bands[0]])
        found = [[low + added, high + added] for low, high in self.limits(look, step)]
        names = (*chosen.bands, "-".join(chosen.bands)) if chosen.kind == "radar" else chosen.bands
        table = ramp(chosen, self._units[chosen.bands[0]])
        return {"unit": unit, "bands": list(names), "limits": found, "ramp": hexes(table) if table else []}

    def stored(self, step: int, y: slice, x: slice) -> Array:
        """(C, h, w) of one step, as it stands in the cube.

        Raises:
            MdicoError: no such step.
        """
        self.check_step(step)
        return np.asarray(self.reader.stored(self.key, y, x)[step])

    def check_step(self, step: int) -> None:
        """Raise MdicoError for a step that there is not."""
        count = len(self.reader.steps(self.key))
        if not 0 <= step < count:
            raise MdicoError(f"{self.key}: has no step {step}, only 0 to {count - 1}.")

    @property
    def _units(self) -> dict[str, str]:
        return dict(zip(self.modality.band_names, self.modality.units, strict=True))

    def _look(self, text: str) -> Look:
        return parse_look(text, self.modality)

    def _stored(self, look: Look, y: slice, x: slice) -> Array:
        names = self.modality.band_names
        return self.reader.stored(self.key, y, x)[:, [names.index(band) for band in look.bands]]

    def _physical(self, stored: Array) -> Floats:
        """NaN = not observed."""
        values, seen = self.modality.storage.unpack(stored)
        return np.where(seen, values, np.float32(np.nan))


@dataclass
class WeatherLayer(SensorLayer):
    """A coarse sensor, drawn as every stage reads it: between the cells, temperatures at the height of the terrain."""

    terrain: SensorLayer | None = field(default=None, repr=False)
    """Where its temperatures take the height from."""

    def values(self, place: Place, look: Look, step: int) -> Floats | None:
        """(1, h, w) of a tile, NaN = nobody knows; None outside the raster."""
        y, x = window(place, self.reader.shape)
        if y.start == y.stop or x.start == x.stop:
            return None
        found = self.kept.get((self.key, look.bands, step, place), lambda: self._between(place, look, step))
        assert found is not None
        return found

    def limits(self, look: str, step: int = 0) -> Limits:
        """The range over all steps, or that of one step where the picture is of it alone; found once."""
        chosen = self._look(look)
        ranges = self._ranges(chosen.bands[0])
        some = ranges[[step]] if chosen.kind == "step" else ranges
        known = some[~np.isnan(some)]
        if not known.size:
            return ((0.0, 1.0),)
        low, high = known.min(), known.max()
        return ((float(low), float(high if high > low else low + 1)),)

    def stored(self, step: int, y: slice, x: slice) -> Array:
        """(C, h, w) of one step, interpolated.

        Raises:
            MdicoError: no such step.
        """
        self.check_step(step)
        layer = self.reader.coarse(self.key)
        elevation = None
        if len(self.reader.rests_on(self.key)) > 1:
            elevation = self.reader.stored("dem", y, x)[0, self.reader.modalities["dem"].band_names.index("elevation")]
        one = replace(layer, values=layer.values[[step]])
        return np.asarray(interpolate(one, *pixel_degrees(self.reader.geobox, y, x), elevation)[0])

    def _between(self, place: Place, look: Look, step: int) -> Floats:
        layer, band = self.reader.coarse(self.key), self.modality.band_names.index(look.bands[0])
        one = replace(layer, values=layer.values[[step], band : band + 1], lapses=(layer.lapses[band],))
        (longitude, latitude), ground = self._degrees(place), self._ground(place) if one.follows_ground else None
        return np.asarray(interpolate(one, longitude, latitude, ground)[0])

    def _degrees(self, place: Place) -> npt.NDArray[np.float64]:
        """Longitude and latitude (2, h, w) of a tile's pixels."""

        def found() -> Array:
            return np.stack(pixel_degrees(self.reader.geobox, *window(place, self.reader.shape)))

        return np.asarray(self.kept.get(("degrees", place), found))

    def _ground(self, place: Place) -> Floats | None:
        """(h, w) metres above the sea."""
        if self.terrain is None or "elevation" not in self.terrain.modality.band_names:
            return None
        found = self.terrain.values(place, Look("one", ("elevation",)), 0)
        return None if found is None else found[0]

    def _ranges(self, band: str) -> Floats:
        """(T, 2) lowest and highest value of every step, from places all over the cube."""
        if band not in self._known_ranges:
            self._known_ranges[band] = self._looked_at(band)
        return self._known_ranges[band]

    def _looked_at(self, band: str) -> Floats:
        place = (-levels(self.reader.shape), 0, 0)  # one tile holds everything
        layer, index = self.reader.coarse(self.key), self.modality.band_names.index(band)
        one = replace(layer, values=layer.values[:, index : index + 1], lapses=(layer.lapses[index],))
        longitude, latitude = self._degrees(place)
        some = tuple(slice(None, None, max(1, size // _LATTICE)) for size in longitude.shape)
        ground = self._ground(place) if one.follows_ground else None
        found = interpolate(one, longitude[some], latitude[some], None if ground is None else ground[some])
        known = found.reshape(len(found), -1)
        seen = ~np.isnan(known)
        low, high = (
            np.where(seen.any(1), pick(np.where(seen, known, empty), axis=1), np.nan)
            for pick, empty in ((np.min, np.inf), (np.max, -np.inf))
        )
        return np.stack([low, high], axis=1).astype(np.float32)

    @cached_property
    def _known_ranges(self) -> dict[str, Floats]:
        return {}
