"""An open raster file and a grid in, its pixels there out: exact positions, whatever block of the grid is asked for.

GDAL's warper places pixels to an eighth of a source pixel and picks its kernel anew for every block, so blocks differ
from the whole at their edges. Here every pixel's place in the source is computed by itself; nearest and bilinear values
are then plain array look-ups. Other methods go through GDAL with its shortcuts switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mdico_cube.cube.align import Places, places_in
from mdico_cube.cube.frame import COARSER, Frame, frame_of
from mdico_cube.spec import Array, Bools, alike

_STRIP = 1 << 15
"""Pixels that are worked on at once."""
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
    frame: Frame | None = None,
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
        frame: where the file lies, if that is known; it needs to say so itself only where its `frame.warps`.

    Raises:
        CRSError: the file does not say where it is.
    """
    frame = frame or frame_of(file)
    if out is None:
        out = np.empty(geobox.shape, dtype=dtype)
    if frame.warps(geobox, method):
        np.copyto(out, _warped(file, band, geobox, method, missing, fill, frame.wide(geobox)), casting="unsafe")
        return out
    fill = out.dtype.type(fill)
    places = places_in(frame.crs, frame.transform, geobox)
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
    hidden = None if missing is None or _same(missing, fill) else ~_known(source, missing)
    taken, inside = _taken(source, places, origin, shape)
    np.copyto(out, taken, casting="unsafe")
    if hidden is not None and hidden.any():
        np.copyto(out, fill, where=_taken(hidden, places, origin, shape)[0])
    if not inside.all():
        np.copyto(out, fill, where=~inside)


def _taken(window: Array, places: Places, origin: tuple[int, int], shape: tuple[int, int]) -> tuple[Array, Bools]:
    """The pixel of a window under each place, and whether that place is in the source at all."""
    rows, row_in = _cells(places.rows + _EDGE, origin[0], window.shape[0], shape[0])
    columns, column_in = _cells(places.columns + _EDGE, origin[1], window.shape[1], shape[1])
    taken = window.take(columns[0], 1).take(rows[:, 0], 0) if places.parallel else window[rows, columns]
    return taken, np.logical_and(row_in, column_in)


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
    """Mean of the four pixels around a place by their nearness, over those with a value; none where it lies on none.

    It goes strip by strip, so that what is worked on stays in the processor's cache.
    """
    known = None if missing is None else _known(source, missing)
    work = np.float32 if source.dtype.itemsize < 4 or source.dtype == np.float32 else np.float64
    planes = [source.astype(work)]
    if known is not None and known.all():
        known = None
    if known is not None:
        planes[0][~known] = 0
        planes.append(known.astype(work))
    if places.parallel:  # rows and columns apart: first across, then down
        columns = _neighbours(places.columns, origin[1], source.shape[1], shape[1])
        planes = [_mixed(plane, columns, axis=1) for plane in planes]
    rows = max(1, _STRIP // out.shape[1])
    for start in range(0, out.shape[0], rows):
        part = slice(start, start + rows)
        strip = Places(places.rows[part], places.columns if places.parallel else places.columns[part])
        mixed, inside = _between(planes, strip, origin, source.shape, shape)
        if known is not None:
            inside &= _taken(known, strip, origin, shape)[0]
            np.divide(mixed[0], mixed[1], out=mixed[0], where=inside)
        _put(mixed[0], inside, fill, source.dtype.kind != "u", out[part])


def _put(values: Array, inside: Bools, fill: Any, signed: bool, out: Array) -> None:
    """Values, rounded half up for integers, where they are inside, and `fill` elsewhere; what comes in is used up."""
    if out.dtype.kind in "iu":
        values += values.dtype.type(0.5)
        if signed:  # what is not below zero is cut off downwards by the conversion
            np.floor(values, out=values)
    whole = bool(inside.all())
    if not whole:
        outside = ~inside
        np.copyto(values, 0, where=outside)
    np.copyto(out, values, casting="unsafe")
    if not whole:
        np.copyto(out, fill, where=outside)


class _Pair(NamedTuple):
    """The pixels before and after each place along one axis."""

    before: Array
    after: Array
    share: Array
    """Of the one after."""
    inside: Bools
    """True where the place lies in the source."""


def _neighbours(places: Array, first: int, size: int, full: int) -> _Pair:
    """Indices into a window of `size` pixels from `first` on; at the source's outer edge both are the edge's pixel."""
    with np.errstate(invalid="ignore"):
        inside = (places >= 0) & (places < full)
    centred = np.where(inside, places - 0.5, first)
    before = np.floor(centred)
    share = (centred - before).astype(np.float32)
    cells = before.astype(np.intp) - first
    return _Pair(np.clip(cells, 0, size - 1), np.clip(cells + 1, 0, size - 1), share, inside)


def _between(
    planes: Sequence[Array], places: Places, origin: tuple[int, int], window: tuple[int, ...], shape: tuple[int, int]
) -> tuple[list[Array], Bools]:
    """Planes at some places, and which of these lie in the source.

    Where rows and columns are apart, each plane stands at the places' columns already.
    """
    rows = _neighbours(places.rows, origin[0], window[0], shape[0])
    columns = _neighbours(places.columns, origin[1], window[1], shape[1])
    inside = np.logical_and(rows.inside, columns.inside)
    if places.parallel:
        return [_mixed(plane, rows, axis=0) for plane in planes], inside
    width = window[1]
    corners = [(row * width + columns.before, row * width + columns.after) for row in (rows.before, rows.after)]
    found = []
    for plane in planes:
        flat = plane.ravel()
        upper, lower = (_mix(flat[left], flat[right], columns.share) for left, right in corners)
        found.append(_mix(upper, lower, rows.share))
    return found, inside


def _mixed(plane: Array, pair: _Pair, axis: int) -> Array:
    """A plane at places along one axis."""
    before, after = pair.before.ravel(), pair.after.ravel()
    return _mix(plane.take(before, axis), plane.take(after, axis), pair.share)


def _mix(one: Array, other: Array, share: Array) -> Array:
    other -= one
    other *= share.astype(one.dtype, copy=False)
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
