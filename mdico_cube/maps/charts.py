"""Scores, availability and training histories in, PNG charts out."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdico_cube.maps.images import QuickLook
from mdico_cube.maps.scores import MapScores, Scores
from mdico_cube.maps.style import (
    FAINT,
    INK,
    SMALL,
    method_color,
    method_name,
    new_figure,
    plain,
    png,
    titled,
)

_LONG = 110  # letters of class names that fit side by side under a chart
History = dict[str, list[float]]
"""Column of a history.csv -> one value per epoch, NaN where the file has none."""


def availability_png(looks: Mapping[str, QuickLook]) -> bytes:
    """`availability_figure` as a PNG."""
    return png(availability_figure(looks))


def availability_figure(looks: Mapping[str, QuickLook]) -> Figure:
    """Per sensor and time step the share of pixels observed in every band, in percent."""
    figure = new_figure(10, 0.5 + 1.45 * len(looks))
    axes = figure.subplots(len(looks), 1, squeeze=False)[:, 0]
    for axis, look in zip(axes, looks.values(), strict=True):
        shares = [100 * share for share in look.availability]
        bars = axis.bar(range(len(shares)), shares, width=0.72, color="#56b4e9")
        axis.bar_label(bars, [f"{share:.0f}" for share in shares], fontsize=SMALL - 0.5, color=FAINT, padding=1)
        axis.set_ylim(0, 118)
        axis.set_yticks([0, 50, 100])
        axis.set_xticks(range(len(shares)), step_names(look.steps))
        plain(axis, "y")
        titled(axis, f"{look.title.splitlines()[0]}\nobserved pixels per step, percent")
    return figure


def step_names(steps: tuple[str, ...]) -> list[str]:
    """Months where every step begins one, days otherwise."""
    monthly = all(step.endswith("-01") for step in steps)
    names = [step[:7] if monthly else step[5:] for step in steps]
    every = -(-len(names) // 14)
    return [name if k % every == 0 else "" for k, name in enumerate(names)]


def confusion_png(scores: Scores, modality: str) -> bytes:
    """One matrix per method for one sensor, summed over seeds, each row in percent of its label."""
    groups: dict[str, list[MapScores]] = defaultdict(list)
    for item in scores.maps:
        if item.modality == modality:
            groups[item.method].append(item)
    methods = _methods(scores, groups)
    names = [item.name for item in scores.classes]
    matrices = [np.sum([item.confusion for item in groups[method]], axis=0) for method in methods]
    gaps = any(matrix[:, -1].any() for matrix in matrices)
    side = 1.6 + 0.42 * len(names)
    figure = new_figure(max(10.0, 2 * side), side + 0.9)
    axes = figure.subplots(1, max(2, len(methods)), squeeze=False)[0]
    for k, (axis, method, matrix) in enumerate(zip(axes, methods, matrices, strict=False)):
        shown = matrix if gaps else matrix[:, :-1]
        _draw_confusion(axis, shown, names, [*names, "none"] if gaps else names, label_rows=k == 0)
        head = f"{groups[method][0].sensor} alone, {method_name(method)}"
        titled(axis, f"{head}\nrow: label, column: map, percent of the label's pixels")
    for axis in axes[len(methods) :]:
        axis.set_visible(False)
    return png(figure)


def _draw_confusion(
    axes: Axes, matrix: npt.NDArray[np.int64], rows: list[str], columns: list[str], label_rows: bool
) -> None:
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(percent.shape):
        if percent[i, j] >= 0.5:
            color = "white" if percent[i, j] > 55 else INK
            axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", fontsize=SMALL, color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows if label_rows else [])
    plain(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)


def class_f1_png(scores: Scores) -> bytes:
    """F1 per class on held-out blocks, one row of bars per sensor, one colour per method, whiskers = sd over seeds."""
    modalities = sorted({item.modality for item in scores.maps})
    figure = new_figure(10, 2.6 * len(modalities) + 0.2)
    axes = figure.subplots(len(modalities), 1, squeeze=False)[:, 0]
    for axis, modality in zip(axes, modalities, strict=True):
        chosen = tuple(item for item in scores.maps if item.modality == modality)
        _grouped_bars(axis, Scores(scores.classes, chosen), scores)
        titled(axis, f"{chosen[0].sensor} alone\nF1 per class on held-out blocks")
    return png(figure)


def draw_class_f1(axes: Axes, scores: Scores) -> None:
    """Every sensor and method in one chart."""
    _grouped_bars(axes, scores, scores)
    titled(axes, "F1 per class on held-out blocks\none sensor at a time; whiskers: standard deviation over seeds")


def _grouped_bars(axes: Axes, shown: Scores, everything: Scores) -> None:
    """Bars in groups by class; within a group by sensor, then method."""
    methods = _methods(everything, {item.method for item in everything.maps})
    modalities = sorted({item.modality for item in shown.maps})
    series = [(modality, method) for modality in modalities for method in methods]
    series = [key for key in series if any((item.modality, item.method) == key for item in shown.maps)]
    sensors = {item.modality: item.sensor for item in shown.maps}
    width = 0.8 / max(len(series), 1)
    place = np.arange(len(shown.classes))
    for k, (modality, method) in enumerate(series):
        values = np.array(
            [[c.f1 for c in m.classes] for m in shown.maps if (m.modality, m.method) == (modality, method)]
        )
        many = len(values) > 1
        axes.bar(
            place + (k - (len(series) - 1) / 2) * width,
            values.mean(axis=0),
            width * 0.92,
            yerr=values.std(axis=0, ddof=1) if many else None,
            color=method_color(method, methods),
            hatch=("", "////", "....", "xx")[modalities.index(modality) % 4],
            edgecolor="white",
            linewidth=0,
            error_kw={"elinewidth": 0.8, "ecolor": INK},
            label=method_name(method) if len(modalities) == 1 else f"{sensors[modality]}, {method_name(method)}",
        )
    supports = [sum(one.classes[k].support for one in shown.maps) for k in range(len(shown.classes))]
    names = [
        item.name if n else f"{item.name}\n(no held-out label)" for item, n in zip(shown.classes, supports, strict=True)
    ]
    axes.set_xticks(place, names)
    if sum(map(len, names)) > _LONG:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 1)
    axes.margins(x=0.01)
    plain(axes, "y")
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(series),
        frameon=False,
        fontsize=SMALL,
        handlelength=1.3,
        columnspacing=1.2,
        borderaxespad=0.1,
    )


def _methods(scores: Scores, wanted: object) -> list[str]:
    """Methods in the order of the summary: the baseline first."""
    ordered = dict.fromkeys(row.method for row in sorted(scores.summary, key=lambda row: row.method != "independent"))
    return [method for method in ordered if method in wanted]  # type: ignore[operator]


def read_histories(out: Path) -> dict[tuple[str, str], History]:
    """(method, seed folder) -> its history.csv, for every trained model of a run."""
    histories = {}
    for path in sorted((Path(out) / "models").glob("*/*/history.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows:
            histories[path.parts[-3], path.parts[-2]] = {
                name: [_number(row[name]) for row in rows] for name in rows[0] if name
            }
    return histories


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def training_png(histories: Mapping[tuple[str, str], History], sensors: Mapping[str, str]) -> bytes:
    """Losses and, per sensor alone, validation macro F1 per epoch; one line per seed, one colour per method.

    Args:
        histories: (method, seed folder) -> history.
        sensors: modality -> what a person calls it.
    """
    methods = sorted({method for method, _ in histories}, key=lambda name: name != "independent")
    found = {name for history in histories.values() for name in history}
    titles = {"train_loss": "training loss", "val_loss": "validation loss"}
    for start, figure_name in (("val_f1_", "macro F1"), ("val_r2_", "R2")):
        modalities = {name: name.removeprefix(start) for name in sorted(found) if name.startswith(start)}
        titles |= {name: f"{sensors.get(modality, modality)}: {figure_name}" for name, modality in modalities.items()}
    figure = new_figure(10, 2.7)
    axes = figure.subplots(1, len(titles))
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for (method, _), history in histories.items():
            color = method_color(method, methods)
            if column in history:
                axis.plot(history["epoch"], history[column], color=color, linewidth=1.2, alpha=0.8)
        axis.set_xlabel("epoch", fontsize=SMALL, color=FAINT)
        plain(axis, "y")
        titled(axis, f"{title}\nvalidation" if column != "train_loss" else f"{title}\nsum of all terms")
    for method in methods:
        axes[0].plot([], [], color=method_color(method, methods), label=method_name(method))
    axes[0].legend(frameon=False, fontsize=SMALL)
    return png(figure)
