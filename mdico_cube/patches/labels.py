"""A label file in, class index and parcel number of every pixel of the grid out: block by block, into a cube."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from mdico_cube.cube.grid import shards
from mdico_cube.cube.labels import LabelBlock, write_label_blocks
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.outlines import burn, burn_values, features_of, parcel_dates
from mdico_cube.patches.values import check_values, known_values, part_of, range_edges, range_legend
from mdico_cube.patches.vectors import VECTORS, file_digest
from mdico_cube.patches.waves import in_waves
from mdico_cube.recipe import ClassSection, LabelSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Floats

_BLOCK = 2048  # side of the pieces in which labels are looked at before a build


def label_cube(cube: Location, section: LabelSection) -> None:
    """Put a label file on a cube's grid, shard by shard through Dask; labels that stand already are left alone.

    Parcels are numbered over the whole file, so that a parcel has one number wherever it is cut.

    Raises:
        MdicoError: the file or a column of it cannot be read.
    """
    reader = open_reader(cube)
    _check_exists(section)
    attrs: dict[str, Any] = {
        "source": section.path.name,
        "keys": [entry.key for entry in section.classes],
        "made_from": _made_from(section, reader.geobox),
    }
    if section.values is not None:
        attrs["value"] = section.values.name
    if reader.has_labels and reader.label_facts.get("made_from") == attrs["made_from"]:
        return
    wanted, legend = list(shards(reader.shape, reader.shard)), section.legend
    edges: tuple[float, ...] = ()
    if section.values is not None:
        edges = range_edges(section.values, values_in_view(section, reader.geobox))
        legend = range_legend(edges)
    jobs = [(section, reader.geobox, shard.y, shard.x, edges) for shard in wanted]
    blocks = zip(wanted, in_waves(rasterize_labels, jobs, "labels"), strict=True)
    vector = _is_vector(section)
    dates = parcel_dates(features_of(section, str(reader.geobox.crs))) if vector and section.date is not None else None
    write_label_blocks(
        cube, blocks, legend, attrs, vector and _grouped(section), dates, valued=section.values is not None
    )


def check_labels(section: LabelSection, geobox: GeoBox) -> None:
    """Look for two classes on the grid and stop where they are found: before anything else is read.

    Raises:
        MdicoError: the file is missing or unreadable, lies outside the area, or shows a single class.
    """
    _check_exists(section)
    if section.values is not None:
        check_values(section.values, section.path, values_in_view(section, geobox))
        return
    present: set[int] = set()
    for block in shards((geobox.shape.y, geobox.shape.x), _BLOCK):
        found = np.unique(rasterize_labels(section, geobox, block.y, block.x).label)
        present |= set(found[found != UNLABELLED].tolist())
        if len(present) > 1:
            return
    if not present:
        raise MdicoError(
            f"labels {section.path}: no labelled pixel of the listed classes lies in the area. "
            "Check the file's extent and CRS against the recipe's area, and labels.classes against its values."
        )
    only = section.classes[present.pop()].name
    raise MdicoError(
        f"labels {section.path}: only one class ({only}) lies in the area, but a classifier needs two. "
        "Widen the area or list more classes."
    )


def rasterize_labels(
    section: LabelSection,
    geobox: GeoBox,
    y: slice | None = None,
    x: slice | None = None,
    edges: tuple[float, ...] = (),
) -> LabelBlock:
    """Put a raster or vector label file on a block of the grid: a pixel takes the class or value at its centre.

    Law: blocks put together equal the whole.

    Args:
        section: the file and its classes.
        geobox: the whole grid.
        y: rows; None = all.
        x: columns; None = all.
        edges: of the parts of the values' range, where the labels are values.

    Raises:
        MdicoError: the file is missing or unreadable, lacks a column, or holds no numbers where values are wanted.
    """
    _check_exists(section)
    y, x = y or slice(0, geobox.shape.y), x or slice(0, geobox.shape.x)
    if section.values is None:
        if _is_vector(section):
            return burn(features_of(section, str(geobox.crs)), geobox[y, x])
        return LabelBlock(_from_raster(section, geobox, y, x), None)
    found, parcel = _values(section, geobox, y, x)
    value = known_values(section.values, found)
    if parcel is not None:
        parcel = np.where(np.isnan(value), 0, parcel)
    return LabelBlock(part_of(value, edges), parcel, value)


def values_in_view(section: LabelSection, geobox: GeoBox) -> Floats:
    """The values of the labels on a grid (h, w), NaN = unlabelled; a large grid is looked at in coarser steps."""
    assert section.values is not None
    step = -(-max(geobox.shape) // _BLOCK)
    view = geobox if step == 1 else geobox.zoom_out(step)
    return known_values(section.values, _values(section, view, slice(0, view.shape.y), slice(0, view.shape.x))[0])


def _values(section: LabelSection, geobox: GeoBox, y: slice, x: slice) -> tuple[Floats, npt.NDArray[np.int32] | None]:
    """Values of a block (h, w), NaN = none, and its parcels."""
    if not _is_vector(section):
        with _on_grid(section, geobox) as view:
            values = view.read(1, window=rasterio.windows.Window.from_slices(y, x), masked=True)
            return np.ma.filled(values.astype(np.float32), np.nan), None
    return burn_values(features_of(section, str(geobox.crs)), geobox[y, x])


def _is_vector(section: LabelSection) -> bool:
    return section.path.suffix.lower() in VECTORS


def _grouped(section: LabelSection) -> bool:
    return section.group is not None or section.date is not None


def _check_exists(section: LabelSection) -> None:
    if not section.path.exists():
        raise MdicoError(f"labels {section.path}: no such file. Set labels.path in the recipe.")


def _made_from(section: LabelSection, geobox: GeoBox) -> str:
    """SHA-256 of all that decides the labels: the file's bytes, the options and the grid."""
    options = section.model_dump(mode="json", exclude={"path"} if section.values is not None else {"path", "values"})
    place = [list(geobox.affine)[:6], list(geobox.shape), str(geobox.crs)]
    return hashlib.sha256(json.dumps([file_digest(section.path), options, place]).encode()).hexdigest()


def _from_raster(section: LabelSection, geobox: GeoBox, y: slice, x: slice) -> npt.NDArray[np.uint8]:
    label = np.full((y.stop - y.start, x.stop - x.start), UNLABELLED, dtype=np.uint8)
    with _on_grid(section, geobox) as view:
        values = view.read(1, window=rasterio.windows.Window.from_slices(y, x), masked=True)
    for index, entry in enumerate(section.classes):
        label[np.ma.filled(values == _number(entry, section), False)] = index
    return label


@contextmanager
def _on_grid(section: LabelSection, geobox: GeoBox) -> Iterator[Any]:
    """A raster as it lies on the grid."""
    height, width = geobox.shape
    try:
        with (
            rasterio.open(section.path) as source,
            WarpedVRT(
                source,
                crs=str(geobox.crs),
                transform=geobox.affine,
                width=width,
                height=height,
                resampling=Resampling.nearest,
                tolerance=1e-6,  # positions are exact, so that blocks equal the whole
            ) as view,
        ):
            yield view
    except rasterio.errors.RasterioError as error:
        raise MdicoError(
            f"labels {section.path}: cannot be read as a raster ({error}). Give a GeoTIFF, GeoPackage, GeoParquet or "
            "GeoJSON."
        ) from error


def _number(entry: ClassSection, section: LabelSection) -> int:
    try:
        return int(entry.key)
    except ValueError as error:
        raise MdicoError(
            f"labels.classes: {entry.name!r} needs its number in the raster {section.path.name}: set `source`."
        ) from error
