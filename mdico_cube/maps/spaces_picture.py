"""Embeddings of all sensors by space in, one picture out: two dimensions, once by sensor and once by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mdico_cube.colearn.spaces import SpaceScores
from mdico_cube.maps.style import FAINT, INK, LINE, SMALL, TEXT, TITLE, new_figure, titled
from mdico_cube.spec import Floats, LabelClass

Layout = Literal["tsne", "pca"]
LAYOUTS: tuple[Layout, ...] = ("tsne", "pca")
_SENSORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_MARKERS = "osD^v"
_WORDS = {
    "specific": "what this sensor alone tells of the class",
    "shared": "what every sensor tells",
    "unused": "what belongs to the sensor, not to the class",
    "embedding": "one space, not parted",
}


def lay_out(vectors: Floats, how: Layout, seed: int = 0) -> Floats:
    """(N, d) to (N, 2): principal components, or t-SNE that starts from them (van der Maaten and Hinton, 2008)."""
    scaled = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-6)
    if how == "pca":
        return np.asarray(PCA(2, random_state=seed).fit_transform(scaled), dtype=np.float32)
    near = min(30.0, (len(vectors) - 1) / 3)
    model = TSNE(2, perplexity=near, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(model.fit_transform(scaled), dtype=np.float32)


def draw_spaces(
    spaces: Mapping[str, Mapping[str, Floats]],
    scores: Mapping[str, SpaceScores],
    labels: npt.NDArray[np.int64],
    legend: Sequence[LabelClass],
    title: str,
    how: Layout = "tsne",
    seed: int = 0,
) -> Figure:
    """One row per space: on the left coloured by sensor, on the right by class; a marker per sensor in both.

    Args:
        spaces: space -> modality -> (N, d), the same places in the same order.
        scores: of each space.
        labels: (N,) class index.
        legend: classes, with their colours.
        title: over everything.
        how: the layout.
        seed: of t-SNE.
    """
    figure = new_figure(9.4, 3.6 * len(spaces) + 1.0)
    grid = figure.subplots(len(spaces), 2, squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE + 2, fontweight="bold", color=INK)
    names = list(next(iter(spaces.values())))
    chance = 1 / len(names), 1 / len(np.unique(labels))
    for (name, vectors), (left, right) in zip(spaces.items(), grid, strict=True):
        place = lay_out(np.concatenate([vectors[m] for m in names]), how, seed).reshape(len(names), len(labels), 2)
        found = scores[name]
        titled(left, f"{name}: {_WORDS[name]}\nsensor told apart {found.modality:.0%} (chance {chance[0]:.0%})")
        titled(right, f"the same by class\nclass told apart {found.label:.0%} (chance {chance[1]:.0%})")
        for number in range(len(names)):
            marker, points = _MARKERS[number % len(_MARKERS)], place[number]
            _scatter(left, points, [_SENSORS[number % len(_SENSORS)]] * len(labels), marker)
            _scatter(right, points, [legend[k].color for k in labels], marker)
    _legends(figure, names, [legend[k] for k in np.unique(labels)])
    return figure


def _scatter(axes: Axes, points: Floats, colors: list[str], marker: str) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=13, c=colors, marker=marker, linewidths=0.3, edgecolors=LINE, alpha=0.85)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color(LINE)


def _legends(figure: Figure, names: list[str], classes: Sequence[LabelClass]) -> None:
    def dot(color: str, marker: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=6, color=color, label=label)

    sensors = [dot(_SENSORS[i % len(_SENSORS)], _MARKERS[i % len(_MARKERS)], m) for i, m in enumerate(names)]
    kinds = [dot(entry.color, "o", entry.name) for entry in classes]
    figure.legend(
        handles=[*sensors, *kinds],
        loc="outside lower left",
        ncols=5,
        fontsize=SMALL,
        labelcolor=FAINT,
        frameon=False,
        handletextpad=0.1,
        title_fontsize=TEXT,
    )
