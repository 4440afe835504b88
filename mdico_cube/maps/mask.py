"""A file of polygons and a block of a grid in, the pixels inside them out: decided at each pixel's centre alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from mdico_cube.errors import MdicoError
from mdico_cube.patches.vectors import file_digest, on_crs, read_vectors
from mdico_cube.spec import Bools

_WHAT = "maps.mask"


@dataclass(frozen=True, slots=True)
class AreaMask:
    """Polygons outside of which nothing is mapped: where their file is, and what it held."""

    path: Path
    digest: str

    def inside(self, geobox: GeoBox, y: slice, x: slice) -> Bools:
        """(h, w) True where a pixel's centre lies inside; the same for any block that holds the pixel.

        Args:
            geobox: the whole grid.
            y: rows of the block.
            x: columns of the block.

        Raises:
            MdicoError: the file changed since the mask was made, or cannot be read.
        """
        area, shape = _area(self.path, self.digest, str(geobox.crs)), (y.stop - y.start, x.stop - x.start)
        corners = [geobox.affine * (column, row) for row in (y.start, y.stop) for column in (x.start, x.stop)]
        block = shapely.MultiPoint(corners).convex_hull
        if not shapely.intersects(area, block):
            return np.zeros(shape, np.bool_)
        if shapely.contains_properly(area, block):
            return np.ones(shape, np.bool_)
        columns, rows = np.meshgrid(np.arange(x.start, x.stop) + 0.5, np.arange(y.start, y.stop) + 0.5)
        found: Bools = shapely.contains_xy(area, *(geobox.affine * (columns, rows)))
        return found


def area_mask(path: Path, geobox: GeoBox) -> AreaMask:
    """A mask for one grid.

    Raises:
        MdicoError: the file is missing, holds no polygon, or none that meets the grid.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise MdicoError(f"{_WHAT} {path}: no such file. Give a vector file with polygons.")
    mask = AreaMask(path, file_digest(path))
    corners = [geobox.affine * (column, row) for row in (0, geobox.shape[0]) for column in (0, geobox.shape[1])]
    if not shapely.intersects(_area(path, mask.digest, str(geobox.crs)), shapely.MultiPoint(corners).convex_hull):
        raise MdicoError(f"{_WHAT} {path}: none of its polygons meets the cube. Check the file's place and CRS.")
    return mask


@lru_cache(maxsize=4)
def _area(path: Path, digest: str, crs: str) -> BaseGeometry:
    """All polygons of the file as one prepared area in a CRS; read once per process."""
    if file_digest(path) != digest:
        raise MdicoError(f"{_WHAT} {path}: changed while the map was being made. Start the map again.")
    frame: gpd.GeoDataFrame = on_crs(read_vectors(path, _WHAT), crs)
    if not np.isfinite(shapely.get_coordinates(frame.geometry.to_numpy())).all():
        raise MdicoError(f"{_WHAT} {path}: its coordinates do not lie in the CRS it names. Write it with its own CRS.")
    shapes = shapely.make_valid(frame.geometry.to_numpy())
    flat = [shape for shape in shapely.get_parts(shapes) if shape.geom_type in ("Polygon", "MultiPolygon")]
    if not flat:
        raise MdicoError(f"{_WHAT} {path}: holds no polygon. Give a vector file with polygons.")
    area: BaseGeometry = shapely.union_all(flat)
    shapely.prepare(area)
    return area
