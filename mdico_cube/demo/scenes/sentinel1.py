"""The world in, Sentinel-1 RTC scenes out: linear gamma0 of VV and VH from two orbit directions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from mdico_cube.demo.catalog import COG, Collection, Json, Picture, Scene
from mdico_cube.demo.landscape import BUILT, CRS
from mdico_cube.demo.noise import generator
from mdico_cube.demo.radar import LOOKS, backscatter, observe, scatterers
from mdico_cube.demo.sampling import Footprints, footprints, grid_over
from mdico_cube.demo.world import World
from mdico_cube.spec import Floats

NODATA = -32768.0
ORBITS = {
    "descending": ("01-03", pd.Timedelta(hours=5, minutes=50, seconds=12, milliseconds=410), 37),
    "ascending": ("01-08", pd.Timedelta(hours=17, minutes=25, seconds=33, milliseconds=180), 88),
}
"""Direction -> first date in the year, time of day in UTC, relative orbit."""


def _asset(polarisation: str) -> Json:
    name = "vertical" if polarisation == "vv" else "horizontal"
    return {
        "type": COG,
        "roles": ["data"],
        "title": f"{polarisation.upper()}: vertical transmit, {name} receive",
        "description": "Terrain-corrected gamma naught, linear power.",
        "raster:bands": [{"data_type": "float32", "nodata": NODATA, "spatial_resolution": 10}],
    }


COLLECTION = Collection(
    id="sentinel-1-rtc",
    title="Sentinel-1 RTC (simulated)",
    description="Simulated radiometrically terrain corrected gamma naught, linear power, 10 m.",
    keywords=("Sentinel-1", "SAR", "backscatter", "simulated"),
    summaries={"platform": ["SENTINEL-1A"], "sat:orbit_state": ["ascending", "descending"], "gsd": [10]},
    extensions=("sar", "sat", "proj", "raster"),
    item_assets={polarisation: _asset(polarisation) for polarisation in ("vv", "vh")},
)


def scenes(world: World, every: int) -> list[Callable[[], Scene]]:
    """One job per pass: each orbit direction once every `every` days."""
    grid = grid_over(world.landscape.frame.bounds, CRS, 10, 0, 20)
    prints = footprints(world.landscape, grid)
    walls = scatterers(world.seed, grid.rows * grid.cols)
    built = (world.landscape.kind == BUILT).astype(np.float32)

    def job(direction: str, time: pd.Timestamp) -> Callable[[], Scene]:
        return lambda: _scene(world, prints, walls, built, direction, time)

    passes = [
        (date + hour, direction)
        for direction, (first, hour, _) in ORBITS.items()
        for date in pd.date_range(f"{world.year}-{first}", f"{world.year}-12-31", freq=f"{every}D")
    ]
    return [job(direction, time) for time, direction in sorted(passes)]


def _scene(world: World, prints: Footprints, walls: Floats, built: Floats, direction: str, time: pd.Timestamp) -> Scene:
    rng = generator(world.seed, "s1", str(time.date()), direction)
    day, grid = world.weather.day(time), prints.grid
    parcels = backscatter(rng, world.season, world.echo, world.landscape.kind, day, direction)
    power = observe(rng, prints, parcels, walls, direction, built)
    power = np.where(prints.inside[:, None], power, np.float32(NODATA))
    start, stop = time - pd.Timedelta(seconds=9), time + pd.Timedelta(seconds=9)
    track = ORBITS[direction][2]
    orbit = 36_000 + int(time.dayofyear) * 73 // 5
    stamp = "%Y%m%dT%H%M%S"
    return Scene(
        id=f"S1A_IW_GRDH_1SDV_{start.strftime(stamp)}_{stop.strftime(stamp)}_{orbit:06d}_{orbit * 7:06X}_rtc",
        time=time,
        properties={
            "platform": "SENTINEL-1A",
            "constellation": "Sentinel-1",
            "gsd": 10,
            "proj:code": CRS,
            "proj:shape": list(grid.shape),
            "proj:transform": [*grid.transform][:6],
            "sar:instrument_mode": "IW",
            "sar:frequency_band": "C",
            "sar:center_frequency": 5.405,
            "sar:polarizations": ["VV", "VH"],
            "sar:product_type": "GRD",
            "sar:looks_range": 5,
            "sar:looks_azimuth": 1,
            "sar:looks_equivalent_number": LOOKS,
            "sar:resolution_range": 20,
            "sar:resolution_azimuth": 22,
            "sar:pixel_spacing_range": 10,
            "sar:pixel_spacing_azimuth": 10,
            "sar:observation_direction": "right",
            "sat:orbit_state": direction,
            "sat:relative_orbit": track,
            "sat:absolute_orbit": orbit,
            "sat:platform_international_designator": "2014-016A",
        },
        assets={
            name: Picture(power[:, i].reshape(grid.shape).astype(np.float32), grid, NODATA, {})
            for i, name in enumerate(("vv", "vh"))
        },
        footprint=(CRS, grid.bounds),
    )
