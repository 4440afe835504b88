"""Time, peak memory and bytes of every stage on the embedded region, each stage in a process of its own.

    python benchmarks/bench_journey.py [--size 512] [--folder DIR]

Wall time includes the start of Python and the imports of the stage. Bytes are what the process asked the system to read
and write (page cache included), from /proc; peak memory is the process's largest resident set.
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

from rich.console import Console
from rich.table import Table

STAGES = ("region", "build", "sample", "train", "predict", "evaluate", "report")
CHILD = """
import json, sys
from pathlib import Path
import mdico_cube as mdico
stage, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
region = mdico.DemoRegion(size=size)
if stage == "region":
    mdico.prepare_demo(folder, region)
else:
    getattr(mdico, stage)(mdico.load_recipe(folder / "demo.yml"))
with open("/proc/self/io") as file:
    io = dict(line.split(": ") for line in file)
print("BYTES", json.dumps([int(io["rchar"]), int(io["wchar"])]))
"""


@dataclass(frozen=True)
class Row:
    """One stage: seconds, bytes resident at the peak, bytes read, bytes written."""

    stage: str
    seconds: float
    peak: int
    read: int
    written: int


def measure(stage: str, folder: Path, size: int) -> Row:
    """Run one stage in a child process and account for it."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, stage, str(folder), str(size)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{stage} failed")
    read, written = json.loads(printed.rsplit("BYTES", 1)[1])
    return Row(stage, seconds, usage.ru_maxrss * 1024, read, written)


def main() -> None:
    """Measure every stage and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the region in pixels")
    parser.add_argument("--folder", type=Path, help="where to run; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "demo"
        rows = [measure(stage, folder, options.size) for stage in STAGES]
    total = sum(row.seconds for row in rows)
    table = Table("stage", title=f"journey, {options.size} x {options.size} pixels, {os.cpu_count()} processors")
    for title in ("seconds", "share", "peak MB", "read MB", "written MB"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.stage,
            f"{row.seconds:.1f}",
            f"{row.seconds / total:.0%}",
            f"{row.peak / 1e6:.0f}",
            f"{row.read / 1e6:.0f}",
            f"{row.written / 1e6:.0f}",
        )
    table.add_row("all", f"{total:.1f}", "100%", f"{max(row.peak for row in rows) / 1e6:.0f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
