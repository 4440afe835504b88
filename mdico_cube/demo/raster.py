"""An array and its grid in, a Cloud-Optimized GeoTIFF out."""

from __future__ import annotations

from pathlib import Path

import rasterio

from mdico_cube.demo.sampling import Grid
from mdico_cube.spec import Array, LabelClass

BLOCK = 256


def write_cog(path: Path, array: Array, grid: Grid, nodata: float | None, legend: tuple[LabelClass, ...] = ()) -> None:
    """Write one band (H, W) with the GDAL COG driver; `legend` becomes the colour table of a uint8 raster."""
    rows, cols = array.shape
    options = {"nodata": nodata, "compress": "DEFLATE", "level": 4, "blocksize": BLOCK}
    options["overviews"] = "NONE" if max(rows, cols) <= 4 * BLOCK else "AUTO"
    if array.dtype.kind in "ui" and not legend:
        options["predictor"] = "STANDARD"
    profile = {"height": rows, "width": cols, "count": 1, "dtype": array.dtype, "crs": grid.crs}
    with rasterio.open(path, "w", driver="COG", transform=grid.transform, **profile, **options) as file:
        file.write(array, 1)
        if legend:
            file.write_colormap(1, {entry.value: _rgb(entry.color) for entry in legend})


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
