"""Scores of every method and seed in, tables of means, gains and what chance could do out: Markdown and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdico_cube.benchmarks.significance import Difference, paired

METRICS = {"f1_macro": "Macro F1", "accuracy": "Overall accuracy", "ece": "Expected calibration error"}


@dataclass(frozen=True)
class Run:
    """One method, trained and scored once."""

    method: str
    seed: int
    classes: list[str]
    sizes: list[int]
    """Windows that trained, that were scored, and without label."""
    rows: dict[str, dict[str, Any]]
    """Subset -> metric -> figure."""
    seconds: float
    fold: int = 0


@dataclass(frozen=True)
class StudyTable:
    """What was measured."""

    title: str
    methods: tuple[str, ...]
    baseline: str
    """What the others are measured against."""
    subsets: tuple[str, ...]
    classes: tuple[str, ...]
    runs: tuple[Run, ...]
    test_share: float
    """Ground that is held out by that which may train, n_test / n_train of the corrected test."""

    def scores(self, method: str, subset: str, metric: str) -> list[float]:
        """One figure per seed, in the order of the seeds; empty where the method cannot do with this subset."""
        found = sorted(
            (r for r in self.runs if r.method == method and subset in r.rows), key=lambda r: (r.seed, r.fold)
        )
        return [r.rows[subset][metric] for r in found]

    def gain(self, method: str, subset: str, metric: str) -> Difference | None:
        """Paired difference to the baseline; None without a common pair."""
        first, second = (self.scores(name, subset, metric) for name in (method, self.baseline))
        if len(first) != len(second) or len(first) < 2:
            return None
        return paired(first, second, self.test_share)

    def class_gain(self, method: str, subset: str) -> list[float]:
        """(K,) mean F1 of each class minus the baseline's; empty where one of them has none."""
        first, second = (np.array(self.scores(name, subset, "f1_per_class")) for name in (method, self.baseline))
        return [] if not (first.size and second.size) else [float(v) for v in first.mean(axis=0) - second.mean(axis=0)]


def make_study_table(
    runs: Sequence[Run], methods: tuple[str, ...], title: str, baseline: str, test_share: float
) -> StudyTable:
    """Runs in any order to one table."""
    subsets = tuple(dict.fromkeys(subset for run in runs for subset in run.rows))
    return StudyTable(title, methods, baseline, subsets, tuple(runs[0].classes), tuple(runs), test_share)


def study_table(table: StudyTable) -> str:
    """Means with standard errors, gains over the baseline with their tests, and gains by class."""
    parts = [f"{table.title}."]
    parts += [_grid(table, f"{name}, mean ± standard error", metric) for metric, name in METRICS.items()]
    parts.append(_gains(table))
    parts.append(_classes(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(table: StudyTable, name: str, metric: str) -> str:
    lines = [f"| {name} | {' | '.join(table.subsets)} |", "|---|" + "---|" * len(table.subsets)]
    lines += [f"| {m} | {' | '.join(_mean(table, m, s, metric) for s in table.subsets)} |" for m in table.methods]
    return "\n".join(lines)


def _mean(table: StudyTable, method: str, subset: str, metric: str) -> str:
    values = table.scores(method, subset, metric)
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {error:.3f}"


def _gains(table: StudyTable) -> str:
    """Every method against the baseline."""
    lines = [
        f"| Macro F1 against {table.baseline} | subset | gain ± SE | SE away | better in | p | p, corrected |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in table.methods:
        for subset in table.subsets:
            gain = None if method == table.baseline else table.gain(method, subset, "f1_macro")
            if gain is not None:
                lines.append(
                    f"| {method} | {subset} | {gain.mean:+.3f} ± {gain.error:.3f} | {gain.errors_away:+.1f} | "
                    f"{gain.wins} of {gain.count} | {gain.p:.3f} | {gain.p_corrected:.3f} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def _classes(table: StudyTable) -> str:
    """Gain of F1 by class, for every subset of one sensor."""
    lines = [f"| F1 by class against {table.baseline} | subset | {' | '.join(table.classes)} |"]
    lines.append("|---|---|" + "---|" * len(table.classes))
    for method in table.methods:
        for subset in (s for s in table.subsets if s.startswith("only ")):
            found = [] if method == table.baseline else table.class_gain(method, subset)
            if found:
                lines.append(f"| {method} | {subset} | {' | '.join(f'{value:+.3f}' for value in found)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def write_study(table: StudyTable, folder: Path) -> None:
    """study.md and study.csv, one line per method, seed, subset and metric."""
    (folder / "study.md").write_text(study_table(table), encoding="utf-8")
    with (folder / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "subset", "metric", "value"])
        for run in table.runs:
            for subset, scores in run.rows.items():
                for metric in METRICS:
                    writer.writerow([run.method, run.seed, subset, metric, f"{scores[metric]:.6f}"])
