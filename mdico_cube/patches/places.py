"""A vector file of points or polygons in, windows at them out: position, class, date and group of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.vectors import Days, check_columns, columns_of, days, on_crs, read_vectors
from mdico_cube.patches.windows import box_sums, starts
from mdico_cube.progress import say
from mdico_cube.recipe import PlaceSection, SampleSection

_KEYS = ("label", "date", "group")


@dataclass(frozen=True, slots=True)
class Places:
    """N windows that were asked for, in order of row, column and place in the file."""

    y: Ints
    """(N,) first row."""
    x: Ints
    """(N,) first column."""
    label: Ints
    """(N,) class index, -1 = not told by the file."""
    group: Ints
    """(N,) number of the group from 1 on; 0 = a row of the file without one."""
    date: Days
    """(N,) day the label was taken, not-a-time where the file does not tell."""

    def __len__(self) -> int:
        return self.y.size

    def take(self, index: npt.NDArray[np.generic]) -> Places:
        """These places in this order."""
        return Places(self.y[index], self.x[index], self.label[index], self.group[index], self.date[index])

    def inside(self, y: slice, x: slice) -> Places:
        """The places whose window begins in a block."""
        first, last = np.searchsorted(self.y, [y.start, y.stop])
        here = np.arange(first, last)
        return self.take(here[(self.x[here] >= x.start) & (self.x[here] < x.stop)])


def read_places(reader: CubeReader, section: SampleSection) -> Places:
    """The windows of strategy points or polygons on a cube's grid.

    Points and centred polygons give one window around their pixel, so that it is the window's centre; where that would
    leave the grid, there is none. Polygons with `window: within` give every window of the grid all of whose pixel
    centres lie in the polygon.

    Raises:
        MdicoError: the file or a column is missing, a class or a date is not understood, or no window lies in the cube.
    """
    places = section.places
    assert places is not None
    frame = read_vectors(places.path, "samples.places")
    check_columns(places.path, "samples.places", {key: getattr(places, key) for key in _KEYS}, columns_of(frame))
    _check_kind(frame, places.path, section.strategy)
    label = _labels(frame, places, reader)
    kept = ~frame.geometry.is_empty.to_numpy() & frame.geometry.notna().to_numpy() & (label != _OTHER)
    frame, label = frame[kept].reset_index(drop=True), label[kept]
    group = np.zeros(len(frame), np.int64) if places.group is None else _groups(frame[places.group])
    never = np.full(len(frame), np.datetime64("NaT"), dtype="datetime64[D]")
    date = never if places.date is None else days(frame[places.date], "samples.places.date", places.path)
    frame = on_crs(frame, str(reader.geobox.crs))
    if section.strategy == "polygons" and places.window == "within":
        y, x, row = _within(frame, reader, section)
    else:
        y, x, row = _centred(frame, reader, section.patch)
    if not y.size:
        raise MdicoError(
            f"samples.places {places.path}: none of its {len(frame)} places gives a window of {section.patch} pixels "
            "inside the cube. Check the file's extent and CRS against the recipe's area, and the size of the windows."
        )
    outside = len(frame) - np.unique(row).size
    if outside:
        say(f"places: {outside} of {len(frame)} give no window inside the cube")
    order = np.lexsort((row, x, y))
    row = row[order]
    return Places(y[order], x[order], label[row], group[row], date[row])


_OTHER = -2  # a class that the legend does not list


def _check_kind(frame: gpd.GeoDataFrame, path: Path, strategy: str) -> None:
    kinds = set(frame.geom_type.dropna())
    wanted = {"Point", "MultiPoint"} if strategy == "points" else {"Polygon", "MultiPolygon"}
    if kinds - wanted:
        other = "polygons" if strategy == "points" else "points"
        raise MdicoError(
            f"samples.places {path}: holds {', '.join(sorted(kinds - wanted))}, but samples.strategy is {strategy}. "
            f"Set strategy to {other}, or give another file."
        )


def _labels(frame: gpd.GeoDataFrame, places: PlaceSection, reader: CubeReader) -> Ints:
    """Class index of each row; -1 where the file does not say, `_OTHER` for a class that is not listed."""
    if places.label is None:
        return np.full(len(frame), -1, dtype=np.int64)
    names = {str(entry.name): index for index, entry in enumerate(reader.legend)}
    keys = reader.label_facts.get("keys") or []
    known = {**names, **{str(key): index for index, key in enumerate(keys)}}
    found = frame[places.label].astype(str).map(known)
    if found.notna().sum() == 0:
        came = ", ".join(sorted(set(frame[places.label].astype(str)))[:5])
        raise MdicoError(
            f"samples.places.label: none of the values of {places.label!r} ({came}, ...) is a class of the legend "
            f"({', '.join(names)})."
        )
    return np.asarray(found.fillna(_OTHER).astype(np.int64))


def _groups(column: pd.Series) -> Ints:
    return np.asarray(pd.factorize(column)[0] + 1, dtype=np.int64)  # a row without a group becomes 0


def _centred(frame: gpd.GeoDataFrame, reader: CubeReader, side: int) -> tuple[Ints, Ints, Ints]:
    """First row, first column and row of the file of the window around each place that fits into the grid."""
    points = shapely.point_on_surface(np.asarray(frame.geometry.array))
    to_pixel = ~reader.geobox.affine
    column, row = to_pixel * (shapely.get_x(points), shapely.get_y(points))
    y = np.floor(row).astype(np.int64) - side // 2
    x = np.floor(column).astype(np.int64) - side // 2
    fits = (y >= 0) & (x >= 0) & (y + side <= reader.shape[0]) & (x + side <= reader.shape[1])
    index = np.flatnonzero(fits)
    return y[index], x[index], index


def _within(frame: gpd.GeoDataFrame, reader: CubeReader, section: SampleSection) -> tuple[Ints, Ints, Ints]:
    """The windows of the grid that lie wholly in a polygon, polygon by polygon."""
    side, to_pixel = section.patch, ~reader.geobox.affine
    rows, columns = (starts(extent, side, section.step) for extent in reader.shape)
    found = []
    for index, shape in enumerate(frame.geometry):
        left, bottom, right, top = shape.bounds
        (x0, y0), (x1, y1) = sorted_corners(to_pixel * (left, top), to_pixel * (right, bottom))
        y = rows[(rows >= y0 - 1) & (rows + side <= y1 + 1)]
        x = columns[(columns >= x0 - 1) & (columns + side <= x1 + 1)]
        if y.size and x.size:
            tall, wide = int(y[-1] + side - y[0]), int(x[-1] + side - x[0])
            here = reader.geobox.affine * Affine.translation(int(x[0]), int(y[0]))
            mask = rasterize([(shape, 1)], out_shape=(tall, wide), transform=here, dtype="uint8")
            down, right_ = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
            whole = box_sums(mask, down - y[0], right_ - x[0], side, side) == side * side
            found.append((down[whole], right_[whole], np.full(int(whole.sum()), index, dtype=np.int64)))
    if not found:
        return (np.empty(0, np.int64),) * 3
    y, x, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return y, x, row


def sorted_corners(one: tuple[float, float], other: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """The upper left and the lower right of two opposite corners (x, y)."""
    return (min(one[0], other[0]), min(one[1], other[1])), (max(one[0], other[0]), max(one[1], other[1]))
