"""Shapes in degrees in; the same without a jump at the antimeridian out, or cut there as catalogs want them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj import Transformer

DEGREES = "EPSG:4326"
_POINTS = 21
"""Points along each side of a grid's outline."""


def unwrapped(geometry: Any, near: float) -> Geometry:
    """A GeoJSON geometry with longitudes that do not jump: each ring begins within 180 degrees of `near`.

    A ring that holds both -180 and 180 spans the whole world and is left as it is.
    """

    def smooth(coordinates: Any) -> Any:
        lon = coordinates[:, 0].copy()
        if np.isclose(lon.max() - lon.min(), 360):
            return coordinates
        lon[0] = near + _turn(lon[0] - near)
        lon[1:] = lon[0] + np.cumsum(_turn(np.diff(coordinates[:, 0])))
        return np.column_stack([lon, coordinates[:, 1:]])

    shape = shapely.force_2d(shapely.geometry.shape(geometry))
    rings = [_mapped(part, smooth) for part in getattr(shape, "geoms", [shape])]
    return Geometry(shapely.unary_union([shapely.make_valid(ring) for ring in rings]), DEGREES)


def _mapped(shape: Any, smooth: Any) -> Any:
    if not isinstance(shape, shapely.Polygon):
        return shapely.transform(shape, smooth)
    return shapely.Polygon(
        smooth(shapely.get_coordinates(shape.exterior)),
        [smooth(shapely.get_coordinates(ring)) for ring in shape.interiors],
    )


def _turn(degrees: Any) -> Any:
    """Differences of longitude as -180 <= d < 180."""
    return (degrees + 180) % 360 - 180


def cut(shape: Geometry) -> Geometry:
    """A shape with longitudes beyond 180 or -180 as one within them: a MultiPolygon over the antimeridian."""
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        window = shapely.box(-180 + turn, -90, 180 + turn, 90)
        piece = shapely.intersection(shape.geom, window)
        if piece.area > 0 or (turn == 0 and not piece.is_empty):
            pieces.append(shapely.transform(piece, lambda at, turn=turn: at - [turn, 0]))
    whole = shapely.unary_union(pieces)
    polygons = [part for part in getattr(whole, "geoms", [whole]) if part.area > 0]
    return Geometry(polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons), DEGREES)


def outline(geobox: GeoBox) -> Geometry:
    """A grid's outline in degrees, cut at the antimeridian."""
    ring = geobox.extent.geom.exterior.segmentize(max(geobox.boundingbox.span_x, geobox.boundingbox.span_y) / _POINTS)
    lon, lat = Transformer.from_crs(str(geobox.crs), DEGREES, always_xy=True).transform(*np.array(ring.coords).T)
    shape = {"type": "Polygon", "coordinates": [np.column_stack([lon, lat]).tolist()]}
    return cut(unwrapped(shape, near=float(lon[0])))


def touches(geometry: Any, area: Geometry) -> bool:
    """True where a GeoJSON geometry and an outline share a point, on whichever side of the antimeridian."""
    near = float(shapely.get_coordinates(area.geom)[0, 0])
    return bool(unwrapped(geometry, near).geom.intersects(unwrapped(area.json, near).geom))


def span(extents: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The shortest span of longitudes, west to east, over all of these; its east exceeds 180 over the antimeridian."""
    ordered = sorted(extents)
    gaps: list[tuple[float, float]] = []
    east = ordered[0][1]
    for west, next_east in ordered[1:]:
        gaps.append((west - east, west))
        east = max(east, next_east)
    around = ordered[0][0] + 360 - east
    gap, west = max(gaps, default=(-1.0, 0.0))
    if gap <= around:
        return ordered[0][0], east
    return west, max(end for start, end in ordered if start < west) + 360


def middle(west: float, east: float) -> float:
    """The longitude in the middle of a span, within -180 and 180."""
    return float(_turn((west + east) / 2))


def parts(collection: Iterable[Any]) -> Iterable[Any]:
    """Every single geometry of GeoJSON geometries."""
    for geometry in collection:
        shape = shapely.geometry.shape(geometry)
        yield from getattr(shape, "geoms", [shape])
