"""A vector label file in, its rows and the outlines that touch a block of the grid out, burnt into it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.warp import transform_bounds

from mdico_cube.cube.labels import LabelBlock
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.values import known_values, numbers_of
from mdico_cube.patches.vectors import (
    BY_BLOCK,
    Days,
    check_columns,
    columns_of,
    days,
    file_columns,
    on_crs,
    read_vectors,
    unreadable,
    years,
)
from mdico_cube.progress import say
from mdico_cube.recipe import LabelSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Floats

# rasterize makes a dataset without a place in memory; its own filter for that does not reach other threads
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")
_KEYS = ("attribute", "group", "date")


@dataclass(frozen=True, eq=False)
class Features:
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


def features_of(section: LabelSection, crs: str) -> Features:
    """The rows of the label file, read once per process.

    Args:
        section: the file and its classes or values.
        crs: of the grid, on which whole outlines are kept.

    Raises:
        MdicoError: the file cannot be read, lacks a column, or holds no numbers where values are wanted.
    """
    facts = section.path.stat()
    return _read_features(section, crs, (facts.st_mtime_ns, facts.st_size))


@lru_cache(maxsize=2)
def _read_features(section: LabelSection, crs: str, stamp: tuple[int, int]) -> Features:
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
    return Features(path, label, group, date, number, outlines, value)


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


def parcel_dates(features: Features) -> Days:
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


def burn(features: Features, part: GeoBox) -> LabelBlock:
    """The outlines that touch a block, burnt in the order of the file: of overlapping ones the last counts."""
    rows, outlines = _labelled(features, part)
    label = _rasterized(outlines, features.label[rows], part, UNLABELLED).astype(np.uint8)
    if features.group is None:
        return LabelBlock(label, None)
    return LabelBlock(label, _rasterized(outlines, features.group[rows], part, 0))


def burn_values(features: Features, part: GeoBox) -> tuple[Floats, npt.NDArray[np.int32] | None]:
    """Values of a block (h, w), NaN = none, and its parcels; of overlapping outlines the last counts."""
    assert features.value is not None
    rows, outlines = _labelled(features, part)
    place = _rasterized(outlines, np.arange(rows.size) + 1, part, 0)
    value = np.append(np.float32(np.nan), features.value[rows])[place]
    if features.group is None:
        return value, None
    return value, np.append(np.int32(0), features.group[rows].astype(np.int32))[place]


def _labelled(features: Features, part: GeoBox) -> tuple[Ints, npt.NDArray[np.object_]]:
    """Rows with a label that touch a block, ascending, and their outlines."""
    rows, outlines = _outlines(features, part)
    kept = features.label[rows] >= 0
    return rows[kept], outlines[kept]


def _outlines(features: Features, part: GeoBox) -> tuple[Ints, npt.NDArray[np.object_]]:
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
