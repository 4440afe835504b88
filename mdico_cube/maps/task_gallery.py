"""A run whose maps hold labels or a value in, the report's pictures of them out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from mdico_cube.cube.reader import CubeReader
from mdico_cube.maps.charts import read_histories, training_png
from mdico_cube.maps.gallery import Picture, Section, availability_section, sensors_section
from mdico_cube.maps.images import BLANK, Image, QuickLook, metres_per_pixel, painted, quick_look, thinned
from mdico_cube.maps.mapstore import read_map, unpacked
from mdico_cube.maps.plots import FOLDS, Entries, Panel, show
from mdico_cube.maps.scores import BASELINE, Spread, spread
from mdico_cube.maps.style import (
    FAINT,
    LINE,
    SMALL,
    method_color,
    method_name,
    new_figure,
    plain,
    png,
    scale_bar,
    titled,
)
from mdico_cube.maps.task_scores import MapFigures, TaskScores
from mdico_cube.maps.write import map_path
from mdico_cube.patches.divide import open_split
from mdico_cube.spec import Floats

RAMP = "viridis"
"""Colours of a value, from low to high."""


class TaskGallery:
    """Draws one run; every raster is read once, thinned to about 1000 pixels a side."""

    def __init__(self, out: Path, reader: CubeReader, scores: TaskScores) -> None:
        self.out, self.reader, self.scores = out, reader, scores
        self.metres = metres_per_pixel(reader)
        self.modalities = sorted({item.modality for item in scores.maps})

    @cached_property
    def looks(self) -> dict[str, QuickLook]:
        """Quick-look of every sensor of the cube."""
        return {name: quick_look(self.reader, name) for name in self.reader.modalities}

    def sections(self) -> tuple[Section, ...]:
        """Everything the report shows, in its order."""
        own = self._values() if self.scores.task == "regression" else self._labels()
        found = (sensors_section(self.looks, self.metres), availability_section(self.looks, self.reader), *own)
        return tuple(section for section in (*found, self._training()) if section.pictures)

    def _values(self) -> Iterator[Section]:
        truth, unit = thinned(self.reader, self.reader.values), self.scores.classes[0].name
        limits = _limits(truth)
        split = open_split(self.out / "split.zarr")
        folds = np.asarray(thinned(self.reader, lambda y, x: split.folds(self.reader, y, x)), np.int16)
        panels = [
            Panel(ramped(truth, limits), "Labels\nvalue known on the ground"),
            Panel(painted(folds, [color for _, color in FOLDS]), "Folds\nblocks that train or score"),
        ]
        image = values_png(panels, self.metres, limits, unit, list(FOLDS))
        text = "Blocks are held out as a whole, with a guard strip around."
        yield Section("labels", "Labels and held-out blocks", text, (Picture(image, "Known values and the folds."),))
        pictures = tuple(self._value_maps(modality, limits, unit) for modality in self.modalities)
        yield Section("maps", "Maps by one sensor alone", "Each map was made with one sensor alone.", pictures)
        picture = Picture(scatter_png(self.scores), "Predicted against true values of held-out pixels.")
        text = "Held-out pixels of all seeds together, more where it is darker; on the line a prediction is right."
        yield Section("scatter", "Predicted and true", text, (picture,))

    def _value_maps(self, modality: str, limits: tuple[float, float], unit: str) -> Picture:
        panels = []
        for item in first_seeds(self.scores, modality):
            group: Any = read_map(map_path(self.out, item.method, item.modality, item.seed))["value"]
            image = ramped(thinned(self.reader, partial(unpacked, group)), limits)
            title = f"{item.sensor} alone, {method_name(item.method)}"
            panels.append(Panel(image, f"{title}\nheld-out R2 {item.figures['r2']:.3f} (seed {item.seed})"))
        return Picture(values_png(panels[:3], self.metres, limits, unit), f"Maps made with {modality} alone.")

    def _labels(self) -> Iterator[Section]:
        pictures = tuple(picture for modality in self.modalities for picture in self._label_maps(modality))
        text = "Probability of each label by the last method, one sensor alone: dark = absent, bright = there."
        yield Section("maps", "Maps by one sensor alone", text, pictures)
        picture = Picture(label_f1_png(self.scores), "F1 per label for every sensor and method.")
        text = "Held-out pixels. Whiskers are standard deviations over seeds."
        yield Section("classes", "Label by label", text, (picture,))

    def _label_maps(self, modality: str) -> Iterator[Picture]:
        """Three labels abreast, as many rows as it takes."""
        item = first_seeds(self.scores, modality)[-1]
        group: Any = read_map(map_path(self.out, item.method, item.modality, item.seed))["probabilities"]
        percent = thinned(self.reader, lambda y, x: np.asarray(group[:, y, x]))
        values = np.where(percent == group.fill_value, np.float32(np.nan), percent.astype(np.float32))
        head = f"{item.sensor} alone, {method_name(item.method)}"
        panels = [
            Panel(ramped(one, (0.0, 100.0)), f"{label.name}\n{head}, held-out F1 {score.f1:.3f}")
            for one, label, score in zip(values, self.scores.classes, item.labels, strict=True)
        ]
        for start in range(0, len(panels), 3):
            names = ", ".join(label.name for label in self.scores.classes[start : start + 3])
            picture = values_png(panels[start : start + 3], self.metres, (0.0, 100.0), "probability, percent")
            yield Picture(picture, f"Probability of {names} by {modality} alone.")

    def _training(self) -> Section:
        histories = read_histories(self.out)
        sensors = {item.modality: item.sensor for item in self.scores.maps}
        pictures = (Picture(training_png(histories, sensors), "Loss and figures per epoch."),) if histories else ()
        text = "One line per seed. Methods sum different losses: compare their levels within a method only."
        return Section("training", "How training went", text, pictures)


def first_seeds(scores: TaskScores, modality: str) -> list[MapFigures]:
    """The first seed's map of each method, the baseline first."""
    first: dict[str, MapFigures] = {}
    for item in sorted(scores.maps, key=lambda m: (m.method != BASELINE, m.method, m.seed)):
        if item.modality == modality:
            first.setdefault(item.method, item)
    return list(first.values())


def ramped(values: Floats, limits: tuple[float, float]) -> Image:
    """Values (h, w), NaN = none, as an image from the ramp's dark to its bright end."""
    low, high = limits
    shares = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    image: Image = np.asarray(colormaps[RAMP](np.nan_to_num(shares))[..., :3], np.float32)
    image[np.isnan(values)] = BLANK
    return image


def values_png(
    panels: list[Panel], metres: float | None, limits: tuple[float, float], unit: str, entries: Entries | None = None
) -> bytes:
    """Panels with one colour bar; with `entries` a legend too, as `panels_png` draws it, for the last panel."""
    count, (tall, wide) = max(len(panels), 2), panels[0].image.shape[:2]
    figure = new_figure(10, (10 / count - 0.1) * tall / wide + 1.05)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        show(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if metres:
        scale_bar(axes[0], wide, tall, metres)
    scale = ScalarMappable(Normalize(*limits), RAMP)
    bar = figure.colorbar(scale, ax=axes[0], location="bottom", shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(unit, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, length=2)
    bar.outline.set_visible(False)
    if entries:
        text = [f"{name}" for name, _ in entries]
        handles = [axes[-1].plot([], [], "s", color=color, label=name)[0] for name, color in entries]
        axes[-1].legend(handles, text, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=len(text), frameon=False,
                        fontsize=SMALL, handletextpad=0.2, columnspacing=1.0)  # fmt: skip
    return png(figure)


def scatter_png(scores: TaskScores) -> bytes:
    """Counts of (truth, prediction) for each sensor and method, all seeds together."""
    groups: dict[tuple[str, str], list[MapFigures]] = {}
    for item in sorted(scores.maps, key=lambda m: (m.modality, m.method != BASELINE, m.method)):
        groups.setdefault((item.modality, item.method), []).append(item)
    columns = min(3, max(2, len(groups)))
    rows = -(-len(groups) // columns)
    figure = new_figure(10, 3.6 * rows * 2 / columns + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, ((_, method), maps) in zip(axes, groups.items(), strict=False):
        counts = np.sum([np.asarray(one.counts) for one in maps], axis=0)
        low, high = maps[0].limits or (0.0, 1.0)
        shown = np.ma.masked_equal(counts, 0)
        axis.imshow(
            shown, origin="lower", extent=(low, high, low, high), cmap="Blues", norm=LogNorm(1, max(2, counts.max()))
        )
        axis.plot([low, high], [low, high], color=FAINT, linewidth=0.8)
        axis.set_xlabel(f"{scores.classes[0].name}, true", fontsize=SMALL)
        axis.set_ylabel("predicted", fontsize=SMALL)
        plain(axis)
        told = {name: spread([one.figures[name] for one in maps]) for name in ("r2", "rmse", "bias")}
        titled(axis, f"{maps[0].sensor} alone, {method_name(method)}\n{_told(told)}")
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    return png(figure)


def _told(figures: dict[str, Spread]) -> str:
    return f"R2 {figures['r2'].mean:.3f}, RMSE {figures['rmse'].mean:.3g}, bias {figures['bias'].mean:+.2g}"


def label_f1_png(scores: TaskScores) -> bytes:
    """F1 per label, one row of bars per sensor, one colour per method, whiskers = sd over seeds."""
    modalities = sorted({item.modality for item in scores.maps})
    methods = sorted({item.method for item in scores.maps}, key=lambda name: (name != BASELINE, name))
    figure: Figure = new_figure(10, 2.6 * len(modalities) + 0.2)
    axes = figure.subplots(len(modalities), 1, squeeze=False)[:, 0]
    place, width = np.arange(len(scores.classes)), 0.8 / len(methods)
    for axis, modality in zip(axes, modalities, strict=True):
        for k, method in enumerate(methods):
            maps = [one for one in scores.maps if (one.modality, one.method) == (modality, method)]
            if not maps:
                continue
            values = np.array([[label.f1 for label in one.labels] for one in maps])
            axis.bar(
                place + (k - (len(methods) - 1) / 2) * width,
                values.mean(axis=0),
                0.92 * width,
                yerr=values.std(axis=0, ddof=1) if len(maps) > 1 else None,
                color=method_color(method, methods),
                label=method_name(method),
                error_kw={"elinewidth": 0.8, "ecolor": LINE},
            )
        axis.set_xticks(place, [item.name for item in scores.classes], rotation=30, ha="right", rotation_mode="anchor")
        axis.set_ylim(0, 1)
        plain(axis, "y")
        sensor = next(one.sensor for one in scores.maps if one.modality == modality)
        titled(axis, f"{sensor} alone\nF1 per label on held-out blocks")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(methods), frameon=False, fontsize=SMALL)
    return png(figure)


def _limits(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    return float(low), float(high)
