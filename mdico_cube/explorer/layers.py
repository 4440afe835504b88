"""A cube and its maps in; the layers that can be looked at out, each with its facts and its tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave

from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.target import Location, beside
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.looks import Look, hexes, paint
from mdico_cube.explorer.overview import Far, Maker, Overview, Source, Stamps
from mdico_cube.explorer.pyramid import BUDGET, TILE, Kept, Place, Raster, cut
from mdico_cube.explorer.sensor_layers import SensorLayer, WeatherLayer
from mdico_cube.explorer.shrink import mean_of, nearest_of
from mdico_cube.maps.cog import read_legend
from mdico_cube.maps.images import Image, painted
from mdico_cube.maps.mapstore import LAYER, task_of
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.write import read_map
from mdico_cube.spec import Array, LabelClass

OVERVIEWS = "overviews"
"""What the folder of overviews beside a store is called: `.NAME.overviews`."""


class Shown(Protocol):
    """A layer of the page."""

    key: str

    def facts(self) -> dict[str, Any]:
        """What the page has to know of it, as JSON."""

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """(h, w, 3) of one tile; None outside the raster."""


@dataclass
class ClassLayer:
    """Labels or the classes of a map: a raster of class numbers."""

    key: str
    title: str
    classes: tuple[LabelClass, ...]
    raster: Raster
    kept: Kept = field(repr=False)
    far: Far | None = field(default=None, repr=False)
    about: str = ""

    def facts(self) -> dict[str, Any]:
        """Name and legend."""
        legend = [{"name": item.name, "color": item.color} for item in self.classes]
        return {"key": self.key, "kind": "classes", "title": self.title, "legend": legend, "about": self.about}

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """The classes in their colours; `look` and `step` have no meaning here."""
        index = _tile(self, place)
        return None if index is None else painted(index, [item.color for item in self.classes])


@dataclass
class ConfidenceLayer:
    """The largest class probability of a map."""

    key: str
    title: str
    raster: Raster
    kept: Kept = field(repr=False)
    far: Far | None = field(default=None, repr=False)

    def facts(self) -> dict[str, Any]:
        """Name and what the colours mean."""
        return {
            "key": self.key,
            "kind": "confidence",
            "title": self.title,
            "ramp": hexes("cividis"),
            "limits": [0, 100],
        }

    def image(self, place: Place, look: str, step: int) -> Image | None:
        """Dark = unsure, bright = sure; `look` and `step` have no meaning here."""
        percent = _tile(self, place)
        if percent is None:
            return None
        values = np.where(percent == NODATA, np.float32(np.nan), percent.astype(np.float32))
        return paint(Look("one", ("confidence",)), values[None], ((0.0, 100.0),), 1.0, "cividis")


def _tile(layer: ClassLayer | ConfidenceLayer, place: Place) -> Array | None:
    """(h, w) of a raster without time; None outside of it."""
    far = layer.far
    if far is not None and (found := far.tile(place, 0)) is not None:
        return np.asarray(found[0])
    budget = BUDGET if far is None else far.budget(place)
    return layer.kept.get((layer.key, place), lambda: cut(layer.raster, *place, budget))


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

    def layers(self, reader: CubeReader, kept: Kept, maker: Maker) -> tuple[ClassLayer, ConfidenceLayer]:
        """Its classes and how sure they are."""
        chunk = int(self.group["class"].chunks[-1])
        rasters = {
            "class": Raster(reader.shape, chunk, self.index),
            "confidence": Raster(reader.shape, chunk, lambda y, x: np.asarray(self.group["confidence"][y, x])),
        }
        fars = {
            name: _flat(reader, self.path.resolve(), name, raster, lambda: stamps_of(self.path, LAYER), maker, kept)
            for name, raster in rasters.items()
        }
        return (
            ClassLayer(self.key, self.title, self.classes, rasters["class"], kept, fars["class"]),
            ConfidenceLayer(
                f"{self.key}-confidence", f"{self.title}: confidence", rasters["confidence"], kept, fars["confidence"]
            ),
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
        if task_of(group) != "classes":
            raise MdicoError(f"map {path}: holds no classes, which is what this page shows. Open its GeoTIFF in QGIS.")
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


def layers_of(reader: CubeReader, maps: Sequence[MapFile], maker: Maker) -> dict[str, Shown]:
    """Every layer of the page: sensors, labels, maps."""
    kept = Kept()
    on_grid = {
        name: SensorLayer(reader, name, kept, _sensor(reader, name, maker, kept))
        for name, modality in reader.modalities.items()
        if not modality.coarse
    }
    found: list[Shown] = [
        on_grid.get(name) or WeatherLayer(reader, name, kept, terrain=on_grid.get("dem")) for name in reader.modalities
    ]
    if reader.has_labels:
        raster, digest = Raster(reader.shape, reader.chunk, reader.labels), str(reader.label_facts["digest"])
        shards = tuple(-(-size // reader.shard) for size in reader.shape)
        far = _flat(reader, reader.path, "labels", raster, lambda: np.full(shards, digest), maker, kept)
        found.append(ClassLayer("label", "Labels", reader.legend, raster, kept, far))
    for each in maps:
        found.extend(each.layers(reader, kept, maker))
    return {layer.key: layer for layer in found}


def _sensor(reader: CubeReader, name: str, maker: Maker, kept: Kept) -> Far | None:
    """The overviews of a sensor, beside the cube; none where that is no folder of this machine."""
    folder, modality = beside(reader.path, OVERVIEWS), reader.modalities[name]
    if not isinstance(folder, Path):
        return None
    source = Source(
        folder / name,
        reader.shape,
        reader.shard,
        lambda: stamps_of(reader.path, name),
        lambda y, x: reader.stored(name, y, x),
        lambda stored: mean_of(modality, stored),
        (len(reader.steps(name)), len(modality.bands), modality.storage.dtype),
        modality.storage.missing,
    )
    return Far(Overview(source), maker, kept)


def _flat(
    reader: CubeReader,
    place: Location,
    name: str,
    raster: Raster,
    stamps: Callable[[], Stamps],
    maker: Maker,
    kept: Kept,
) -> Far | None:
    """The overviews of a raster without time, beside its store."""
    folder = beside(place, OVERVIEWS)
    if not isinstance(folder, Path):
        return None
    kind, blank = ("uint8", NODATA) if name == "confidence" else ("int16", -1)
    read: Callable[[slice, slice], Array] = lambda y, x: raster.read(y, x)[None, None]  # noqa: E731
    source = Source(folder / name, reader.shape, reader.shard, stamps, read, nearest_of, (1, 1, kind), blank)
    return Far(Overview(source), maker, kept)


def stamps_of(store: Location, name: str) -> Stamps:
    """Digest of every shard in a ledger, empty where none stands (shards along y, shards along x)."""
    digests = np.ascontiguousarray(Ledger(store, name).digests())
    return digests.view(f"S{digests.shape[-1]}")[..., 0].astype(str)


def png(image: Image) -> bytes:
    """An image (h, w, 3) in 0..1 as a PNG of a whole tile; what lies outside the raster is transparent."""
    height, width = image.shape[:2]
    pixels = np.zeros((TILE, TILE, 4), np.uint8)
    pixels[:height, :width, :3] = np.rint(image * 255)
    pixels[:height, :width, 3] = 255
    buffer = BytesIO()
    imsave(buffer, pixels, format="png", pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
