"""How fast a cube is written and read: beside plain Zarr writes of the same bytes, and beside unsharded chunks.

Run: .venv/bin/python benchmarks/bench_store.py [--size 1024] [--rounds 5] [--folder DIR] [--ledger 10000]

Every pair is timed by turns, the table gives medians. Writing is a whole job but for the pixels' computation: the
ledger's entry is withdrawn, the shard written, the entry recorded. The limit is what `array[..., y, x] = values` of
zarr-python reaches with the same array, bytes and codec; once with files left in the system's cache, once with each
shard on the disk before its entry (`store.durable`). Reading takes random windows of 64 pixels with every time step
and band, at places that are not aligned, from files that were dropped from the memory cache before; the rival is a
layout of (1, 1, 512, 512) chunks read by zarr-python, as a cube is that was written image by image.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count as count_from
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table

from mdico_cube.cube import build
from mdico_cube.cube.access import Access
from mdico_cube.cube.block import settle
from mdico_cube.cube.grid import shards
from mdico_cube.cube.job import Job
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.packing import packer
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.store import create_cube
from mdico_cube.cube.tune import Layout, Try, likely_values
from mdico_cube.period import Period
from mdico_cube.recipe import ReadSection, Source
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import Array

CHUNK, SHARD, CODEC, LEVEL = 64, 512, "lz4", 9
SIDE = 64
PERIOD = Period("2021-01-01", "2021-12-31")
SENSOR = SENSORS["sentinel2"]
MODALITY = SENSOR.modality
Row = tuple[str, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="side of the region in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ledger", type=int, default=10_000, help="shards of the ledger that is resumed")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-store-") as folder:
        values = likely_values((len(PERIOD.steps()), len(MODALITY.bands), options.size, options.size), MODALITY)
        rows = [
            *bench_write(Path(folder), values, options.rounds),
            *bench_read(Path(folder), values, options.rounds),
            *bench_ledger(Path(folder), options.ledger),
        ]
    table = Table("what", "figure", "goal", "met", title=f"store: {values.nbytes / 1e6:.0f} MB of {MODALITY.name}")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    sys.exit(any(met == "no" for *_, met in rows))


def bench_write(folder: Path, values: Array, rounds: int) -> list[Row]:
    """Jobs without their computation, beside the bare writes of zarr-python."""
    side = values.shape[-1]
    grid = GeoBox((side, side), Affine(10, 0, 700000, 0, -10, 5600000), "EPSG:32631")
    layer = LayerPlan(
        SENSOR, MODALITY, MODALITY.band_names, PERIOD.steps(), PERIOD.stops(), Source(collection="none"), Access(),
        ReadSection(), "median", (),
    )  # fmt: skip
    count = -(-side // SHARD)
    cube = folder / "cube.zarr"
    create_cube(cube, grid, [layer.layer], CHUNK, SHARD, {"mdico_recipe": "{}"}, (count, count))
    jobs = [
        Job(layer, one, grid[one.y, one.x], layer.origin(grid[one.y, one.x])) for one in shards((side, side), SHARD)
    ]
    blocks = {
        (job.shard.row, job.shard.column): np.ascontiguousarray(values[..., job.shard.y, job.shard.x]) for job in jobs
    }
    computed: list[Array] = []
    build.compute_block = lambda *_: computed.pop()  # only what is around the computation counts
    plain = Try(folder / "plain.zarr", "a", values.shape, values.dtype, Layout(CHUNK, SHARD, CODEC, LEVEL))

    turn = count_from(1)

    def ours(durable: bool = False) -> None:
        anew = {"turn": str(next(turn))}  # or the job would find that every time step stands and keep it
        for job in (replace(job, origin=replace(job.origin, settings=anew)) for job in jobs):
            computed.append(blocks[job.shard.row, job.shard.column])
            built = build.run_job(cube, job, 1, durable=durable)
            assert not built.error, built.error

    def limit(durable: bool = False) -> None:
        for job in jobs:
            plain.array[..., job.shard.y, job.shard.x] = blocks[job.shard.row, job.shard.column]
            if durable:
                settle(plain.array, job.shard.y, job.shard.x)

    tasks = (ours, limit, partial(ours, durable=True), partial(limit, durable=True))
    (mine, best, kept, kept_best), (busy, busy_best, *_) = by_turns(rounds, *tasks)
    reader = CubeReader(cube)
    for job in jobs:
        assert np.array_equal(
            reader.stored(MODALITY.name, job.shard.y, job.shard.x), blocks[job.shard.row, job.shard.column]
        )
    size, share, onto_disk = values.nbytes / 1e6, best / mine, kept_best / kept
    return [
        ("writing: plain zarr, the limit", f"{size / best:.0f} MB/s", "", ""),
        ("writing: jobs with their ledger", f"{size / mine:.0f} MB/s", "", ""),
        ("writing: share of the limit", f"{share:.2f}", "at least 0.80", met(share >= 0.8)),
        ("writing: the same by processor seconds", f"{busy_best / busy:.2f}", "", ""),
        ("writing, each shard on the disk first: plain zarr", f"{size / kept_best:.0f} MB/s", "", ""),
        ("writing, each shard on the disk first: jobs", f"{size / kept:.0f} MB/s", "", ""),
        ("writing, each shard on the disk first: share", f"{onto_disk:.2f}", "at least 0.80", met(onto_disk >= 0.8)),
    ]


def bench_read(folder: Path, values: Array, rounds: int) -> list[Row]:
    """Random windows from the cube that `bench_write` left, beside a layout of one image per chunk."""
    cube, plane = folder / "cube.zarr", folder / "planes.zarr"
    planes = zarr.create_array(
        plane, shape=values.shape, dtype=values.dtype, chunks=(1, 1, 512, 512), compressors=[packer(CODEC, LEVEL)]
    )  # fmt: skip
    planes[:] = values
    reader = CubeReader(cube)
    sharded = reader.array(MODALITY.name)
    rng = np.random.default_rng(0)
    places = rng.integers(0, values.shape[-1] - SIDE + 1, (10_000, 2))

    def windows(read: Callable[[slice, slice], object], folder: Path, count: int) -> float:
        drop(folder)
        start = time.perf_counter()
        for y, x in places[:count]:
            read(slice(int(y), int(y) + SIDE), slice(int(x), int(x) + SIDE))
        return count / (time.perf_counter() - start)

    took: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        took[0].append(windows(lambda y, x: reader.stored(MODALITY.name, y, x), cube, 400))
        took[1].append(windows(lambda y, x: sharded[..., y, x], cube, 60))
        took[2].append(windows(lambda y, x: planes[..., y, x], plane, 6))
    ours, by_zarr, rival = (median(found) for found in took)
    return [
        (f"{SIDE} px windows: (1, 1, 512, 512) by zarr", f"{rival:.1f} /s", "", ""),
        (f"{SIDE} px windows: our layout by zarr", f"{by_zarr:.0f} /s", "", ""),
        (f"{SIDE} px windows: our layout by our reader", f"{ours:.0f} /s", "", ""),
        ("windows: how many times the rival", f"{ours / rival:.0f}", "at least 15", met(ours >= 15 * rival)),
        ("windows: the same, both by zarr", f"{by_zarr / rival:.0f}", "", ""),
    ]


def bench_ledger(folder: Path, count: int) -> list[Row]:
    """What a resumed build of many shards reads before its first job."""
    side = max(1, round(count**0.5))
    cube = folder / "many.zarr"
    grid = GeoBox((side * 16, side * 16), Affine(10, 0, 700000, 0, -10, 5600000), "EPSG:32631")
    create_cube(cube, grid, [Layer(MODALITY, ("2021-01-01",))], 16, 16, {"mdico_recipe": "{}"}, (side, side))
    ledger = Ledger(cube, MODALITY.name, "r+")
    items = tuple(f"S2A_MSIL2A_20210101T103421_R108_T31UGS_{number:012d}" for number in range(60))
    entry = Entry(DONE, "d" * 64, items, dict.fromkeys(items, "-0.1 (processing baseline 04.00)"))
    start = time.perf_counter()
    for number in range(200):
        ledger.record(number // side, number % side, entry)
    each = (time.perf_counter() - start) / 200
    home = cube / "ledger" / MODALITY.name / "entry" / "c"
    first = (home / "0" / "0").read_bytes()
    for row in range(side):
        (home / str(row)).mkdir(exist_ok=True)
        for column in range(side):
            (home / str(row) / str(column)).write_bytes(first)
    start = time.perf_counter()
    states, _ = Ledger(cube, MODALITY.name).heads()
    seconds = time.perf_counter() - start
    assert (states == DONE).all()
    return [
        ("ledger: one entry recorded", f"{1000 * each:.1f} ms", "", ""),
        (f"ledger: {states.size:,} entries read to resume", f"{seconds:.1f} s", "seconds", met(seconds < 10)),
    ]


def by_turns(rounds: int, *tasks: Callable[[], None]) -> npt.NDArray[np.float64]:
    """Median seconds and processor seconds (2, tasks), run by turns, each turn in the other order; one to warm up."""
    took = np.empty((rounds, 2, len(tasks)))
    for turn in range(-1, rounds):
        for index in range(len(tasks))[:: -1 if turn % 2 else 1]:
            start, busy = time.perf_counter(), time.process_time()
            tasks[index]()
            took[max(turn, 0), :, index] = time.perf_counter() - start, time.process_time() - busy
    return np.asarray(np.median(took, axis=0))


def drop(folder: Path) -> None:
    """Files of a folder out of the memory cache, as far as the system does so."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def met(reached: bool) -> str:
    return "yes" if reached else "no"


if __name__ == "__main__":
    main()
