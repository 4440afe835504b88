"""The landscape's relief in, Copernicus-like elevation tiles out: EPSG:4326, one arc second, cut at full degrees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from pyproj import Transformer

from mdico_cube.demo.catalog import COG, Collection, Picture, Scene
from mdico_cube.demo.landscape import CRS, Landscape
from mdico_cube.demo.matrix import bilinear
from mdico_cube.demo.noise import generator
from mdico_cube.demo.sampling import Grid, grid_over, positions
from mdico_cube.demo.world import World
from mdico_cube.spec import Floats

SECOND = 1 / 3600
MARGIN = 150.0
"""Metres of elevation on every side of the region, so that slopes can be taken at its edge."""
COLLECTION = Collection(
    id="cop-dem-glo-30",
    title="Copernicus DEM GLO-30 (simulated)",
    description="Simulated elevation in metres on one arc second in EPSG:4326, one tile per degree.",
    keywords=("DEM", "elevation", "simulated"),
    summaries={"platform": ["TanDEM-X"], "gsd": [30]},
    extensions=("proj", "raster"),
    item_assets={
        "data": {
            "type": COG,
            "roles": ["data"],
            "title": "Elevation",
            "raster:bands": [{"data_type": "float32", "unit": "metre", "spatial_resolution": 30}],
        }
    },
)


def scenes(world: World) -> list[Callable[[], Scene]]:
    """One job per full degree that the region touches."""
    left, bottom, right, top = world.landscape.frame.bounds
    outline = (left - MARGIN, bottom - MARGIN, right + MARGIN, top + MARGIN)
    west, south, east, north = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform_bounds(*outline)
    jobs = []
    for lat in range(int(np.floor(south)), int(np.ceil(north))):
        for lon in range(int(np.floor(west)), int(np.ceil(east))):
            part = (max(west, lon), max(south, lat), min(east, lon + 1), min(north, lat + 1))
            jobs.append(_job(world, _tile(part), lat, lon))
    return jobs


def _tile(bounds: tuple[float, float, float, float]) -> Grid:
    """The part of a tile's grid over bounds; pixel centres stand on whole seconds, so the tile starts half before."""
    return grid_over(bounds, "EPSG:4326", SECOND, -SECOND / 2, SECOND)


def _job(world: World, grid: Grid, lat: int, lon: int) -> Callable[[], Scene]:
    name = f"Copernicus_DSM_COG_10_N{lat:02d}_00_E{lon:03d}_00_DEM"
    return lambda: Scene(
        id=name,
        time=pd.Timestamp("2021-04-22"),
        properties={
            "gsd": 30,
            "platform": "TanDEM-X",
            "proj:code": "EPSG:4326",
            "proj:shape": list(grid.shape),
            "proj:transform": [*grid.transform][:6],
        },
        assets={"data": Picture(_elevation(world.seed, world.landscape, grid, name), grid, None, {})},
        footprint=("EPSG:4326", grid.bounds),
    )


def _elevation(seed: int, landscape: Landscape, grid: Grid, name: str) -> Floats:
    """(H, W) metres with half a metre of noise."""
    lon = grid.left + (np.arange(grid.cols) + 0.5) * grid.step
    lat = grid.top - (np.arange(grid.rows) + 0.5) * grid.step
    x, y = np.meshgrid(lon, lat)
    row, col = positions(landscape, grid.crs, x, y)
    weights = bilinear(row.ravel(), col.ravel(), landscape.frame.cells)
    height = (weights @ landscape.elevation.ravel()).reshape(grid.shape)
    noise = generator(seed, "dem", name).standard_normal(height.shape)
    return np.asarray(height + 0.5 * noise, dtype=np.float32)
