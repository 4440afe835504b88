"""An area of interest in, the ONE GeoBox of a cube out, and its shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Area


def grid_for(area: Area) -> GeoBox:
    """The grid of an area: pixel edges at whole multiples of the resolution, covering it to a hundredth of a pixel.

    Raises:
        MdicoError: the CRS is unknown, or the GeoJSON file cannot be read.
    """
    region = _region(area)
    crs = CRS.utm(region) if area.crs == "auto" else _crs(area.crs)
    if crs.geographic and area.resolution > 1:
        raise MdicoError(
            f"area.resolution {area.resolution:g} is in degrees, as {area.crs} is. Use 0.0001 or another CRS."
        )
    extent = region.to_crs(crs, resolution=_densify(region)).boundingbox
    return GeoBox.from_bbox(extent, crs=crs, resolution=area.resolution, tight=False)


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
        return box(*area.bbox, "EPSG:4326")
    if area.bounds is not None:
        return box(*area.bounds, _crs(area.crs))
    assert area.geojson is not None
    try:
        content = json.loads(area.geojson.read_text(encoding="utf-8"))
        geometries = [part.get("geometry", part) for part in content.get("features", [content])]
        extents = [Geometry(geometry, "EPSG:4326").boundingbox for geometry in geometries]
        if not extents:
            raise ValueError("it has no geometry")
        if any(max(abs(e.left), abs(e.right)) > 180 or max(abs(e.bottom), abs(e.top)) > 90 for e in extents):
            raise ValueError("its coordinates are not degrees")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise MdicoError(
            f"area.geojson {area.geojson}: cannot be read as GeoJSON ({error}). Give a GeoJSON file in degrees."
        ) from error
    left, bottom = min(e.left for e in extents), min(e.bottom for e in extents)
    right, top = max(e.right for e in extents), max(e.top for e in extents)
    return box(left, bottom, right, top, "EPSG:4326")


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
