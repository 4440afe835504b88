"""What weather costs a cube of 100 km and one year beside Sentinel-2: bytes, processor time, wall time, memory.

    python benchmarks/bench_era5.py [--rounds 3] [--folder DIR]

Weather is built for the whole region, from a store as the Earth Data Hub has it: hourly ERA5-Land, 0.1 degrees, chunks
of 1440 hours by 50 by 100 cells; the region lies in one such column of chunks, and a second figure multiplies the time
by four, for a region on the corner of four columns. Sentinel-2 is built for one shard of 512 by 512 pixels, six scenes
a month with ten bands and the scene classification from local COGs, and multiplied by the region's shards. Both from a
local disk, the page cache warm: over the network both wait longer, for bytes in the same proportion.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.planning import plan_build
from mdico_cube.progress import console
from mdico_cube.recipe import Recipe, parse_recipe

YEAR = 2021
SIDE = 10_000  # pixels of 10 m: 100 km
SHARD = 512
LEFT, TOP = 500_000, 5_600_000  # EPSG:32631: 3 degrees east, 50.5 degrees north
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
WEATHER = ("t2m", "t2m_min", "t2m_max", "vpd", "tp")
TILE, HOURS = (50, 100), 1440
GOAL = 0.01


def write_weather(folder: Path) -> None:
    """A year of hourly ERA5-Land, with a little before and after, on one column of the archive's chunks."""
    hours = pd.date_range(f"{YEAR - 1}-12-31", f"{YEAR + 1}-01-02", freq="h", name="valid_time")
    latitudes, longitudes = 52.0 - 0.1 * np.arange(TILE[0]), 0.0 + 0.1 * np.arange(TILE[1])
    rng = np.random.default_rng(0)
    shape = (hours.size, *TILE)
    axes = ("valid_time", "latitude", "longitude")
    day = np.asarray(hours.dayofyear)[:, None, None] / 365.25
    t2m = (283 - 8 * np.cos(2 * np.pi * day) + rng.normal(0, 3, shape)).astype(np.float32)
    rain = np.where(rng.random(shape) < 0.1, rng.gamma(0.7, 4e-4, shape), 0).astype(np.float32)
    for start in range(1, hours.size, 24):  # running totals from 01:00 to 00:00 of the next day
        np.cumsum(rain[start : start + 24], axis=0, out=rain[start : start + 24])
    data = xr.Dataset(
        {
            "t2m": (axes, t2m, {"units": "K"}),
            "d2m": (axes, t2m - rng.gamma(2, 2, shape).astype(np.float32), {"units": "K"}),
            "tp": (axes, rain, {"units": "m"}),
        },
        coords={"valid_time": hours, "latitude": latitudes, "longitude": longitudes},
    )
    encoding = {name: {"chunks": (HOURS, *TILE)} for name in data.data_vars}
    data.to_zarr(folder / "weather.zarr", mode="w", zarr_format=3, encoding=encoding, consolidated=False)
    item = _item("weather", [-0.05, 47.0, 9.95, 52.05], None)
    item.common_metadata.start_datetime, item.common_metadata.end_datetime = hours[0], hours[-1]
    item.add_asset("data", pystac.Asset(str(folder / "weather.zarr"), media_type="application/vnd+zarr"))
    _save(folder / "weather", "era5", [item])


def write_scenes(folder: Path) -> None:
    """Six Sentinel-2 scenes a month over one shard: smooth fields with noise, a quarter of it under clouds."""
    grid = GeoBox((SHARD, SHARD), rasterio.Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
    box = grid.extent.to_crs("EPSG:4326")
    rows, columns = np.mgrid[0:SHARD, 0:SHARD] / SHARD
    rng, items = np.random.default_rng(1), []
    for number, moment in enumerate(pd.date_range(f"{YEAR}-01-03T10:30", f"{YEAR}-12-31", periods=72)):
        item = _item(f"S2_{number:02d}", list(box.boundingbox.bbox), moment.to_pydatetime())
        item.properties |= {"proj:code": "EPSG:32631", "s2:processing_baseline": "05.00", "s2:mgrs_tile": f"T{number}"}
        item.properties["platform"] = "sentinel-2a"
        values = 1800 + 900 * np.sin(6 * rows + number) * np.cos(7 * columns)
        bands = {band: values + 100 * i + rng.normal(0, 60, values.shape) for i, band in enumerate(BANDS)}
        cloud = np.sin(9 * rows + 3 * number) + np.cos(8 * columns - number) > 0.9
        for band, plane in {**bands, "SCL": np.where(cloud, 9, 4)}.items():
            path = folder / "scenes" / item.id / f"{band}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "uint8" if band == "SCL" else "uint16"
            with rasterio.open(
                path, "w", driver="GTiff", width=SHARD, height=SHARD, count=1, dtype=kind, crs="EPSG:32631",
                transform=grid.affine, tiled=True, blockxsize=256, blockysize=256, compress="deflate", zlevel=1,
            ) as file:  # fmt: skip
                file.write(plane.astype(kind), 1)
            item.add_asset(band, pystac.Asset(str(path), media_type=pystac.MediaType.COG))
        items.append(item)
    _save(folder / "sentinel2", "sentinel-2-l2a", items)


def _item(name: str, box: list[float], moment: Any) -> pystac.Item:
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    span = {} if moment else {"start_datetime": pd.Timestamp(0), "end_datetime": pd.Timestamp(0)}
    return pystac.Item(name, {"type": "Polygon", "coordinates": [ring]}, box, moment, {}, **span)


def _save(folder: Path, collection: str, items: list[pystac.Item]) -> None:
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
    parent = pystac.Collection(collection, collection, extent)
    parent.add_items(items)
    catalog = pystac.Catalog("bench", "Written by the benchmark.")
    catalog.add_child(parent)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)


def recipe_of(folder: Path, modality: str, side: int, output: str) -> Recipe:
    """One modality of a square region of so many pixels."""
    rules = {
        "every": "1h",
        "variables": {
            "t2m": {"name": "t2m", "unit": "K"},
            "d2m": {"name": "d2m", "unit": "K"},
            "tp": {"name": "tp", "unit": "m", "kind": "since_midnight"},
        },
    }
    sections: dict[str, Any] = {
        "era5": {
            "bands": WEATHER,
            "href": str(folder / "weather" / "catalog.json"),
            "source": {"collection": "era5", "zarr": rules},
        },
        "sentinel2": {"bands": BANDS, "href": str(folder / "sentinel2" / "catalog.json")},
    }
    return parse_recipe(
        {
            "name": "bench",
            "output": str(folder / output),
            "area": {"bounds": [LEFT, TOP - 10 * side, LEFT + 10 * side, TOP], "crs": "EPSG:32631"},
            "period": {"start": f"{YEAR}-01-01", "end": f"{YEAR}-12-31"},
            "catalog": "local",
            "modalities": sections,
            "labels": {"path": "none.tif", "classes": [{"name": "none"}]},
            "colearn": {"modalities": ["era5", "sentinel2"]},
            "store": {"chunk": 64, "shard": SHARD},
            "cluster": {"kind": "loop"},
        }
    )


@dataclass(frozen=True)
class Cost:
    """What building one modality took: median seconds, and bytes on disk."""

    wall: float
    processor: float
    stored: int

    def times(self, shards: int) -> Cost:
        """The same for many shards."""
        return Cost(self.wall * shards, self.processor * shards, self.stored * shards)


def measure(folder: Path, rounds: int) -> tuple[Cost, Cost]:
    """Costs of the weather of the whole region and of one shard of Sentinel-2, taken in turn."""
    found: dict[str, list[tuple[float, float]]] = {"era5": [], "sentinel2": []}
    for _ in range(rounds):
        for modality, side in (("era5", SIDE), ("sentinel2", SHARD)):
            recipe = recipe_of(folder, modality, side, modality)
            only = recipe.model_copy(update={"modalities": {modality: recipe.modalities[modality]}})
            found[modality].append(_timed(lambda only=only: _build(only)))
    costs = []
    for modality, pairs in found.items():
        wall, processor = (statistics.median(part) for part in zip(*pairs, strict=True))
        group = folder / modality / "cube.zarr" / modality
        stored = sum(path.stat().st_size for path in group.rglob("*") if path.is_file())
        costs.append(Cost(wall, processor, stored))
    return costs[0], costs[1]


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def _build(recipe: Recipe) -> None:
    """Plan and build, as `mdico build` does."""
    build_cube(recipe, overwrite=True, plan=plan_build(recipe))


def peak_of(folder: Path, months: int) -> int:
    """Largest resident bytes of a process that builds the weather of so many months."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bench_era5 as b; from pathlib import Path\n"
        "b.console.quiet = True; folder = Path(sys.argv[2]); recipe = b.recipe_of(folder, 'era5', b.SIDE, 'memory')\n"
        "end = f'{b.YEAR}-{int(sys.argv[3]):02d}-28'\n"
        "period = recipe.period.model_copy(update={'end': end})\n"
        "only = recipe.model_copy(update={'modalities': {'era5': recipe.modalities['era5']}, 'period': period})\n"
        "b._build(only); print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    here = str(Path(__file__).parent)
    words = [sys.executable, "-W", "ignore", "-c", code, here, str(folder), str(months)]
    return 1024 * int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where temporary files go")
    options = parser.parse_args()
    console.quiet = True
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        write_weather(folder)
        write_scenes(folder)
        weather, shard = measure(folder, options.rounds)
        shards = (-(-SIDE // SHARD)) ** 2
        image = shard.times(shards)
        peaks = [peak_of(folder, months) for months in (3, 12)]
    corner = replace(weather, wall=4 * weather.wall, processor=4 * weather.processor)
    table = Table("100 km, one year", title=f"weather beside Sentinel-2 ({len(WEATHER)} and {len(BANDS)} bands)")
    for title in ("bytes on disk", "wall seconds", "processor seconds"):
        table.add_column(title, justify="right")
    rows = {"era5, measured": weather, f"sentinel2, one of {shards} shards": shard, "sentinel2, all of them": image}
    for name, cost in rows.items():
        table.add_row(name, f"{cost.stored:,}", f"{cost.wall:,.1f}", f"{cost.processor:,.1f}")
    for name, cost in (("era5 of the whole cube", weather), ("... on the corner of four columns of chunks", corner)):
        parts = [
            part / (part + other)
            for part, other in zip(
                (cost.stored, cost.wall, cost.processor), (image.stored, image.wall, image.processor), strict=True
            )
        ]
        table.add_row(name, *(f"{part:.3%}" for part in parts))
    table.add_row("goal", *[f"under {GOAL:.0%}"] * 3)
    show = Console(width=110)
    show.print(table)
    show.print(
        f"peak memory of the weather's build: 3 months {peaks[0] / 1e6:.0f} MB, 12 months {peaks[1] / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
