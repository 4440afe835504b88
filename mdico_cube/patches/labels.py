"""A label file in, class index and parcel number of every pixel of the grid out: block by block, into a cube."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from mdico_cube.cube.grid import shards
from mdico_cube.cube.labels import LabelBlock, write_label_blocks
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.values import check_values, known_values, numbers_of, part_of, range_edges, range_legend
from mdico_cube.patches.vectors import (
    BY_BLOCK,
    VECTORS,
    Days,
    check_columns,
    columns_of,
    days,
    file_columns,
    file_digest,
    on_crs,
    read_vectors,
    unreadable,
    years,
)
from mdico_cube.patches.waves import in_waves
from mdico_cube.progress import say
from mdico_cube.recipe import ClassSection, LabelSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Floats

# rasterize makes a dataset without a place in memory; its own filter for that does not reach other threads
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")
_BLOCK = 2048  # side of the pieces in which labels are looked at before a build
_KEYS = ("attribute", "group", "date")


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
    dates = _parcel_dates(_features(section, reader.geobox)) if vector and section.date is not None else None
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
            return _burn(_features(section, geobox), geobox[y, x])
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
    features, part = _features(section, geobox), geobox[y, x]
    assert features.value is not None
    rows, outlines = _outlines(features, part)
    kept = features.label[rows] >= 0
    rows, outlines = rows[kept], outlines[kept]
    place = _rasterized(outlines, np.arange(rows.size) + 1, part, 0)
    value = np.append(np.float32(np.nan), features.value[rows])[place]
    if features.group is None:
        return value, None
    return value, np.append(np.int32(0), features.group[rows].astype(np.int32))[place]


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


@dataclass(frozen=True, eq=False)
class _Features:
    """Every row of a vector file: what it says, but its outline only where the file cannot be asked for a part."""

    path: Path
    label: Ints
    """(N,) class index, -1 = a class that is not listed."""
    group: Ints | None
    """(N,) parcel number from 1 on, 0 = none; None where nobody asked for groups."""
    date: Days | None
    """(N,) day of the label."""
    number: Ints
    """(N,) the row's number in the file, ascending."""
    outlines: gpd.GeoSeries | None
    """(N,) on the grid's CRS."""
    value: Floats | None = None
    """(N,) NaN = none; None where the labels are classes."""


def _features(section: LabelSection, geobox: GeoBox) -> _Features:
    """The rows of the label file, read once per process."""
    facts = section.path.stat()
    return _read_features(section, str(geobox.crs), (facts.st_mtime_ns, facts.st_size))


@lru_cache(maxsize=2)
def _read_features(section: LabelSection, crs: str, stamp: tuple[int, int]) -> _Features:
    del stamp  # a file that has changed is read again
    path, outlines = section.path, None
    wanted = {key: getattr(section, key) for key in _KEYS}
    if path.suffix.lower() in BY_BLOCK:
        _check_attribute(section, file_columns(path, "labels"))
        columns = list(dict.fromkeys(name for name in wanted.values() if name is not None))
        frame: Any = _read(path, columns=columns, read_geometry=False)
    else:
        frame = read_vectors(path, "labels")
        _check_attribute(section, columns_of(frame))
        outlines = on_crs(frame, crs).geometry
    value = None
    if section.values is None:
        index = frame[section.attribute].astype(str).map({str(entry.key): i for i, entry in enumerate(section.classes)})
        label = np.asarray(index.fillna(-1), dtype=np.int64)
    else:
        value = known_values(section.values, numbers_of(frame[section.attribute], section.path))
        label = np.where(np.isnan(value), -1, 0)
    group = None
    if section.group is not None:
        known = label >= 0
        group = np.zeros(len(frame), np.int64)
        group[known] = pd.factorize(frame[section.group][known])[0] + 1
    elif section.date is not None:
        group = np.arange(1, len(frame) + 1)
    date = None if section.date is None else days(frame[section.date], "labels.date", path)
    number = np.asarray(frame.index, dtype=np.int64)
    return _Features(path, label, group, date, number, outlines, value)


def _check_attribute(section: LabelSection, have: list[str]) -> None:
    if section.attribute is None:
        raise MdicoError(
            f"labels.attribute: name the column of {section.path.name} with the class or value, one of "
            f"{', '.join(have)}."
        )
    check_columns(section.path, "labels", {key: getattr(section, key) for key in _KEYS}, have)


def _read(path: Path, **options: Any) -> Any:
    try:
        return pyogrio.read_dataframe(path, fid_as_index=True, **options).sort_index()
    except (pyogrio.errors.DataSourceError, ValueError, OSError) as error:
        raise unreadable(path, "labels", error) from error


def _parcel_dates(features: _Features) -> Days:
    """Day of each parcel's label (parcels + 1,): its rows' first, not-a-time where they are of several years."""
    assert features.group is not None
    assert features.date is not None
    group, date = features.group, features.date
    known = ~np.isnat(date) & (features.label >= 0)
    out = np.full(int(group.max(initial=0)) + 1, np.datetime64("NaT"), dtype="datetime64[D]")
    order = np.argsort(date[known])[::-1]
    out[group[known][order]] = date[known][order]  # the last write wins: the earliest
    mixed = np.unique(group[known][years(date[known]) != years(out)[group[known]]])
    if mixed.size:
        say(f"labels: {mixed.size} parcels have labels of several years: they have no date")
    out[mixed] = np.datetime64("NaT")
    out[0] = np.datetime64("NaT")
    return out


def _burn(features: _Features, part: GeoBox) -> LabelBlock:
    """The outlines that touch a block, burnt in the order of the file: of overlapping ones the last counts."""
    rows, outlines = _outlines(features, part)
    kept = features.label[rows] >= 0
    rows, outlines = rows[kept], outlines[kept]
    label = _rasterized(outlines, features.label[rows], part, UNLABELLED).astype(np.uint8)
    if features.group is None:
        return LabelBlock(label, None)
    return LabelBlock(label, _rasterized(outlines, features.group[rows], part, 0))


def _outlines(features: _Features, part: GeoBox) -> tuple[Ints, npt.NDArray[np.object_]]:
    """Rows of the features that touch a block, ascending, and their outlines on the grid's CRS."""
    if features.outlines is not None:
        rows = np.sort(features.outlines.sindex.query(part.extent.geom)).astype(np.int64)
        return rows, np.asarray(features.outlines.array[rows])
    crs = pyogrio.read_info(features.path)["crs"]
    box = transform_bounds(str(part.crs), crs, *part.boundingbox.bbox, densify_pts=21)
    frame = on_crs(_read(features.path, columns=[], bbox=_widened(box)), str(part.crs))
    return np.searchsorted(features.number, np.asarray(frame.index)), np.asarray(frame.geometry.array)


def _widened(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A box a little wider on each side: its edges are curves in another CRS."""
    left, bottom, right, top = box
    slack = 0.01 * max(right - left, top - bottom)
    return left - slack, bottom - slack, right + slack, top + slack


def _rasterized(outlines: npt.NDArray[np.object_], values: Ints, part: GeoBox, empty: int) -> npt.NDArray[np.int32]:
    shapes = [
        (outline, int(value))
        for outline, value in zip(outlines, values, strict=True)
        if outline is not None and not shapely.is_empty(outline)
    ]
    if not shapes:
        return np.full(tuple(part.shape), empty, dtype=np.int32)
    found = rasterize(shapes, out_shape=tuple(part.shape), transform=part.affine, fill=empty, dtype="int32")
    return np.asarray(found, dtype=np.int32)
