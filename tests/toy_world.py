"""The toy world of the tests: a static STAC catalog of GeoTIFFs whose every pixel is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from rasterio.transform import Affine

BOUNDS = (700000.0, 5600000.0, 700960.0, 5600640.0)
SIZE = (64, 96)
STEPS = 3
S2_BANDS = ("B04", "B08")


class World:
    """A static STAC catalog being written: one GeoTIFF per asset, one item per scene."""

    def __init__(self, folder: Path, grid: GeoBox) -> None:
        self.folder, self.grid = folder, grid
        self.catalog = pystac.Catalog("toy", "A toy catalog.")

    def collection(self, name: str) -> pystac.Collection:
        extent = pystac.Extent(
            pystac.SpatialExtent([[5.8, 50.4, 5.9, 50.6]]),
            pystac.TemporalExtent([[pystac.utils.str_to_datetime("2021-01-01T00:00:00Z"), None]]),
        )
        collection = pystac.Collection(name, name, extent)
        self.catalog.add_child(collection)
        return collection

    def item(
        self,
        collection: pystac.Collection,
        name: str,
        when: str,
        assets: dict[str, np.ndarray[Any, Any]],
        properties: dict[str, Any] | None = None,
        nodata: float | None = 0,
        grid: GeoBox | None = None,
    ) -> pystac.Item:
        grid = grid or self.grid
        folder = self.folder / collection.id / name
        folder.mkdir(parents=True)
        outline = grid.extent.to_crs("EPSG:4326")
        item = pystac.Item(
            name,
            outline.json,
            list(outline.boundingbox.bbox),
            pystac.utils.str_to_datetime(when),
            {"proj:code": str(grid.crs), **(properties or {})},
        )
        for key, values in assets.items():
            path = folder / f"{key}.tif"
            write_tiff(path, values, grid, nodata)
            item.add_asset(key, pystac.Asset(str(path), media_type=pystac.MediaType.COG))
        collection.add_item(item)
        return item

    def save(self) -> Path:
        self.catalog.normalize_and_save(str(self.folder), pystac.CatalogType.SELF_CONTAINED)
        return self.folder / "catalog.json"


def write_tiff(path: Path, values: np.ndarray[Any, Any], grid: GeoBox, nodata: float | None = None) -> None:
    step = grid.affine * Affine.scale(grid.shape.x / values.shape[1], grid.shape.y / values.shape[0])
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype,
        crs=str(grid.crs), transform=step, nodata=nodata, tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(values, 1)


def outline(grid: GeoBox) -> Geometry:
    return grid.extent.to_crs("EPSG:4326")


def toy_counts(month: int, day: int, band: str) -> np.ndarray[Any, Any]:
    """Harmonised counts of a toy Sentinel-2 scene (y, x)."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return 500 * month + 7 * day + 3 * rows + 5 * columns + (1500 if band == "B08" else 0)
