"""A benchmark's name and options in, its table out: what the command line calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mdico_cube.benchmarks.cropharvest import read_cropharvest
from mdico_cube.benchmarks.lfmc import read_lfmc
from mdico_cube.benchmarks.pixel_series import PixelSeries, read_pixel_series
from mdico_cube.benchmarks.run import BenchmarkPlan, run_benchmark
from mdico_cube.benchmarks.table import Table
from mdico_cube.benchmarks.treesat import read_treesat
from mdico_cube.errors import look_up

Reader = Callable[[Path, str | None, Sequence[str] | None, str | None, int], PixelSeries]
"""(file or folder, label, modalities, group, smallest class) to series."""

FORMATS: dict[str, Reader] = {
    "pixel-series": read_pixel_series,
    "cropharvest": read_cropharvest,
    "treesatai": read_treesat,
    "lfmc": read_lfmc,
}
"""Benchmark -> what reads its files."""


def benchmark(
    name: str,
    data: Path,
    label: str | None,
    out: Path,
    plan: BenchmarkPlan | None = None,
    modalities: Sequence[str] | None = None,
    group: str | None = None,
    min_samples: int = 10,
    overwrite: bool = False,
    resume: bool = False,
) -> Table:
    """Run a benchmark and write its table into `out`.

    Raises:
        MdicoError: an unknown benchmark or method, data that do not fit, or a folder that holds another benchmark.
    """
    series = look_up("benchmark", name, FORMATS)(data, label, modalities, group, min_samples)
    return run_benchmark(series, plan or BenchmarkPlan(), out, overwrite, resume)
