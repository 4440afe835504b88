"""An area of interest in, the ONE GeoBox of a cube out, and its shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box
from pyproj import Transformer
from shapely.errors import GEOSException

from mdico_cube.cube.globe import DEGREES, middle, parts, span
from mdico_cube.cube.tiles import tile_extent
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Area


def grid_for(area: Area) -> GeoBox:
    """The grid of an area: pixel edges at whole multiples of the resolution, covering it to a hundredth of a pixel.

    Raises:
        MdicoError: the CRS is unknown or torn at an antimeridian that the area crosses, there is no such tile, or the
            GeoJSON file cannot be read.
    """
    region = _region(area)
    crs = _utm(region) if area.crs == "auto" else _crs(area.crs)
    if crs.geographic and area.resolution > 1:
        raise MdicoError(
            f"area.resolution {area.resolution:g} is in degrees, as {area.crs} is. Use 0.0001 or another CRS."
        )
    if region.crs == DEGREES and region.boundingbox.right > 180:
        _check_whole(crs, region)
    extent = region.to_crs(crs, resolution=_densify(region)).boundingbox
    return GeoBox.from_bbox(extent, crs=crs, resolution=area.resolution, tight=False)


def _utm(region: Geometry) -> CRS:
    """The UTM zone of a region's centre; a tile's own."""
    if region.crs is not None and not region.crs.geographic:
        return region.crs
    box = region.boundingbox
    return CRS.utm(middle(box.left, box.right), (box.bottom + box.top) / 2)


def _check_whole(crs: CRS, region: Geometry) -> None:
    """Raise MdicoError where a CRS puts the two sides of the antimeridian apart."""
    box = region.boundingbox
    to_crs = Transformer.from_crs(DEGREES, str(crs), always_xy=True)
    lat = (box.bottom + box.top) / 2
    (x, other_x), (y, other_y) = to_crs.transform([179.9999, -179.9999], [lat, lat])
    if crs.geographic or not np.hypot(x - other_x, y - other_y) < 1000:
        raise MdicoError(
            f"area: crosses the antimeridian, where {crs} is torn. Leave area.crs out for the UTM zone, or name a CRS "
            "that is whole there."
        )


def _crs(code: str) -> CRS:
    try:
        crs = CRS(code)
    except Exception as error:
        raise MdicoError(f"area.crs {code!r}: is no known CRS. Write a code such as EPSG:32631.") from error
    if not (crs.projected or crs.geographic):
        raise MdicoError(f"area.crs {code!r}: is no CRS of a map. Write a code such as EPSG:32631.")
    return crs


def _region(area: Area) -> Geometry:
    if area.bbox is not None:
        west, south, east, north = area.bbox
        return box(west, south, east + 360 * (east < west), north, DEGREES)
    if area.tile is not None:
        code, extent = tile_extent(area.tile)
        return box(*extent, f"EPSG:{code}")
    if area.bounds is not None:
        return box(*area.bounds, _crs(area.crs))
    assert area.geojson is not None
    try:
        content = json.loads(area.geojson.read_text(encoding="utf-8"))
        geometries = [part.get("geometry", part) for part in content.get("features", [content])]
        extents = [BoundingBox(*part.bounds) for part in parts(geometries)]
        if not extents:
            raise ValueError("it has no geometry")
        if any(max(abs(e.left), abs(e.right)) > 180 or max(abs(e.bottom), abs(e.top)) > 90 for e in extents):
            raise ValueError("its coordinates are not degrees")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, GEOSException) as error:
        raise MdicoError(
            f"area.geojson {area.geojson}: cannot be read as GeoJSON ({error}). Give a GeoJSON file in degrees."
        ) from error
    left, right = span([(e.left, e.right) for e in extents])
    return box(left, min(e.bottom for e in extents), right, max(e.top for e in extents), DEGREES)


def _densify(region: Geometry) -> float:
    extent: BoundingBox = region.boundingbox
    return max(extent.span_x, extent.span_y) / 50


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard-aligned block of a grid."""

    row: int
    column: int
    y: slice
    """Rows of the grid."""
    x: slice
    """Columns of the grid."""


def shards(shape: tuple[int, int], side: int) -> Iterator[Shard]:
    """Shards of a grid of (y, x) pixels in row order: they cover every pixel exactly once; edge shards are smaller."""
    for row, top in enumerate(range(0, shape[0], side)):
        for column, left in enumerate(range(0, shape[1], side)):
            yield Shard(row, column, slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1])))
