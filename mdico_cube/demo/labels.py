"""A landscape in, what is known on the ground out: parcel polygons with their crop, and the true class raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from geopandas import GeoDataFrame, GeoSeries
from rasterio import features

from mdico_cube.demo.landscape import ARABLE, CELL, CLASSES, CRS, GRASS, Landscape
from mdico_cube.demo.noise import generator
from mdico_cube.demo.raster import write_cog
from mdico_cube.demo.sampling import Grid
from mdico_cube.spec import Array

NODATA = 255


def write_labels(folder: Path, landscape: Landscape, seed: int, noise: float) -> None:
    """Write parcels.gpkg and truth.tif into a folder.

    Args:
        folder: made if it is not there.
        landscape: the truth.
        seed: draws the wrong labels.
        noise: share of parcels whose crop in parcels.gpkg is wrong; truth.tif stays right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = landscape.frame
    grid = Grid(CRS, frame.left, frame.top, 10.0, frame.size, frame.size)
    write_cog(folder / "truth.tif", landscape.truth(), grid, NODATA, CLASSES)
    path = folder / "parcels.gpkg"
    path.unlink(missing_ok=True)
    parcel_table(landscape, seed, noise).to_file(path, layer="parcels", driver="GPKG")


def parcel_table(landscape: Landscape, seed: int, noise: float) -> GeoDataFrame:
    """One row per parcel of the region: `parcel` id, `crop` as declared, `area_ha`, and its outline in EPSG:32631."""
    frame = landscape.frame
    grid = Grid(CRS, frame.left, frame.top, CELL, 2 * frame.size, 2 * frame.size)
    inner = landscape.parcel[frame.inner]
    pieces = features.shapes(inner, mask=landscape.labelled[inner], connectivity=4, transform=grid.transform)
    rings, ids = zip(*((_polygon(outline), int(value)) for outline, value in pieces), strict=True)
    whole = GeoDataFrame({"parcel": ids}, geometry=list(rings), crs=CRS).dissolve("parcel").reset_index()
    smooth = shapely.coverage_simplify(whole.geometry.values, 1.3 * CELL, simplify_boundary=False)
    table = GeoDataFrame({"parcel": whole["parcel"]}, geometry=GeoSeries(smooth, crs=CRS))
    declared = declare(landscape.kind[table["parcel"].to_numpy()], seed, noise)
    table["crop"] = [CLASSES[index].name for index in declared]
    table["area_ha"] = (table.area / 1e4).round(3)
    return table[["parcel", "crop", "area_ha", "geometry"]]


def declare(kind: Array, seed: int, noise: float) -> Array:
    """(P,) declared class: `noise` of the parcels carry a wrong one; crops and grass are mistaken for each other."""
    rng = generator(seed, "label noise")
    wrong = rng.permutation(kind.size)[: round(noise * kind.size)]
    declared = kind.astype(np.int64)
    for row in wrong:
        pool = (*ARABLE, GRASS) if kind[row] in (*ARABLE, GRASS) else tuple(range(len(CLASSES)))
        declared[row] = rng.choice([other for other in pool if other != kind[row]])
    return declared


def _polygon(outline: dict[str, Any]) -> Any:
    rings = outline["coordinates"]
    return shapely.Polygon(rings[0], rings[1:])
