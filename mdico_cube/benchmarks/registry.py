"""A benchmark's name and options in, its table out: what the command line calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mdico_cube.benchmarks.pixel_series import read_pixel_series
from mdico_cube.benchmarks.run import BenchmarkPlan, run_benchmark
from mdico_cube.benchmarks.table import Table
from mdico_cube.errors import look_up

FORMATS = {"pixel-series": read_pixel_series}
"""Benchmark -> what reads its files."""


def benchmark(
    name: str,
    data: Path,
    label: str,
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
