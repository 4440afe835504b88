"""The world in, Landsat 8 and 9 Collection 2 Level-2 scenes out: 30 m surface reflectance with QA_PIXEL."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from mdico_cube.demo.catalog import COG, Collection, Json, Picture, Scene
from mdico_cube.demo.landscape import CRS
from mdico_cube.demo.noise import generator
from mdico_cube.demo.optics import date_tint, look, quality_bits
from mdico_cube.demo.sampling import Footprints, footprints, grid_over
from mdico_cube.demo.sky import draw_sky
from mdico_cube.demo.spectra import surface
from mdico_cube.demo.world import World
from mdico_cube.spec import Array

SCALE, SHIFT = 2.75e-05, -0.2
"""Reflectance = DN x SCALE + SHIFT."""
BANDS = {
    "blue": ("OLI_B2", "B02", 0.480, 0.060),
    "green": ("OLI_B3", "B03", 0.560, 0.060),
    "red": ("OLI_B4", "B04", 0.655, 0.040),
    "nir08": ("OLI_B5", "B8A", 0.865, 0.030),
    "swir16": ("OLI_B6", "B11", 1.610, 0.090),
    "swir22": ("OLI_B7", "B12", 2.200, 0.180),
}
"""Asset -> sensor's name, the spectrum's band it resembles, centre and width in micrometres."""
RESPONSE = np.array((0.98, 1.01, 0.99, 1.005, 0.99, 0.97), dtype=np.float32)
"""What its slightly different bands see against Sentinel-2's."""


def _asset(name: str) -> Json:
    sensor, _, centre, width = BANDS[name]
    return {
        "type": COG,
        "roles": ["data", "reflectance"],
        "title": f"{name} band",
        "eo:bands": [{"name": sensor, "common_name": name, "center_wavelength": centre, "full_width_half_max": width}],
        "raster:bands": [
            {"data_type": "uint16", "nodata": 0, "scale": SCALE, "offset": SHIFT, "spatial_resolution": 30}
        ],
    }


COLLECTION = Collection(
    id="landsat-c2-l2",
    title="Landsat 8-9 Collection 2 Level-2 (simulated)",
    description="Simulated surface reflectance at 30 m, DN x 2.75e-5 - 0.2, with QA_PIXEL bits.",
    keywords=("Landsat", "reflectance", "simulated"),
    summaries={"platform": ["landsat-8", "landsat-9"], "instruments": ["oli", "tirs"], "gsd": [30]},
    extensions=("eo", "view", "proj", "raster"),
    item_assets={
        **{name: _asset(name) for name in BANDS},
        "qa_pixel": {
            "type": COG,
            "roles": ["cloud", "cloud-shadow", "snow-ice", "water-mask"],
            "title": "Pixel Quality Assessment Band",
            "raster:bands": [{"data_type": "uint16", "nodata": 1, "unit": "bit index", "spatial_resolution": 30}],
        },
    },
)


def scenes(world: World, every: int) -> list[Callable[[], Scene]]:
    """One job per date, a date every `every` days, Landsat 8 and 9 in turn."""
    grid = grid_over(world.landscape.frame.bounds, CRS, 30, 15, 30)
    prints = footprints(world.landscape, grid, width=1.2)
    dates = pd.date_range(f"{world.year}-01-05", f"{world.year}-12-31", freq=f"{every}D")

    def job(number: int) -> Callable[[], Scene]:
        time = dates[number] + pd.Timedelta(hours=10, minutes=27, seconds=41, milliseconds=530)
        return lambda: _scene(world, prints, time, number)

    return [job(number) for number in range(len(dates))]


def _scene(world: World, prints: Footprints, time: pd.Timestamp, number: int) -> Scene:
    rng = generator(world.seed, "landsat", str(time.date()))
    bands = tuple(spectrum for _, spectrum, _, _ in BANDS.values())
    sky = draw_sky(world.seed, world.landscape.frame.cells, time)
    ground = surface(world.season, world.materials, world.weather.day(time))
    tint = date_tint(generator(world.seed, "landsat tint", number))
    view = look(rng, prints, ground, sky, bands, tint)
    counts = np.clip(np.rint((view.reflectance * RESPONSE - SHIFT) / SCALE), 1, 65_535)
    counts = np.where(prints.inside[:, None], counts, 0).astype(np.uint16)
    quality = quality_bits(view, bands, prints.grid.shape, prints.inside)

    def picture(values: Array, nodata: int) -> Picture:
        return Picture(values.reshape(prints.grid.shape), prints.grid, nodata, {})

    satellite = 8 + number % 2
    cloudy = np.isin(quality & 0b1100, (4, 8, 12)) & prints.inside
    return Scene(
        id=f"LC0{satellite}_L2SP_197025_{time.strftime('%Y%m%d')}_02_T1",
        time=time,
        properties={
            "platform": f"landsat-{satellite}",
            "instruments": ["oli", "tirs"],
            "gsd": 30,
            "proj:code": CRS,
            "proj:shape": list(prints.grid.shape),
            "proj:transform": [*prints.grid.transform][:6],
            "eo:cloud_cover": round(100 * float(cloudy.sum()) / max(int(prints.inside.sum()), 1), 2),
            "view:off_nadir": 0,
            "view:sun_azimuth": round(sky.sun.azimuth, 4),
            "view:sun_elevation": round(sky.sun.elevation, 4),
            "landsat:wrs_path": "197",
            "landsat:wrs_row": "025",
            "landsat:wrs_type": "2",
            "landsat:correction": "L2SP",
            "landsat:collection_number": "02",
            "landsat:collection_category": "T1",
        },
        assets={
            **{name: picture(counts[:, i], 0) for i, name in enumerate(BANDS)},
            "qa_pixel": picture(quality, 1),
        },
        footprint=(CRS, prints.grid.bounds),
    )
