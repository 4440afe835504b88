"""The world in, Sentinel-2 L2A scenes out: two granules in two UTM zones per date, DN as the archive has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import Transformer

from mdico_cube.demo.catalog import COG, Collection, Json, Picture, Scene, moment
from mdico_cube.demo.landscape import CRS, Frame
from mdico_cube.demo.noise import generator
from mdico_cube.demo.optics import View, classify_scene, date_tint, look
from mdico_cube.demo.sampling import Footprints, Grid, footprints, grid_over
from mdico_cube.demo.sky import Sky, Sun, draw_sky
from mdico_cube.demo.spectra import Surface, surface
from mdico_cube.demo.world import World
from mdico_cube.spec import Array, Floats

FINE = ("B02", "B03", "B04", "B08")
"""Bands at 10 m."""
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
"""Bands at 20 m."""
MASKING = ("B04", *COARSE)
"""What the scene classification looks at, at 20 m."""
OFFSET = 1000
"""Counts added to every reflectance from processing baseline 04.00 on."""
NAMES = {
    "B02": ("blue", 0.490, 0.098),
    "B03": ("green", 0.560, 0.045),
    "B04": ("red", 0.665, 0.038),
    "B05": ("rededge", 0.704, 0.019),
    "B06": ("rededge", 0.740, 0.018),
    "B07": ("rededge", 0.783, 0.028),
    "B08": ("nir", 0.842, 0.145),
    "B8A": ("rededge", 0.865, 0.033),
    "B11": ("swir16", 1.610, 0.143),
    "B12": ("swir22", 2.190, 0.242),
}


def _asset(band: str) -> Json:
    gsd = 10 if band in FINE else 20
    common, centre, width = NAMES[band]
    described = {"name": band, "common_name": common, "center_wavelength": centre, "full_width_half_max": width}
    raster = {"data_type": "uint16", "nodata": 0, "spatial_resolution": gsd}
    return {
        "type": COG,
        "roles": ["data"],
        "title": f"Band {band} - {gsd}m",
        "gsd": gsd,
        "eo:bands": [described],
        "raster:bands": [raster],
    }


COLLECTION = Collection(
    id="sentinel-2-l2a",
    title="Sentinel-2 Level-2A (simulated)",
    description="Simulated surface reflectance, DN x 1e-4; from processing baseline 04.00 on DN carries +1000, "
    "and no metadata field says so but s2:processing_baseline.",
    keywords=("Sentinel-2", "reflectance", "simulated"),
    summaries={"platform": ["Sentinel-2A", "Sentinel-2B"], "instruments": ["msi"], "gsd": [10, 20]},
    extensions=("eo", "sat", "view", "proj", "raster"),
    item_assets={
        **{band: _asset(band) for band in (*FINE, *COARSE)},
        "SCL": {
            "type": COG,
            "roles": ["data"],
            "title": "Scene classification map (SCL)",
            "gsd": 20,
            "raster:bands": [{"data_type": "uint8", "nodata": 0, "spatial_resolution": 20}],
        },
    },
)


@dataclass(frozen=True, slots=True)
class Granule:
    """One tile's part of the region on its own grid."""

    tile: str
    delay: float
    """Seconds after the first granule."""
    fine: Footprints
    """10 m."""
    coarse: Footprints
    """20 m."""


@dataclass(frozen=True, slots=True)
class Overpass:
    """What both granules of a date have in common."""

    time: pd.Timestamp
    platform: str
    """Letter A or B."""
    baseline: str
    sky: Sky
    ground: Surface
    tint: Floats
    """(10,) factor per band, in the order of spectra.BANDS."""


def granules(world: World) -> tuple[Granule, Granule]:
    """A western granule in zone 31 and an eastern one in zone 32; each has about two thirds of the region."""
    left, bottom, right, top = world.landscape.frame.bounds
    width = right - left
    west = grid_over((left, bottom, left + 0.66 * width, top), CRS, 10, 0, 60)
    eastern = (left + 0.385 * width, bottom, right, top)
    east = grid_over(_bounds_in("EPSG:32632", eastern, world.landscape.frame), "EPSG:32632", 10, 0, 60)

    def granule(tile: str, delay: float, grid: Grid) -> Granule:
        return Granule(tile, delay, footprints(world.landscape, grid), footprints(world.landscape, grid.coarser(2)))

    return granule("31UGS", 0.0, west), granule("32UKB", 4.2, east)


def _bounds_in(crs: str, bounds: tuple[float, float, float, float], frame: Frame) -> tuple[float, float, float, float]:
    """Bounds in another CRS that hold the eastern corners whole and start at the middle of the western side."""
    to = Transformer.from_crs(CRS, crs, always_xy=True)
    left, bottom, right, top = bounds
    x, _ = to.transform([left, right, right, left], [(bottom + top) / 2, bottom, top, top])
    _, low = to.transform([left, right], [bottom, bottom])
    _, high = to.transform([left, right], [top, top])
    return float(x[0]), float(min(low)), float(max(x[1:3])), float(max(high))


def scenes(world: World, every: int) -> list[Callable[[], Scene]]:
    """One job per granule and date, a date every `every` days."""
    tiles = granules(world)
    dates = pd.date_range(f"{world.year}-01-03", f"{world.year}-12-31", freq=f"{every}D")
    times = [date + pd.Timedelta(hours=10, minutes=36, seconds=29, milliseconds=24) for date in dates]

    def job(number: int, tile: Granule) -> Callable[[], Scene]:
        return lambda: _scene(world, _overpass(world, times[number], number), tile)

    return [job(number, tile) for number in range(len(times)) for tile in tiles]


def _overpass(world: World, time: pd.Timestamp, number: int) -> Overpass:
    return Overpass(
        time=time,
        platform="AB"[number % 2],
        baseline="04.00" if time.month >= 7 else "03.01",
        sky=draw_sky(world.seed, world.landscape.frame.cells, time),
        ground=surface(world.season, world.materials, world.weather.day(time)),
        tint=date_tint(generator(world.seed, "s2 tint", number)),
    )


def _scene(world: World, overpass: Overpass, tile: Granule) -> Scene:
    rng = generator(world.seed, "s2", tile.tile, str(overpass.time.date()))
    fine, coarse = (
        look(rng, prints, overpass.ground, overpass.sky, bands, overpass.tint)
        for prints, bands in ((tile.fine, FINE), (tile.coarse, MASKING))
    )
    offset = OFFSET if overpass.baseline >= "04.00" else 0
    assets = _pictures(fine, tile.fine, FINE, offset) | _pictures(coarse, tile.coarse, MASKING, offset, skip="B04")
    scl = classify_scene(coarse, MASKING, tile.coarse.inside)
    assets["SCL"] = Picture(scl.reshape(tile.coarse.grid.shape), tile.coarse.grid, 0, {})
    time = overpass.time + pd.Timedelta(seconds=tile.delay)
    stamp, made = overpass.time.strftime("%Y%m%dT%H%M%S"), time + pd.Timedelta(hours=5)
    return Scene(
        id=f"S2{overpass.platform}_MSIL2A_{stamp}_R008_T{tile.tile}_{made.strftime('%Y%m%dT%H%M%S')}",
        time=time,
        properties=_properties(overpass, tile, made) | _percentages(scl),
        assets=assets,
        footprint=(tile.fine.grid.crs, tile.fine.grid.bounds),
    )


def _pictures(
    view: View, prints: Footprints, bands: tuple[str, ...], offset: int, skip: str = ""
) -> dict[str, Picture | xr.Dataset]:
    """One uint16 picture of DN per band, 0 where there is no data."""
    counts = np.clip(np.rint(view.reflectance * 10_000) + offset, 1, 65_535)
    counts = np.where(prints.inside[:, None], counts, 0).astype(np.uint16)
    shape = prints.grid.shape
    return {
        band: Picture(np.ascontiguousarray(counts[:, i]).reshape(shape), prints.grid, 0, {})
        for i, band in enumerate(bands)
        if band != skip
    }


def _properties(overpass: Overpass, tile: Granule, made: pd.Timestamp) -> Json:
    sun: Sun = overpass.sky.sun
    zone = tile.tile[:2]
    return {
        "platform": f"Sentinel-2{overpass.platform}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "gsd": 10,
        "proj:code": f"EPSG:326{zone}",
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 8,
        "view:off_nadir": 5.2,
        "view:sun_azimuth": round(sun.azimuth, 4),
        "view:sun_elevation": round(sun.elevation, 4),
        "s2:mgrs_tile": tile.tile,
        "s2:processing_baseline": overpass.baseline,
        "s2:product_type": "S2MSI2A",
        "s2:datatake_id": f"GS2{overpass.platform}_{overpass.time.strftime('%Y%m%dT%H%M%S')}_N{overpass.baseline}",
        "s2:generation_time": moment(made),
        "s2:mean_solar_zenith": round(90 - sun.elevation, 4),
        "s2:mean_solar_azimuth": round(sun.azimuth, 4),
    }


def _percentages(scl: Array) -> Json:
    """Shares of the scene classes among pixels with data, in percent; no data among all pixels."""
    counts = np.bincount(scl, minlength=12)
    seen = max(int(counts[1:].sum()), 1)

    def percent(*classes: int) -> float:
        return round(100 * float(counts[list(classes)].sum()) / seen, 4)

    return {
        "eo:cloud_cover": percent(8, 9, 10),
        "s2:high_proba_clouds_percentage": percent(9),
        "s2:medium_proba_clouds_percentage": percent(8),
        "s2:thin_cirrus_percentage": percent(10),
        "s2:cloud_shadow_percentage": percent(3),
        "s2:vegetation_percentage": percent(4),
        "s2:not_vegetated_percentage": percent(5),
        "s2:water_percentage": percent(6),
        "s2:unclassified_percentage": percent(7),
        "s2:nodata_pixel_percentage": round(100 * float(counts[0]) / scl.size, 4),
    }
