"""Windows per second and peak memory of the index of candidate windows, and of the draw from it.

    python benchmarks/bench_index.py [--folder DIR] [--quick]

Cubes of 12 months x (2 radar + 10 optical bands) are written to disk, a third of the optical observations missing; each
case then runs in a process of its own. Peak memory is the process's largest resident set, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table

from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.store import create_cube
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import LabelClass

STEPS = tuple(f"2021-{month:02d}-01" for month in range(1, 13))
LEGEND = tuple(LabelClass(f"class {i}", i + 1, "#000000") for i in range(8))
CHUNK, SHARD = 64, 256
CHILD = """
import json, resource, sys, time
from pathlib import Path
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.draw import choose_windows, index_path, split_path
from mdico_cube.patches.scan import make_index
from mdico_cube.progress import console
from mdico_cube.recipe import SampleSection
console.quiet = True
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
section, names = SampleSection(**options), ("sentinel1", "sentinel2")
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start, before = time.perf_counter(), memory()
make_split(folder / "cube.zarr", split_path(folder), section)
split = time.perf_counter()
index = make_index(folder / "cube.zarr", split_path(folder), index_path(folder), names, section)
done, peak = time.perf_counter(), memory()
chosen = choose_windows(folder / "cube.zarr", folder, names, section).windows
end = time.perf_counter()
print("RESULT", json.dumps({"windows": len(index), "split": split - start, "index": done - split, "draw": end - done,
    "drawn": len(chosen), "before": before, "peak": peak, "last": memory(), "bytes": index.path.stat().st_size}))
"""
CASES = (
    ("pixel series", 320, {"patch": 1, "block": 32, "guard": 2}),
    ("pixel series", 1024, {"patch": 1, "block": 64}),
    ("8 x 8, stride 1", 324, {"patch": 8, "stride": 1, "block": 64}),
    ("8 x 8, stride 1", 1024, {"patch": 8, "stride": 1, "block": 64}),
    ("8 x 8, random", 1024, {"patch": 8, "strategy": "random", "candidates": 1_000_000, "block": 64}),
)
GOAL_SECONDS, GOAL_MEMORY = 120.0, 1.5
"""A million windows in two minutes; ten times the windows in at most so many times the memory."""


@dataclass(frozen=True)
class Row:
    """One case, as the child tells it."""

    name: str
    windows: int
    split: float
    index: float
    draw: float
    drawn: int
    before: int
    peak: int
    last: int
    bytes: int


def write_cube(folder: Path, size: int) -> None:
    """A cube of noise with fields of eight classes."""
    geobox = GeoBox((size, size), Affine(10, 0, 600000, 0, -10, 5700000), "EPSG:32631")
    shards = -(-size // SHARD)
    layers = [Layer(modality, STEPS) for modality in (SENTINEL1, SENTINEL2)]
    create_cube(folder / "cube.zarr", geobox, layers, CHUNK, SHARD, {}, (shards, shards))
    generator = np.random.default_rng(0)
    for modality in (SENTINEL1, SENTINEL2):
        array = zarr.open_group(folder / "cube.zarr", mode="r+")[f"{modality.name}/{modality.variable}"]
        side = min(SHARD, size)
        tile = generator.integers(100, 3000, (*array.shape[:2], side, side)).astype(array.dtype)
        if modality is SENTINEL2:
            missing = generator.random((len(STEPS), 1, side, side)) < 0.33
            tile[np.broadcast_to(missing, tile.shape)] = int(modality.storage.missing)
        for row, column in np.ndindex(shards, shards):
            y, x = (
                slice(row * SHARD, min(size, row * SHARD + SHARD)),
                slice(column * SHARD, min(size, column * SHARD + SHARD)),
            )
            array[..., y, x] = tile[..., : y.stop - y.start, : x.stop - x.start]
            Ledger(folder / "cube.zarr", modality.name, "r+").record(row, column, Entry(DONE, digest=f"{row}-{column}"))
    fields = generator.integers(0, len(LEGEND), (size // 8 + 1, size // 8 + 1)).astype(np.uint8)
    write_labels(folder / "cube.zarr", fields.repeat(8, 0).repeat(8, 1)[:size, :size], None, LEGEND, {})


def run(folder: Path, name: str, options: dict[str, object]) -> Row:
    """One case in a process of its own."""
    (folder / "samples-index.parquet").unlink(missing_ok=True)
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(folder), json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
    )
    return Row(name, **json.loads(child.stdout.split("RESULT", 1)[1]))


def main() -> None:
    """Write the cubes, run every case and print the table and the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the cubes are written; default: a temporary folder")
    parser.add_argument("--quick", action="store_true", help="only the small cubes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base, rows = options.folder or Path(temporary), []
        for name, size, section in CASES:
            if options.quick and size > 400:
                continue
            folder = base / str(size)
            if not (folder / "cube.zarr").exists():
                start = time.perf_counter()
                write_cube(folder, size)
                Console(stderr=True).print(
                    f"cube of {size} x {size} pixels written in {time.perf_counter() - start:.0f} s"
                )
            rows.append(run(folder, name, section))
    table = Table("windows", title=f"index of candidate windows, 12 months x 12 bands, {os.cpu_count()} processors")
    for title in (
        "number",
        "split s",
        "index s",
        "windows/s",
        "peak MB",
        "of it imports",
        "draw s",
        "drawn",
        "file MB",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.name, f"{row.windows:,}", f"{row.split:.1f}", f"{row.index:.1f}", f"{row.windows / row.index:,.0f}",
            f"{row.peak / 1e6:.0f}", f"{row.before / 1e6:.0f}", f"{row.draw:.1f}", f"{row.drawn:,}",
            f"{row.bytes / 1e6:.0f}",
        )  # fmt: skip
    Console(width=130).print(table)
    if not options.quick:
        print_goals(rows)


def print_goals(rows: list[Row]) -> None:
    """Every goal beside the figure."""
    for small, large in ((rows[0], rows[1]), (rows[2], rows[3])):
        seconds = 1e6 * (large.split + large.index + large.draw) / large.windows
        ratio = large.peak / small.peak
        print(
            f"{large.name}: a million windows split, indexed and drawn in {seconds:.0f} s "
            f"(goal {GOAL_SECONDS:.0f} s: {'met' if seconds <= GOAL_SECONDS else 'MISSED'}); peak memory of "
            f"{large.windows:,} windows is {ratio:.2f} times that of {small.windows:,} "
            f"(goal at most {GOAL_MEMORY}: {'met' if ratio <= GOAL_MEMORY else 'MISSED'})"
        )


if __name__ == "__main__":
    main()
