"""Figures of every fold in, one table of means and standard deviations out: CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.benchmarks.scores import METRICS
from mdico_cube.benchmarks.significance import Difference, paired

_PRINTED = {"classes": 2, "multilabel": 3, "regression": 5}  # how many of a task's figures a page shows; a file all
_PROTOCOLS = {
    "honest": "honest protocol: {}last epoch, nothing chosen on scored pixels",
    "paper": "PAPER PROTOCOL: {}early stopping on the scored fold; only to compare with published figures",
}


@dataclass(frozen=True)
class Cell:
    """One method with one subset of sensors."""

    method: str
    subset: str
    metric: str
    mean: float
    std: float
    """Over folds and seeds (n - 1)."""
    count: int


@dataclass(frozen=True)
class Gain:
    """One method against the first one that was asked for, with one subset of sensors, in the task's first figure."""

    method: str
    subset: str
    difference: Difference


@dataclass(frozen=True)
class Table:
    """What was measured."""

    title: str
    methods: tuple[str, ...]
    subsets: tuple[str, ...]
    cells: tuple[Cell, ...]
    task: str = "classes"
    baseline: str = ""
    gains: tuple[Gain, ...] = ()
    protocol: str = "honest"

    def cell(self, method: str, subset: str, metric: str) -> Cell | None:
        """One cell, or None where the method cannot do with this subset."""
        wanted = (method, subset, metric)
        return next((c for c in self.cells if (c.method, c.subset, c.metric) == wanted), None)


def make_table(
    series: PixelSeries,
    plan: dict[str, Any],
    results: Sequence[dict[str, Any]],
    methods: tuple[str, ...],
    subsets: tuple[str, ...],
) -> Table:
    """Mean and standard deviation over folds and seeds."""
    cells = []
    for method in methods:
        for subset in subsets:
            for metric in METRICS[series.task]:
                rows = [r["rows"].get(subset, {}) for r in results if r["method"] == method]
                values = [row[metric] for row in rows if metric in row]
                if values:
                    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                    cells.append(Cell(method, subset, metric, float(np.mean(values)), std, len(values)))
    what = {"classes": "classes", "multilabel": "labels side by side", "regression": "value"}[series.task]
    folds = "the official split" if series.official is not None else f"{plan['folds']} folds"
    drawn = "spatially grouped folds, " if plan["protocol"] == "honest" else "random folds, "
    units = "pixels" if series.side == 1 else "patches"
    weighed = "" if plan["weights"] == "auto" else f", weights {plan['weights']}"
    title = (
        f"{series.name}: {len(series.target)} {units}, {len(series.classes)} {what} "
        f"({', '.join(series.classes)}), {folds} x {plan['seeds']} seeds, {plan['encoder']}, "
        f"{plan['epochs']} epochs{weighed}; "
        f"{_PROTOCOLS[plan['protocol']].format(drawn if series.official is None else '')}"
    )
    baseline = next(iter(plan["methods"]), "")
    gains = _gains(series, results, baseline)
    return Table(title, methods, subsets, tuple(cells), series.task, baseline, gains, plan["protocol"])


def _gains(series: PixelSeries, results: Sequence[dict[str, Any]], baseline: str) -> tuple[Gain, ...]:
    """Every method against the baseline over the folds and seeds that both have."""
    metric = next(iter(METRICS[series.task]))
    found: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for result in results:
        for subset, row in result["rows"].items():
            if metric in row:
                found.setdefault((result["method"], subset), {})[result["seed"], result["fold"]] = row[metric]
    tested = float(np.mean([result["test"] for result in results]))
    share = tested / max(1.0, len(series.target) - tested)
    gains = []
    for (method, subset), scores in found.items():
        base = found.get((baseline, subset), {})
        common = sorted(scores.keys() & base.keys())
        if method != baseline and len(common) > 1:
            pair = [scores[key] for key in common], [base[key] for key in common]
            gains.append(Gain(method, subset, paired(*pair, share)))
    return tuple(gains)


def benchmark_table(table: Table) -> str:
    """One table per metric: methods down, subsets across."""
    parts = [f"{table.title}."]
    for metric, name in list(METRICS[table.task].items())[: _PRINTED[table.task]]:
        lines = [f"| {name} | {' | '.join(table.subsets)} |", "|---|" + "---|" * len(table.subsets)]
        for method in table.methods:
            found = [table.cell(method, subset, metric) for subset in table.subsets]
            texts = ["" if c is None else f"{c.mean:.3f}" + f" ± {c.std:.3f}" * (c.count > 1) for c in found]
            lines.append(f"| {method} | {' | '.join(texts)} |")
        parts.append("\n".join(lines))
    if table.gains:
        parts.append(_gain_lines(table))
    return "\n\n".join(parts) + "\n"


def _gain_lines(table: Table) -> str:
    """Methods down, subsets across: mean gain and p of the corrected resampled t-test."""
    name = next(iter(METRICS[table.task].values()))
    by_place = {(gain.method, gain.subset): gain.difference for gain in table.gains}
    lines = [f"| {name}, gain over {table.baseline} (corrected p) | {' | '.join(table.subsets)} |"]
    lines.append("|---|" + "---|" * len(table.subsets))
    for method in (m for m in table.methods if m != table.baseline):
        found = [by_place.get((method, subset)) for subset in table.subsets]
        texts = ["" if d is None else f"{d.mean:+.3f} ({d.p_corrected:.2f})" for d in found]
        lines.append(f"| {method} | {' | '.join(texts)} |")
    return "\n".join(lines)


def write_table(table: Table, folder: Path) -> None:
    """table.md and table.csv."""
    (folder / "table.md").write_text(benchmark_table(table), encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "subset", "metric", "mean", "std", "count", "protocol"])
        for c in table.cells:
            writer.writerow([c.method, c.subset, c.metric, f"{c.mean:.6f}", f"{c.std:.6f}", c.count, table.protocol])
