"""Seconds and megabytes of a Sentinel-2 cube from local COGs, against three other ways of making the same one.

Run: .venv/bin/python benchmarks/bench_cube.py [--size 1024] [--months 2] [--rounds 5] [--folder DIR] [--no-memory]

Every way reads the same scenes, bands and windows, subtracts the same offset, hides the same classes, takes the same
monthly median and writes the same uint16 Zarr: six bands on a 10 m grid, six scenes a month as COGs (deflate, tiles of
512, bands of 10 and 20 m, offset and clouds). They take turns; the table gives medians. Reading alone is rasterio in
threads into numpy arrays, the same windows and nothing else: no way of building can be faster. Memory is the peak of a
process of its own, for a region and for one four times as large. All get as many threads as there are processors.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import rasterio
import stackstac
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.windows import from_bounds
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.grid import shards
from mdico_cube.cube.packing import packer
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.progress import console
from mdico_cube.recipe import Recipe, parse_recipe

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
COARSE = ("B11", "B12", "SCL")
HIDES = (1, 3, 8, 9, 10)
SHARD, CHUNK = 512, 64
CRS, LEFT, TOP = "EPSG:32631", 600000, 5700000
THREADS = os.cpu_count() or 1
warnings.filterwarnings("ignore", message="All-NaN slice", category=RuntimeWarning)
warnings.filterwarnings("ignore", message="The data type", module="zarr")


@dataclass
class Way:
    """One way of building the cube."""

    name: str
    run: Callable[[], object]
    goal: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self) -> None:
        """One more round."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def write_world(folder: Path, size: int, months: int) -> Path:
    """A static catalog of scenes with clouds; six a month."""
    draw = np.random.default_rng(0)
    catalog = pystac.Catalog("bench", "Scenes for a benchmark.")
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[pystac.utils.now_in_utc(), None]])
    )
    collection = pystac.Collection("sentinel-2-l2a", "Scenes", extent)
    catalog.add_child(collection)
    ground = 1500 + 900 * _blobs(draw, size, 6) + 200 * _blobs(draw, size, 1)
    box = GeoBox.from_bbox((LEFT, TOP - 10 * size, LEFT + 10 * size, TOP), CRS, resolution=10)
    outline = box.extent.to_crs("EPSG:4326")
    for number in range(6 * months):
        when = f"2021-{number // 6 + 1:02d}-{1 + 5 * (number % 6):02d}T10:30:00Z"
        item = pystac.Item(
            f"scene-{number}",
            outline.json,
            list(outline.boundingbox.bbox),
            pystac.utils.str_to_datetime(when),
            {"proj:code": CRS, "proj:epsg": 32631, "s2:processing_baseline": "05.00", "platform": "sentinel-2a"},
        )
        clouds = _blobs(draw, size // 2, 40) > (0.5 if number % 3 else -0.4)
        for key in (*BANDS, "SCL"):
            half = 2 if key in COARSE else 1
            if key == "SCL":
                values = np.where(clouds, 9, 4).astype(np.uint8)
            else:
                noise = draw.normal(0, 30, (size // half, size // half))
                hidden = clouds if half == 2 else clouds.repeat(2, 0).repeat(2, 1)
                field_of = ground[::half, ::half] * (1 + 0.2 * BANDS.index(key)) + noise + 15 * number
                values = np.clip(np.where(hidden, 9000 + noise, field_of) + 1000, 1, 20000).astype(np.uint16)
            path = folder / item.id / f"{key}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_cog(path, values, 10 * half)
            transform = [10 * half, 0, LEFT, 0, -10 * half, TOP]
            fields = {"proj:shape": list(values.shape), "proj:transform": transform}
            item.add_asset(key, pystac.Asset(str(path), media_type=pystac.MediaType.COG, extra_fields=fields))
        collection.add_item(item)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def _blobs(draw: np.random.Generator, size: int, width: float) -> np.ndarray:
    """A smooth random field of mean 0 and spread 1."""
    values = gaussian_filter(draw.standard_normal((size, size)).astype(np.float32), width, mode="wrap")
    return (values - values.mean()) / values.std()


def _write_cog(path: Path, values: np.ndarray, step: float) -> None:
    with rasterio.open(
        path, "w", driver="COG", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype, crs=CRS,
        transform=rasterio.transform.from_origin(LEFT, TOP, step, step), nodata=0, compress="DEFLATE", level=3,
        predictor=2, blocksize=512, overviews="NONE",
    ) as file:  # fmt: skip
        file.write(values, 1)


def recipe_for(catalog: Path, output: Path, size: int, months: int) -> Recipe:
    return parse_recipe(
        {
            "name": "bench",
            "output": str(output),
            "area": {"bounds": [LEFT, TOP - 10 * size, LEFT + 10 * size, TOP], "crs": CRS},
            "period": {"start": "2021-01-01", "end": f"2021-{months:02d}-28"},
            "catalog": "local",
            "href": str(catalog),
            "modalities": {"sentinel2": {"bands": list(BANDS), "source": {"dilate": 0}}, "sentinel1": {}},
            "labels": {"path": "none.tif", "classes": [{"name": "a", "source": 1}]},
            "colearn": {"modalities": ["sentinel1", "sentinel2"]},
            "store": {"chunk": CHUNK, "shard": SHARD},
        }
    )


def plan_for(recipe: Recipe) -> tuple[Recipe, BuildPlan]:
    """The plan of the optical part alone; searching is not timed, for nobody."""
    alone = recipe.model_copy(update={"modalities": {"sentinel2": recipe.modalities["sentinel2"]}})
    return alone, plan_build(alone)


def ours(recipe: Recipe, plan: BuildPlan) -> None:
    build_cube(recipe, overwrite=True, plan=plan)


def with_odc(plan: BuildPlan, target: Path) -> None:
    """odc.stac.load, then xarray."""
    scenes = odc.stac.load(
        [scene.item for scene in plan.layers[0].scenes], bands=[*BANDS, "SCL"], geobox=plan.geobox,
        groupby="solar_day", resampling={"*": "bilinear", "SCL": "nearest"}, pool=THREADS, nodata=0,
        dtype="uint16",
    )  # fmt: skip
    finish(scenes[list(BANDS)].to_dataarray("band"), scenes["SCL"], target)


def with_stackstac(plan: BuildPlan, target: Path) -> None:
    """stackstac.stack, then xarray."""
    items = [scene.item for scene in plan.layers[0].scenes]
    facts = {
        "epsg": 32631, "resolution": 10, "bounds": tuple(plan.geobox.boundingbox.bbox), "snap_bounds": False,
        "xy_coords": "center", "dtype": np.dtype("uint16"), "fill_value": np.uint16(0), "rescale": False,
        "errors_as_nodata": (), "chunksize": SHARD,
    }  # fmt: skip
    plain = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items]
    bands = stackstac.stack(plain, assets=list(BANDS), resampling=Resampling.bilinear, **facts)
    clear = stackstac.stack(plain, assets=["SCL"], resampling=Resampling.nearest, **facts)
    keep = ["time", "band", "y", "x"]
    bands, clear = (
        one.reset_coords(drop=True)[keep] if False else one.drop_vars(set(one.coords) - set(keep))
        for one in (bands, clear)
    )
    finish(bands.transpose("band", "time", "y", "x"), clear.isel(band=0, drop=True), target)


def finish(values: xr.DataArray, classes: xr.DataArray, target: Path) -> None:
    """Offset, mask, monthly median, missing value and Zarr, as one writes it with xarray."""
    seen = ~classes.isin([0, *HIDES]) & (values != 0).all("band")
    reflectance = (values.astype("float32") - 1000).clip(min=0).where(seen)
    months = reflectance.groupby("time.month").median("time")
    stored = np.floor(months + 0.5).fillna(65535).astype("uint16").rename(month="time")
    stored = stored.transpose("time", "band", "y", "x").rename("reflectance").drop_attrs()
    sizes = (*stored.shape[:2], SHARD, SHARD)
    encoding = {
        "reflectance": {
            "chunks": (*stored.shape[:2], CHUNK, CHUNK), "shards": sizes, "compressors": [packer()],
        }
    }  # fmt: skip
    if stored.chunks is not None:
        stored = stored.chunk(dict(zip(stored.dims, sizes, strict=True)))
    stored.to_dataset().to_zarr(target, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def reading(plan: BuildPlan) -> None:
    """Every window of every file into numpy arrays, shard by shard; coarse bands by GDAL's own reading."""
    jobs = [
        (scene.item.assets[key].href, plan.geobox[shard.y, shard.x], key)
        for shard in shards(tuple(plan.geobox.shape), plan.shard)
        for scene in plan.layers[0].scenes
        for key in (*BANDS, "SCL")
    ]

    def read(job: tuple[str, GeoBox, str]) -> np.ndarray:
        path, box, key = job
        with rasterio.open(path) as file:
            window = from_bounds(*box.boundingbox.bbox, file.transform)
            method = Resampling.nearest if key == "SCL" else Resampling.bilinear
            values: np.ndarray = file.read(1, window=window, out_shape=tuple(box.shape), resampling=method)
            return values

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(read, jobs):
            pass


def same(plan: BuildPlan, cube: Path, other: Path) -> float:
    """Share of values that differ by more than a count between our cube and another."""
    height, width = plan.geobox.shape
    mine = open_reader(cube).stored("sentinel2", slice(0, height), slice(0, width)).astype(int)
    theirs = xr.open_zarr(other, consolidated=False, mask_and_scale=False)["reflectance"].to_numpy().astype(int)
    return float((np.abs(mine - theirs) > 1).mean())


def peak_of(script: Path, catalog: Path, folder: Path, size: int, months: int) -> float:
    """Megabytes at the peak of a process that builds a region."""
    command = [sys.executable, str(script), "--child", str(catalog), "--folder", str(folder), "--size", str(size)]
    found = subprocess.run([*command, "--months", str(months)], check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def child(options: argparse.Namespace) -> None:
    """Build once and print the peak."""
    recipe = recipe_for(options.child, options.folder / f"memory-{options.size}", options.size, options.months)
    ours(*plan_for(recipe))
    print(peak())


def peak() -> float:
    """Megabytes at this process's own peak; getrusage would count what its parent held when it was forked."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the region in pixels; memory takes twice that")
    parser.add_argument("--months", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    console.quiet = True
    if options.child:
        child(options)
        return
    show = Console(width=120)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        whole = options.size if options.no_memory else 2 * options.size
        catalog = write_world(folder / "world", whole, options.months)
        recipe, plan = plan_for(recipe_for(catalog, folder / "ours", options.size, options.months))
        ways = [
            Way("mdico build", lambda: ours(recipe, plan), ""),
            Way("odc.stac.load + xarray", lambda: with_odc(plan, folder / "odc.zarr"), "at least 1.0 x ours"),
            Way("stackstac + xarray", lambda: with_stackstac(plan, folder / "stack.zarr"), "at least 1.5 x ours"),
            Way("rasterio threads, reading alone", lambda: reading(plan), "ours at most 1.5 x this"),
        ]
        for way in ways:
            way.run()
        for name in ("odc", "stack"):
            differing = same(plan, folder / "ours/cube.zarr", folder / f"{name}.zarr")
            show.print(f"values of {name} that differ from ours by more than one count: {differing:.2%}")
        for _ in range(options.rounds):
            for way in ways:
                way.time()
        base = statistics.median(ways[0].wall)
        scenes = len(plan.layers[0].scenes)
        found = Table(
            "way",
            title=f"{options.size} x {options.size} pixels, {scenes} scenes, {len(BANDS)} bands, {THREADS} threads",
        )
        for column in ("seconds", "processor seconds", "x ours", "ours / it", "goal"):
            found.add_column(column, justify="right")
        for way in ways:
            wall, cpu = statistics.median(way.wall), statistics.median(way.cpu)
            found.add_row(way.name, f"{wall:.2f}", f"{cpu:.2f}", f"{wall / base:.2f}", f"{base / wall:.2f}", way.goal)
        show.print(found)
        if not options.no_memory:
            script = Path(__file__)
            small, large = (
                statistics.median(peak_of(script, catalog, folder, side, options.months) for _ in range(3))
                for side in (options.size, 2 * options.size)
            )
            side = options.size
            show.print(
                f"peak memory: {small:.0f} MB for {side} x {side} pixels, {large:.0f} MB for four times as many:"
            )
            show.print(f"{large / small - 1:+.1%} (goal: less than +10 %)")


if __name__ == "__main__":
    main()
