"""An open raster file and a grid in, its pixels there out: exact positions, whatever block of the grid is asked for.

GDAL's warper places pixels to an eighth of a source pixel and picks its kernel anew for every block, so blocks differ
from the whole at their edges. Here every pixel's place in the source is computed by itself, once for all files of a
block that share a CRS; nearest and bilinear values are then plain array look-ups. Other methods go through GDAL with
its shortcuts switched off.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mdico_cube.spec import Array, Bools

COARSER = 0.95
"""Grid pixels per source pixel below which the kernel is widened to all source pixels that it covers."""
_DIGITS = 7
"""Places in the source are rounded to this many decimals of a pixel: ties fall the same way in every block."""
_EDGE = 1e-10
"""GDAL's: a place this close below a pixel's edge counts as on it."""
_TOLERANCE = 1e-12
"""Source pixels by which GDAL may misplace a pixel: so little that it computes each (0 is refused)."""
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Places:
    """Where the pixels of a grid lie in a source, in source pixels; the centre of the first pixel is (0.5, 0.5)."""

    rows: Array
    """(h, 1) where source and grid are parallel, else (h, w)."""
    columns: Array
    """(1, w) or (h, w)."""

    def aligned(self) -> tuple[int, int] | None:
        """Row and column of the source under the first pixel, where grid pixels are source pixels; else None."""
        if self.rows.shape[1] > 1 or self.columns.shape[0] > 1:
            return None
        first = (float(self.rows[0, 0]) - 0.5, float(self.columns[0, 0]) - 0.5)
        for places, start in ((self.rows[:, 0], first[0]), (self.columns[0], first[1])):
            if start != round(start) or not (places == np.arange(places.size) + start + 0.5).all():
                return None
        return int(first[0]), int(first[1])

    def window(self, shape: tuple[int, int], margin: int) -> tuple[slice, slice] | None:
        """Rows and columns of the source that are needed; None where it does not reach the grid."""
        with np.errstate(invalid="ignore"):
            row_in, column_in = (
                (self.rows >= 0) & (self.rows < shape[0]),
                (self.columns >= 0) & (self.columns < shape[1]),
            )
        if row_in.shape == column_in.shape:
            row_in = column_in = row_in & column_in
        if not (row_in.any() and column_in.any()):
            return None
        rows, columns = self.rows[row_in], self.columns[column_in]
        return _span(rows, margin, shape[0]), _span(columns, margin, shape[1])


def read_pixels(
    file: DatasetReader, band: int, geobox: GeoBox, method: str, missing: float | None, fill: Any, dtype: str
) -> Array:
    """Values (h, w) of one band on a grid.

    Args:
        file: the source.
        band: its band, from 1.
        geobox: the grid, or any block of it.
        method: how values between source pixels are found, as rasterio names it.
        missing: source value that means no data; None where every value is one.
        fill: what stands where the source has no value.
        dtype: type of the result.

    Raises:
        CRSError: the file does not say where it is.
    """
    if file.crs is None:
        raise CRSError(f"{file.name} has no CRS")
    scale = _scale(file.crs.to_wkt(), file.transform, file.shape, str(geobox.crs), geobox.resolution.xy)
    if method not in ("nearest", "bilinear") or (method == "bilinear" and min(scale) < COARSER):
        return _warped(file, band, geobox, method, missing, fill, scale).astype(dtype, copy=False)
    places = places_in(file.crs.to_wkt(), file.transform, geobox)
    if (corner := places.aligned()) is not None:
        return _copied(file, band, geobox, corner, missing, np.dtype(dtype).type(fill))
    window = places.window(file.shape, margin=int(method == "bilinear"))
    if window is None:
        return np.full(geobox.shape, fill, dtype=dtype)
    rows, columns = window
    part = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    source = file.read(band, window=part)
    sample = _nearest if method == "nearest" else _bilinear
    return sample(source, (rows.start, columns.start), places, file.shape, missing, np.dtype(dtype).type(fill))


def _copied(
    file: DatasetReader, band: int, geobox: GeoBox, corner: tuple[int, int], missing: float | None, fill: Any
) -> Array:
    """The window of the source that the grid is, filled where it reaches beyond."""
    height, width = geobox.shape
    top, left = max(corner[0], 0), max(corner[1], 0)
    bottom, right = min(corner[0] + height, file.shape[0]), min(corner[1] + width, file.shape[1])
    if top >= bottom or left >= right:
        return np.full(geobox.shape, fill)
    values: Array = file.read(band, window=Window(left, top, right - left, bottom - top))
    values = values.astype(np.asarray(fill).dtype, copy=False)
    if missing is not None and not _same(missing, fill):
        values[~_known(values, missing)] = fill
    if values.shape == geobox.shape:
        return values
    out = np.full(geobox.shape, fill)
    out[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]] = values
    return out


def _span(places: Array, margin: int, size: int) -> slice:
    return slice(max(int(np.floor(places.min())) - margin, 0), min(int(np.floor(places.max())) + 1 + margin, size))


def places_in(crs: str, transform: Affine, geobox: GeoBox) -> Places:
    """Where the centres of a grid's pixels lie in a source of this CRS (WKT) and transform."""
    x, y = _coordinates(crs, geobox)
    back = ~transform
    if transform.b == 0 and transform.d == 0:
        columns, rows = x * back.a + back.c, y * back.e + back.f
    else:
        columns, rows = back * np.broadcast_arrays(x, y)
    return Places(np.round(rows, _DIGITS), np.round(columns, _DIGITS))


def _coordinates(crs: str, geobox: GeoBox) -> tuple[Array, Array]:
    """Pixel centres in a CRS: (1, w) and (h, 1) where it is the grid's own, else (h, w) each."""
    with _LOCK:
        return _coordinates_once(crs, geobox)


@lru_cache(maxsize=4)
def _coordinates_once(crs: str, geobox: GeoBox) -> tuple[Array, Array]:
    affine = geobox.affine
    x = affine.c + affine.a * (np.arange(geobox.shape.x) + 0.5)[None]
    y = affine.f + affine.e * (np.arange(geobox.shape.y) + 0.5)[:, None]
    if same_crs(crs, str(geobox.crs)):
        return x, y
    every_x, every_y = np.broadcast_arrays(x, y)
    there: tuple[Array, Array] = _transformer(str(geobox.crs), crs).transform(every_x, every_y)
    return there


@lru_cache(maxsize=64)
def same_crs(one: str, other: str) -> bool:
    """True where two CRS put the same numbers at the same place."""
    transformer = _transformer(one, other)
    return transformer.definition == "noop" or transformer.source_crs == transformer.target_crs


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _nearest(
    source: Array, origin: tuple[int, int], places: Places, shape: tuple[int, int], missing: float | None, fill: Any
) -> Array:
    (rows, row_in), (columns, column_in) = _under(places, origin, source.shape, shape)
    out = source[rows, columns].astype(np.asarray(fill).dtype, copy=False)
    inside = row_in & column_in
    if not inside.all():
        out = np.where(inside, out, fill)
    if missing is not None and not _same(missing, fill):
        out = np.where(_known(source, missing)[rows, columns], out, fill)
    return np.ascontiguousarray(out)


def _under(
    places: Places, origin: tuple[int, int], window: tuple[int, ...], shape: tuple[int, int]
) -> tuple[tuple[Array, Bools], tuple[Array, Bools]]:
    """For rows and columns: index in the window of the pixel under each place, and whether that is in the source."""
    return (
        _cells(places.rows + _EDGE, origin[0], window[0], shape[0]),
        _cells(places.columns + _EDGE, origin[1], window[1], shape[1]),
    )


def _cells(places: Array, first: int, size: int, full: int) -> tuple[Array, Bools]:
    """Index of the cell of a window under each place, and whether the place lies in the source at all."""
    with np.errstate(invalid="ignore"):
        inside = (places >= 0) & (places < full)
        cells = np.where(inside, np.floor(places), first).astype(np.intp) - first
    return np.clip(cells, 0, size - 1), inside


def _bilinear(
    source: Array, origin: tuple[int, int], places: Places, shape: tuple[int, int], missing: float | None, fill: Any
) -> Array:
    """Mean of the four pixels around a place by their nearness, over those with a value; none where it lies on none."""
    (top, bottom, down, row_in), (left, right, across, column_in) = (
        _neighbours(place, first, size, full)
        for place, first, size, full in zip((places.rows, places.columns), origin, source.shape, shape, strict=True)
    )
    inside = row_in & column_in
    known = None if missing is None else _known(source, missing)
    work = np.float32 if source.dtype.itemsize < 4 or source.dtype == np.float32 else np.float64
    values = source.astype(work)
    if known is not None and not known.all():
        values[~known] = 0
        weight = _between(known.astype(work), top, bottom, left, right, down, across)
        (rows, _), (columns, _) = _under(places, origin, source.shape, shape)
        inside = inside & known[rows, columns]
        total = _between(values, top, bottom, left, right, down, across)
        mixed = np.divide(total, weight, out=total, where=inside)
    else:
        mixed = _between(values, top, bottom, left, right, down, across)
    dtype = np.asarray(fill).dtype
    if np.issubdtype(dtype, np.integer):
        mixed += work(0.5)
        np.floor(mixed, out=mixed)
    if not inside.all():
        mixed[~inside] = 0
        return np.where(inside, mixed.astype(dtype), fill)
    return mixed.astype(dtype, copy=False)


def _neighbours(places: Array, first: int, size: int, full: int) -> tuple[Array, Array, Array, Bools]:
    """Index of the pixels before and after each place, the share of the one after, and whether it lies in the source.

    At the source's outer edge both are the edge's pixel.
    """
    with np.errstate(invalid="ignore"):
        inside = (places >= 0) & (places < full)
    centred = np.where(inside, places - 0.5, first)
    before = np.floor(centred)
    share = (centred - before).astype(np.float32)
    cells = before.astype(np.intp) - first
    return np.clip(cells, 0, size - 1), np.clip(cells + 1, 0, size - 1), share, inside


def _between(values: Array, top: Array, bottom: Array, left: Array, right: Array, down: Array, across: Array) -> Array:
    if top.shape[1] == left.shape[0] == 1:  # rows and columns apart: first across, then down
        before, after = values[:, left[0]], values[:, right[0]]
        after -= before
        after *= across.astype(values.dtype)
        before += after
        upper, lower = before[top[:, 0]], before[bottom[:, 0]]
    else:
        width = values.shape[1]
        flat, across = values.ravel(), across.astype(values.dtype)
        upper, lower = (_mix(flat[row * width + left], flat[row * width + right], across) for row in (top, bottom))
    return _mix(upper, lower, down.astype(values.dtype))


def _mix(one: Array, other: Array, share: Array) -> Array:
    other -= one
    other *= share
    one += other
    return one


def _known(source: Array, missing: float) -> Bools:
    known = ~np.isnan(source) if np.isnan(missing) else source != missing
    return np.asarray(known, dtype=bool)


def _same(one: float, other: float) -> bool:
    return bool(one == other or (np.isnan(one) and np.isnan(other)))


def _warped(
    file: DatasetReader,
    band: int,
    geobox: GeoBox,
    method: str,
    missing: float | None,
    fill: Any,
    scale: tuple[float, float],
) -> Array:
    """The same through GDAL's warper, exact: no approximate places, one kernel for the whole file."""
    across, down = (1.0 if one >= COARSER else one for one in scale)
    with WarpedVRT(
        file,
        crs=str(geobox.crs),
        transform=geobox.affine,
        width=geobox.shape.x,
        height=geobox.shape.y,
        resampling=Resampling[method],
        src_nodata=missing,
        nodata=fill,
        tolerance=_TOLERANCE,
        XSCALE=across,
        YSCALE=down,
        SOURCE_EXTRA=4,
    ) as warped:
        values: Array = warped.read(band)
    return values


def shrink(file: DatasetReader, geobox: GeoBox) -> int:
    """Whole source pixels per grid pixel, along the side where there are fewer."""
    scale = _scale(file.crs.to_wkt(), file.transform, file.shape, str(geobox.crs), geobox.resolution.xy)
    return int(1 / max(scale) + 0.01)


@lru_cache(maxsize=4096)
def _scale(
    crs: str, transform: Affine, shape: tuple[int, int], grid: str, resolution: tuple[float, float]
) -> tuple[float, float]:
    """Grid pixels per source pixel along columns and rows at the source's centre: the same for every block."""
    x, y = shape[1] / 2, shape[0] / 2
    corners = [transform * at for at in ((x, y), (x + 1, y), (x, y + 1))]
    if same_crs(crs, grid):
        places = np.array(corners)
    else:
        across, down = np.array(corners).T
        places = np.stack(_transformer(crs, grid).transform(across, down), axis=1)
    steps = np.hypot(*(places[1:] - places[0]).T) / abs(resolution[0])
    return (float(steps[0]), float(steps[1])) if np.isfinite(steps).all() else (1.0, 1.0)
