"""An open raster file and a grid in, its pixels there out: exact positions, whatever block of the grid is asked for.

GDAL's warper places pixels to an eighth of a source pixel and picks its kernel anew for every block, so blocks differ
from the whole at their edges. Here every pixel's place in the source is computed by itself; nearest and bilinear values
are then plain array look-ups. Other methods go through GDAL with its shortcuts switched off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mdico_cube.cube.align import Places, places_in, scale
from mdico_cube.spec import Array, Bools, alike

COARSER = 0.95
"""Grid pixels per source pixel below which the kernel is widened to all source pixels that it covers."""
_EDGE = 1e-10
"""GDAL's: a place this close below a pixel's edge counts as on it."""
_TOLERANCE = 1e-12
"""Source pixels by which GDAL may misplace a pixel: so little that it computes each (0 is refused)."""


def read_pixels(
    file: DatasetReader,
    band: int,
    geobox: GeoBox,
    method: str,
    missing: float | None,
    fill: Any,
    dtype: str,
    out: Array | None = None,
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
        out: (h, w) of that type to write into; None makes a new one.

    Raises:
        CRSError: the file does not say where it is.
    """
    if file.crs is None:
        raise CRSError(f"{file.name} has no CRS")
    if out is None:
        out = np.empty(geobox.shape, dtype=dtype)
    crs, transform = file.crs.to_wkt(), file.transform
    wide = scale(crs, transform, file.shape, str(geobox.crs), geobox.resolution.xy)
    if method not in ("nearest", "bilinear") or (method == "bilinear" and min(wide) < COARSER):
        np.copyto(out, _warped(file, band, geobox, method, missing, fill, wide), casting="unsafe")
        return out
    fill = out.dtype.type(fill)
    places = places_in(crs, transform, geobox)
    if (corner := places.aligned()) is not None:
        _copy(file, band, corner, missing, fill, out)
        return out
    window = places.window(file.shape, margin=int(method == "bilinear"))
    if window is None:
        out.fill(fill)
        return out
    rows, columns = window
    part = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    source = file.read(band, window=part)
    sample = _nearest if method == "nearest" else _bilinear
    sample(source, (rows.start, columns.start), places, file.shape, missing, fill, out)
    return out


def _copy(
    file: DatasetReader, band: int, corner: tuple[int, int], missing: float | None, fill: Any, out: Array
) -> None:
    """The window of the source that the grid is, filled where it reaches beyond."""
    height, width = out.shape
    top, left = max(corner[0], 0), max(corner[1], 0)
    bottom, right = min(corner[0] + height, file.shape[0]), min(corner[1] + width, file.shape[1])
    if (bottom - top, right - left) != out.shape:
        out.fill(fill)
    if top >= bottom or left >= right:
        return
    inner = out[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]
    window = Window(left, top, right - left, bottom - top)
    if file.dtypes[band - 1] == out.dtype.name:
        file.read(band, window=window, out=inner)
    else:
        np.copyto(inner, file.read(band, window=window), casting="unsafe")
    if missing is not None and not _same(missing, fill):
        np.copyto(inner, fill, where=~_known(inner, missing))


def _nearest(
    source: Array,
    origin: tuple[int, int],
    places: Places,
    shape: tuple[int, int],
    missing: float | None,
    fill: Any,
    out: Array,
) -> None:
    (rows, row_in), (columns, column_in) = _under(places, origin, source.shape, shape)
    hidden = None if missing is None or _same(missing, fill) else ~_known(source, missing)
    if places.parallel:
        np.copyto(out, source.take(columns[0], 1).take(rows[:, 0], 0), casting="unsafe")
    else:
        np.copyto(out, source[rows, columns], casting="unsafe")
    if hidden is not None and hidden.any():
        np.copyto(out, fill, where=hidden[rows, columns])
    inside = row_in & column_in
    if not inside.all():
        np.copyto(out, fill, where=~inside)


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
    source: Array,
    origin: tuple[int, int],
    places: Places,
    shape: tuple[int, int],
    missing: float | None,
    fill: Any,
    out: Array,
) -> None:
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
    if np.issubdtype(out.dtype, np.integer):
        mixed += work(0.5)
        np.floor(mixed, out=mixed)
    whole = bool(inside.all())
    if not whole:
        mixed[~inside] = 0
    np.copyto(out, mixed, casting="unsafe")
    if not whole:
        np.copyto(out, fill, where=~inside)


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
        before, after = values.take(left[0], 1), values.take(right[0], 1)
        after -= before
        after *= across.astype(values.dtype)
        before += after
        upper, lower = before.take(top[:, 0], 0), before.take(bottom[:, 0], 0)
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
    known = ~np.isnan(source) if np.isnan(missing) else source != alike(missing, source)
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
    wide: tuple[float, float],
) -> Array:
    """The same through GDAL's warper, exact: no approximate places, one kernel for the whole file."""
    across, down = (1.0 if one >= COARSER else one for one in wide)
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
    wide = scale(file.crs.to_wkt(), file.transform, file.shape, str(geobox.crs), geobox.resolution.xy)
    return int(1 / max(wide) + 0.01)
