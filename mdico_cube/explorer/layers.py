"""A cube and its maps in; the layers that can be looked at out, each with its facts and its tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.image import imsave

from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.looks import Limits, Look, channels, limits, looks, paint, parse_look, ramp
from mdico_cube.explorer.pyramid import TILE, Kept, Raster, cut
from mdico_cube.maps.cog import read_legend
from mdico_cube.maps.images import Image, painted
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.write import read_map
from mdico_cube.spec import Array, Floats, LabelClass

_SAMPLES = 25
"""About how many chunks are looked at to find what is dark and what is bright."""
Place = tuple[int, int, int]
"""Zoom, column and row of a tile."""


class Shown(Protocol):
    """A layer of the page."""

    key: str

    def facts(self) -> dict[str, Any]:
        """What the page has to know of it, as JSON."""

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """(h, w, 3) of one tile; None outside the raster."""


@dataclass
class SensorLayer:
    """One sensor of the cube."""

    reader: CubeReader
    key: str
    kept: Kept = field(repr=False)
    _limits: dict[str, Limits] = field(default_factory=dict, repr=False)

    def facts(self) -> dict[str, Any]:
        """Name, steps with their ends, pictures, bands."""
        modality = self.reader.modalities[self.key]
        return {
            "key": self.key,
            "kind": "sensor",
            "title": modality.title or self.key,
            "steps": [day for day in self.reader.steps(self.key) if day],
            "stops": list(self.reader.stops(self.key)),
            "looks": [{"key": look.key, "title": title} for look, title in looks(modality)],
            "bands": [{"name": band.name, "title": band.title, "unit": band.unit} for band in modality.bands],
        }

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """One time step of the sensor.

        Raises:
            MdicoError: no such picture or step.
        """
        chosen = self._look(look)
        if not 0 <= step < len(self.reader.steps(self.key)):
            raise MdicoError(f"{self.key}: has no step {step}, only 0 to {len(self.reader.steps(self.key)) - 1}.")
        raster = Raster(self.reader.shape, self.reader.chunk, lambda y, x: self._stored(chosen, y, x))
        stored = self.kept.get((self.key, chosen.bands, place), lambda: cut(raster, *place))
        if stored is None:
            return None
        metres = abs(float(self.reader.geobox.resolution.x)) * 2 ** -min(place[0], 0)
        return paint(chosen, channels(chosen, self._physical(stored[step])), self.limits(look), metres)

    def limits(self, look: str) -> Limits:
        """What is dark and what is bright in a picture, the same for every tile and step; found once."""
        if look not in self._limits:
            chosen, sample = self._look(look), []
            for y, x in self._windows():
                found = channels(chosen, self._physical(self._stored(chosen, y, x)))  # (T, c, h, w)
                sample.append(np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])[::7])
            self._limits[look] = limits(chosen, np.concatenate(sample))
        return self._limits[look]

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

    def legend(self, look: str) -> dict[str, Any]:
        """What the colours of a picture mean."""
        chosen, modality = self._look(look), self.reader.modalities[self.key]
        units = {band.name: band.unit for band in modality.bands}
        unit = "" if chosen.kind == "difference" else units[chosen.bands[0]]
        found = self.limits(look)
        names = (*chosen.bands, "-".join(chosen.bands)) if chosen.kind == "radar" else chosen.bands
        table = colormaps[ramp(chosen)] if ramp(chosen) else None
        colors = [] if table is None else [_hex(table(k / 6)) for k in range(7)]
        return {"unit": unit, "bands": list(names), "limits": [list(pair) for pair in found], "ramp": colors}

    def _look(self, text: str) -> Look:
        return parse_look(text, self.reader.modalities[self.key])

    def _stored(self, look: Look, y: slice, x: slice) -> Array:
        names = self.reader.modalities[self.key].band_names
        return self.reader.stored(self.key, y, x)[:, [names.index(band) for band in look.bands]]

    def _physical(self, stored: Array) -> Floats:
        """NaN = not observed."""
        values, seen = self.reader.modalities[self.key].storage.unpack(stored)
        return np.where(seen, values, np.float32(np.nan))


@dataclass
class ClassLayer:
    """Labels or the classes of a map: a raster of class numbers."""

    key: str
    title: str
    classes: tuple[LabelClass, ...]
    raster: Raster
    kept: Kept = field(repr=False)
    about: str = ""

    def facts(self) -> dict[str, Any]:
        """Name and legend."""
        legend = [{"name": item.name, "color": item.color} for item in self.classes]
        return {"key": self.key, "kind": "classes", "title": self.title, "legend": legend, "about": self.about}

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """The classes in their colours; `look` and `step` have no meaning here."""
        index = self.kept.get((self.key, place), lambda: cut(self.raster, *place))
        return None if index is None else painted(index, [item.color for item in self.classes])


@dataclass
class ConfidenceLayer:
    """The largest class probability of a map."""

    key: str
    title: str
    raster: Raster
    kept: Kept = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """Name and what the colours mean."""
        colors = [_hex(colormaps["cividis"](k / 6)) for k in range(7)]
        return {"key": self.key, "kind": "confidence", "title": self.title, "ramp": colors, "limits": [0, 100]}

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """Dark = unsure, bright = sure; `look` and `step` have no meaning here."""
        percent = self.kept.get((self.key, place), lambda: cut(self.raster, *place))
        if percent is None:
            return None
        values = np.where(percent == NODATA, np.float32(np.nan), percent.astype(np.float32))
        return paint(Look("one", ("confidence",)), values[None], ((0.0, 100.0),), 1.0, "cividis")


@dataclass
class MapFile:
    """A map of the cube, opened."""

    key: str
    path: Path
    group: Any = field(repr=False)

    @cached_property
    def classes(self) -> tuple[LabelClass, ...]:
        """Its legend."""
        return read_legend(self.group)

    @property
    def title(self) -> str:
        """Which sensor made it, with which method."""
        facts = dict(self.group.attrs)
        return f"{facts.get('title') or self.path.stem}, seed {facts.get('seed', '?')}"

    def index(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        """Class index (h, w), -1 = no prediction."""
        table = np.full(256, -1, np.int16)
        for k, item in enumerate(self.classes):
            table[item.value] = k
        return np.asarray(table[np.asarray(self.group["class"][y, x])])

    def layers(self, reader: CubeReader, kept: Kept) -> tuple[ClassLayer, ConfidenceLayer]:
        """Its classes and how sure they are."""
        chunk = int(self.group["class"].chunks[-1])
        confidence = Raster(reader.shape, chunk, lambda y, x: np.asarray(self.group["confidence"][y, x]))
        return (
            ClassLayer(self.key, self.title, self.classes, Raster(reader.shape, chunk, self.index), kept),
            ConfidenceLayer(f"{self.key}-confidence", f"{self.title}: confidence", confidence, kept),
        )


def open_maps(reader: CubeReader, paths: Sequence[Path]) -> list[MapFile]:
    """The maps, each checked to stand on the cube's grid.

    Raises:
        MdicoError: no map, one that is not whole, or one of another region.
    """
    found = []
    for number, path in enumerate(paths):
        if path.suffix in (".tif", ".json"):
            raise MdicoError(
                f"map {path}: is not the map itself. Give {path.with_suffix('.zarr')}, the Zarr beside it."
            )
        group: Any = read_map(path)
        x, y = (np.asarray(group[axis]) for axis in ("x", "y"))
        corners = [x[0], x[-1], y[0], y[-1]]
        left, top = reader.geobox.affine * (0.5, 0.5)
        right, bottom = reader.geobox.affine * (reader.shape[1] - 0.5, reader.shape[0] - 0.5)
        if (y.size, x.size) != reader.shape or not np.allclose(corners, [left, right, top, bottom]):
            raise MdicoError(
                f"map {path}: does not stand on the grid of {reader.path}. Give maps that were made of this cube."
            )
        found.append(MapFile(f"map{number}", path, group))
    return found


def layers_of(reader: CubeReader, maps: Sequence[MapFile]) -> dict[str, Shown]:
    """Every layer of the page: sensors on the grid, labels, maps."""
    kept = Kept()
    on_grid = [name for name, modality in reader.modalities.items() if not modality.coarse]
    found: list[Shown] = [SensorLayer(reader, name, kept) for name in on_grid]
    if reader.has_labels:
        raster = Raster(reader.shape, reader.chunk, reader.labels)
        found.append(ClassLayer("label", "Labels", reader.legend, raster, kept))
    for each in maps:
        found.extend(each.layers(reader, kept))
    return {layer.key: layer for layer in found}


def png(image: Image) -> bytes:
    """An image (h, w, 3) in 0..1 as a PNG of a whole tile; what lies outside the raster is transparent."""
    height, width = image.shape[:2]
    pixels = np.zeros((TILE, TILE, 4), np.uint8)
    pixels[:height, :width, :3] = np.rint(image * 255)
    pixels[:height, :width, 3] = 255
    buffer = BytesIO()
    imsave(buffer, pixels, format="png", pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def _hex(color: Any) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in color[:3])
