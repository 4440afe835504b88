"""A planned modality in, its scenes or its store as a lazy Dataset out: for people who look around before a build."""

from __future__ import annotations

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from mdico_cube.cube.cells import CoarseStore
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.read import open_scenes
from mdico_cube.cube.weather import WeatherPlan


def lazy_scenes(layer: LayerPlan, geobox: GeoBox, chunk: int) -> xr.Dataset:
    """Scenes of a modality as (time, y, x) per asset, in the source's counts, chunked with Dask and not yet read."""
    assets = tuple(dict.fromkeys((*layer.assets, *layer.quality_assets)))
    items = [scene.item for scene in layer.scenes]
    dataset = open_scenes(
        items,
        assets,
        geobox,
        dtype=layer.sensor.raw_dtype,
        nodata=layer.source.nodata,
        resampling=dict.fromkeys(assets, "nearest"),
        access=layer.access,
        reading=layer.reading,
        chunks={"x": chunk, "y": chunk},
    )
    names = np.array([item.id for item in items], dtype=object)
    steps = np.array([layer.steps[scene.step] for scene in layer.scenes], dtype=object)
    return dataset.assign_coords(item=("time", names), step=("time", steps))


def lazy_weather(plan: WeatherPlan, geobox: GeoBox) -> xr.Dataset:
    """The cells of a coarse modality's first store around the area, in the source's names and units, not yet read."""
    store = CoarseStore(plan.items[0], plan.rules.asset, plan.rules, plan.access, plan.reading)
    return store.window(store.around(geobox))
