"""Small images in, PNG pictures out: panels with one legend and scale bar, who is right where, and the poster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdico_cube.maps.charts import draw_class_f1
from mdico_cube.maps.images import Image, painted
from mdico_cube.maps.scores import Scores
from mdico_cube.maps.style import LINE, SMALL, TITLE, new_figure, png, scale_bar, swatches, titled
from mdico_cube.spec import LabelClass

FOLDS = (("unused", "#d9d9d9"), ("training", "#56b4e9"), ("validation", "#e69f00"), ("held out", "#7b2d8b"))
"""What the fold values 0..3 mean."""
Entries = list[tuple[str, str]]
"""Legend entries: (name, hex colour)."""
OUTCOMES = (
    ("both right", "#dcdcdc"),
    ("both wrong", "#8f8f8f"),
    ("only {b} right", "#0072b2"),
    ("only {a} right", "#e69f00"),
)
"""Two maps against the labels, in the order of `outcomes`."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a picture."""

    image: Image
    title: str


def panels_png(panels: list[Panel], metres: float | None, legends: tuple[Entries, ...] = ()) -> bytes:
    """`panels_figure` as a PNG."""
    return png(panels_figure(panels, metres, legends))


def panels_figure(
    panels: list[Panel], metres: float | None, legends: tuple[Entries, ...] = (), width: float = 10.0
) -> Figure:
    """Panels side by side, one scale bar, legends below.

    Args:
        panels: images of one shape.
        metres: ground size of an image pixel; None draws no scale bar.
        legends: one or two lists of (name, hex colour): the first stands left, the second right.
        width: inches.
    """
    count = max(len(panels), 2)
    tall, wide = panels[0].image.shape[:2]
    side = width / count - 0.1
    shares = (1.0,) if len(legends) == 1 else (0.62, 0.38)
    columns = [_legend_columns(entries, width * share) for entries, share in zip(legends, shares, strict=False)]
    rows = [-(-len(entries) // n) for entries, n in zip(legends, columns, strict=True)]
    figure = new_figure(width, side * tall / wide + 0.5 + (0.1 + 0.17 * max(rows) if rows else 0))
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        show(axis, panel)
        axis.set_anchor("S")  # what room is left stands above, where the titles are
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if metres:
        scale_bar(axes[0], wide, tall, metres)
    for place, entries, n in zip(("left", "right"), legends, columns, strict=False):
        _legend_below(figure, entries, n, place)
    return figure


def show(axes: Axes, panel: Panel) -> None:
    """One image with its title and a hairline frame."""
    axes.imshow(panel.image, interpolation="nearest" if max(panel.image.shape) < 600 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LINE)
    titled(axes, panel.title)


def class_entries(legend: tuple[LabelClass, ...], unpredicted: str | None = None) -> Entries:
    """Legend entries of the classes, and of pixels without one."""
    entries = [(item.name, item.color) for item in legend]
    return [*entries, (unpredicted, "#ededed")] if unpredicted else entries


def outcomes(
    first: npt.NDArray[np.int16], second: npt.NDArray[np.int16], labels: npt.NDArray[np.int16]
) -> npt.NDArray[np.int16]:
    """Index into OUTCOMES for two maps a and b: 0 both right, 1 both wrong, 2 only b, 3 only a; -1 unlabelled."""
    right_a, right_b = first == labels, second == labels
    outcome = np.select([right_a & right_b, right_b, right_a], [0, 2, 3], 1)
    return np.where(labels < 0, -1, outcome).astype(np.int16)


def outcome_panel(
    outcome: npt.NDArray[np.int16], held_out: npt.NDArray[np.bool_], names: tuple[str, str], title: str
) -> Panel:
    """Who is right where; the shares in the title count held-out pixels only."""
    counted = outcome[held_out & (outcome >= 0)]
    share = [float((counted == k).mean()) if counted.size else 0.0 for k in (2, 3)]
    text = f"{title}\nheld out: {names[1]} alone {share[0]:.1%}, {names[0]} alone {share[1]:.1%}"
    return Panel(painted(outcome, [color for _, color in OUTCOMES]), text)


def outcome_entries(names: tuple[str, str]) -> Entries:
    """Legend of a difference picture for two methods a and b."""
    entries = [(text.format(a=names[0], b=names[1]), color) for text, color in OUTCOMES]
    return entries


def poster_png(
    truth: Panel,
    looks: list[Panel],
    maps: list[Panel],
    scores: Scores,
    metres: float | None,
) -> bytes:
    """One picture of a run: label and sensors above, single-sensor maps and legend in the middle, F1 per class below.

    Args:
        truth: the label map.
        looks: quick-looks, one per mapped sensor.
        maps: maps by each of these sensors alone, in the same order.
        scores: of the run.
        metres: ground size of an image pixel.
    """
    columns = 1 + len(looks)
    tall, wide = truth.image.shape[:2]
    width = 3.6 * columns
    row = (width / columns) * tall / wide + 0.55
    figure = new_figure(width, 2 * row + 2.9)
    grid = figure.add_gridspec(3, columns, height_ratios=[row, row, 2.9])
    for k, panel in enumerate([truth, *looks]):
        show(figure.add_subplot(grid[0, k]), panel)
    for k, panel in enumerate(maps, start=1):
        show(figure.add_subplot(grid[1, k]), panel)
    if metres:
        scale_bar(figure.axes[0], wide, tall, metres)
    key = figure.add_subplot(grid[1, 0])
    key.set_axis_off()
    key.legend(
        handles=swatches(class_entries(scores.classes, "no label")),
        loc="center left",
        title="Train with every sensor,\nmap with any one.\n",
        title_fontproperties={"size": TITLE + 3, "weight": "bold"},
        alignment="left",
        frameon=False,
        fontsize=SMALL + 1.5,
        labelspacing=0.75,
        handlelength=1.6,
        handleheight=1.2,
        borderaxespad=0,
    )
    draw_class_f1(figure.add_subplot(grid[2, :]), scores)
    return png(figure)


def _legend_columns(entries: Entries, width: float) -> int:
    longest = max(len(name) for name, _ in entries)
    return max(1, min(len(entries), int(width / (0.075 * longest + 0.55))))


def _legend_below(figure: Figure, entries: Entries, columns: int, place: str) -> None:
    figure.legend(
        handles=swatches(entries),
        loc="outside lower left" if place == "left" else "outside lower right",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.3,
        handleheight=1.0,
        columnspacing=1.4,
        borderpad=0.1,
    )
