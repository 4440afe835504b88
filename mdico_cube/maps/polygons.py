"""A Zarr map in, one polygon per connected patch of a class out: strip by strip, joined where strips meet."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyogrio.errors import DataSourceError
from rasterio.features import shapes
from scipy import ndimage

from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import read_legend
from mdico_cube.maps.mapstore import task_of
from mdico_cube.maps.outputs import NODATA, Bytes
from mdico_cube.maps.write import open_map, read_map
from mdico_cube.patches.vectors import on_crs
from mdico_cube.spec import LabelClass

VECTORS = {".gpkg": "application/geopackage+sqlite3", ".geojson": "application/geo+json"}
"""Endings of the files that can be written, and their media types."""
_BATCH = 20_000  # polygons written at once
_DEGREES = "EPSG:4326"
Ids = npt.NDArray[np.int32]
Patch = tuple[int, shapely.Geometry]
"""Map value and polygon in pixels (column, row)."""
Patches = dict[int, tuple[int, list[shapely.Geometry]]]
"""Number -> map value and the pieces of a patch."""


def write_polygons(source: Path, target: Path, smallest: int = 1) -> Path:
    """Write the patches of every class of a map as polygons, whole or not at all.

    Pixels that share a side belong together. Memory holds one row of shards and the patches that reach its lower edge.

    Args:
        source: folder of a complete Zarr map.
        target: a .gpkg file, in the map's CRS, or a .geojson file, in degrees; one that is there is replaced.
        smallest: patches of fewer pixels are left out.

    Returns:
        The target.

    Raises:
        MdicoError: another ending, an incomplete map, or a folder that cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in VECTORS:
        raise MdicoError(f"polygons {target}: is neither of {' and '.join(VECTORS)}. Name a file that ends like this.")
    group = read_map(source)
    if task_of(group) != "classes":
        raise MdicoError(f"map {source}: holds no classes, and polygons are of classes. Use its GeoTIFF.")
    array: Any = group["class"]
    geobox: GeoBox = open_map(source).odc.geobox
    legend = {item.value: item for item in read_legend(group)}
    height, side = array.shape[0], array.shards[0]
    strips = (np.asarray(array[top : min(top + side, height)]) for top in range(0, height, side))
    part = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _writer(part, geobox, source.stem) as write:
            for batch in _batches(patches(strips), smallest):
                write(_frame(batch, legend, geobox))
        part.replace(target)
    except (OSError, DataSourceError) as error:
        raise MdicoError(
            f"polygons {target}: cannot be written ({error}). Free some space or choose a folder you may write to."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return target


@dataclass(slots=True)
class _Open:
    """Patches that reach the lower edge of the last strip."""

    edge: Bytes
    """Classes of its last row."""
    ids: Ids
    """(width,) number of the patch of each of its pixels, 0 = none."""
    parts: Patches = field(default_factory=dict)
    """Number -> class and polygons."""


def patches(strips: Iterator[Bytes]) -> Iterator[Patch]:
    """The connected patches of a raster that is given in strips (h, width) from the top: value and polygon in pixels.

    Law: the same patches for any strips.
    """
    held: _Open | None = None
    top, used = 0, 0
    for strip in strips:
        ids = _components(strip, used)
        used = int(ids.max(initial=used))
        parts, last = _polygons(ids, strip, top), ids[-1]
        if held is not None:
            parts, last = _joined(held, parts, ids, strip[0])
        reaching = set(np.unique(last).tolist())
        yield from (_whole(parts[number]) for number in parts if number not in reaching)
        held = _Open(strip[-1], last, {number: parts[number] for number in parts if number in reaching})
        top += len(strip)
    if held is not None:
        yield from map(_whole, held.parts.values())


def _components(strip: Bytes, used: int) -> Ids:
    """(h, width) number of each pixel's patch, counted on from `used`; 0 where nothing was predicted."""
    ids = np.zeros(strip.shape, np.int32)
    for value in np.unique(strip[strip != NODATA]):
        found, count = ndimage.label(strip == value)
        ids = np.where(found > 0, found + used, ids).astype(np.int32)
        used += count
    return ids


def _polygons(ids: Ids, strip: Bytes, top: int) -> Patches:
    """Number -> class and polygon in pixels of the whole raster."""
    first = np.unique(ids, return_index=True)
    classes = dict(zip(first[0].tolist(), strip.ravel()[first[1]].tolist(), strict=True))
    found: Patches = {}
    for shape, number in shapes(ids, ids > 0, connectivity=4, transform=Affine.translation(0, top)):
        found.setdefault(int(number), (classes[int(number)], []))[1].append(shapely.geometry.shape(shape))
    return found


def _joined(held: _Open, parts: Patches, ids: Ids, first: Bytes) -> tuple[Patches, Ids]:
    """A strip's patches, each with those above that it touches under one number; and the numbers of its last row."""
    home: dict[int, int] = {}

    def root(number: int) -> int:
        while home.get(number, number) != number:
            number = home[number]
        return number

    meets = (held.edge == first) & (first != NODATA)
    for above, below in sorted(set(zip(held.ids[meets].tolist(), ids[0][meets].tolist(), strict=True))):
        low, high = sorted((root(above), root(below)))
        home[high] = low
    found: Patches = {}
    for number, (value, pieces) in (*held.parts.items(), *parts.items()):
        found.setdefault(root(number), (value, []))[1].extend(pieces)
    numbers, places = np.unique(ids[-1], return_inverse=True)
    return found, np.array([root(number) for number in numbers.tolist()], np.int32)[places]


def _whole(patch: tuple[int, list[shapely.Geometry]]) -> Patch:
    """Its pieces as one polygon, without the points that only the strips' edges put there."""
    value, pieces = patch
    return value, shapely.simplify(shapely.union_all(pieces) if len(pieces) > 1 else pieces[0], 0)


def _batches(found: Iterator[Patch], smallest: int) -> Iterator[list[Patch]]:
    batch: list[Patch] = []
    for patch in found:
        if patch[1].area >= smallest:
            batch.append(patch)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _frame(batch: list[Patch], legend: dict[int, LabelClass], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Polygons in the map's CRS with value, class, colour, pixels and area in the CRS's square units."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for value, shape in batch:
        columns["value"].append(value)
        columns["class"].append(legend[value].name)
        columns["color"].append(legend[value].color)
        columns["pixels"].append(round(shape.area))
    shapes_ = shapely.transform(
        np.array([shape for _, shape in batch], dtype=object), lambda at: np.column_stack(geobox.affine * at.T)
    )
    names = ("value", "class", "color", "pixels")
    frame = gpd.GeoDataFrame({name: columns[name] for name in names}, geometry=list(shapes_), crs=str(geobox.crs))
    return frame.assign(area=frame.area)


@contextmanager
def _writer(part: Path, geobox: GeoBox, layer: str) -> Iterator[Callable[[gpd.GeoDataFrame], None]]:
    if part.suffix.lower() == ".gpkg":
        begun: list[bool] = []

        def append(frame: gpd.GeoDataFrame) -> None:
            pyogrio.write_dataframe(
                frame, part, layer=layer, driver="GPKG", geometry_type="Polygon", append=bool(begun)
            )
            begun.append(True)

        yield append
        return
    with part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        yield _Features(file)
        file.write("\n]}\n")


class _Features:
    """Writes features one after the other, in degrees as GeoJSON wants them."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.between = file, "\n"

    def __call__(self, frame: gpd.GeoDataFrame) -> None:
        for feature in on_crs(frame, _DEGREES).iterfeatures(drop_id=True):
            self.file.write(self.between + json.dumps(feature))
            self.between = ",\n"
