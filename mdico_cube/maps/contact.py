"""A samples store in, one picture out: what a model is shown, sample by sample, sensor by sensor, month by month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mdico_cube.cube.change import writing
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.images import Image, colored, stretched, view_bands
from mdico_cube.maps.style import DPI, FAINT, INK, LINE, SMALL, TEXT, TITLE, new_figure, png
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.sources import gather, window_source
from mdico_cube.patches.splits import FOLDS, Ints
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Floats, InputSpec

_TILE, _GAP, _BREAK, _TEXT, _HEAD = 66, 3, 16, 192, 74  # pixels of the picture
_MOST = 12  # steps shown of a longer series
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def contact_sheet(
    samples: Path,
    target: Path,
    count: int = 8,
    fold: str = "train",
    label: str | None = None,
    seed: int = 0,
    cube: Location | None = None,
) -> Path:
    """Write a contact sheet as PNG: a few samples, classes in turn, every sensor at every step, with the labels.

    Args:
        samples: the samples store.
        target: the PNG file.
        count: samples to show.
        fold: train, validation or test.
        label: show this class only.
        seed: of the choice.
        cube: where the pixels are if the store holds none.

    Raises:
        MdicoError: no samples, an unknown fold or class, or none of that kind.
    """
    store = open_samples(samples)
    chosen = _chosen(store, count, fold, label, seed)
    rows = store.where(FOLDS[fold])
    source = window_source(store, (FOLDS[fold],), tuple(store.inputs), None if store.pixels else cube, hold=False)
    stored = gather(source, np.searchsorted(rows, chosen))
    series = {}
    for name, values in stored.items():
        physical, seen = store.inputs[name].modality.storage.unpack(values)
        series[name] = np.where(seen.all(axis=2, keepdims=True), physical, np.float32(np.nan))
    figure = _lines(store, chosen, series) if store.side == 1 else _sheet(store, chosen, series, fold)
    with writing(target):
        target.write_bytes(png(figure))
    return target


def _chosen(store: SampleStore, count: int, fold: str, label: str | None, seed: int) -> Ints:
    """Rows of the samples to show: classes in turn, in the order of the legend."""
    if fold not in FOLDS:
        raise MdicoError(f"--fold {fold}: there is no such fold. Use one of: {', '.join(FOLDS)}.")
    names = [entry.name for entry in store.legend]
    if label is not None and label not in names:
        raise MdicoError(f"--class {label}: there is no such class. Use one of: {', '.join(names)}.")
    rows = np.random.default_rng(seed).permutation(store.where(FOLDS[fold]))
    groups = [rows[store.label[rows] == k] for k in range(len(names)) if label in (None, names[k])]
    turns = [group[turn] for turn in range(max(map(len, groups), default=0)) for group in groups if turn < len(group)]
    if not turns:
        raise MdicoError(f"{store.path}: has no {fold} sample{f' of {label}' if label else ''}. Choose another fold.")
    picked = np.array(turns[:count])
    return picked[np.argsort(store.label[picked], kind="stable")]


@dataclass(frozen=True, slots=True)
class _Strip:
    """One sensor of every sample, ready to be laid out."""

    tiles: Image
    """(N, T, h, w, 3)."""
    steps: tuple[str, ...]
    title: str


def _strip(spec: InputSpec, values: Floats) -> _Strip:
    """Values (N, T, C, h, w), NaN = not observed, as tiles: one stretch for all samples and steps."""
    names = spec.modality.band_names
    bands = view_bands(names)
    shown = np.linspace(0, len(spec.steps) - 1, min(len(spec.steps), _MOST)).round().astype(int)
    picked = values[:, shown][:, :, bands]  # (N, T, b, h, w)
    optical = len(bands) == 3
    if {"vv", "vh"} <= set(names):
        vv, vh = (picked[:, :, k] for k in (0, 1))
        layers, caption = [vv, vh, vv - vh], "VV, VH, VV \N{MINUS SIGN} VH"
    elif optical:
        layers, caption = [picked[:, :, k] for k in range(3)], "true colour"
    else:
        layers, caption = [picked[:, :, 0]] * 3, names[bands[0]]
    n, t, h, w = layers[0].shape
    image = stretched(np.stack([layer.reshape(n * t * h, w) for layer in layers]), common=optical)
    title = f"{spec.modality.title or spec.modality.name}\n{caption}"
    return _Strip(image.reshape(n, t, h, w, 3), tuple(spec.steps[k] for k in shown), title)


def _sheet(store: SampleStore, chosen: Ints, series: dict[str, Floats], fold: str) -> Figure:
    """Patches: one block per sample, in it one row per sensor with time; labels and sensors without time stand left."""
    strips = {name: _strip(store.inputs[name], values) for name, values in series.items()}
    moving = [strip for name, strip in strips.items() if store.inputs[name].modality.temporal]
    still = [strip for name, strip in strips.items() if not store.inputs[name].modality.temporal]
    target = np.asarray(store.array("target").oindex[chosen]).astype(np.int16)
    labels = colored(np.where(target == UNLABELLED, np.int16(-1), target), store.legend)
    steps = max((len(strip.steps) for strip in moving), default=0)
    per = max(1, len(moving))
    left = _TEXT + (1 + len(still)) * (_TILE + _GAP) + _BREAK
    width = left + steps * (_TILE + _GAP) + 150
    block = per * (_TILE + _GAP) + _BREAK
    height = _HEAD + len(chosen) * block + 34
    canvas = np.ones((height, width, 3), np.float32)
    for i in range(len(chosen)):
        top = _HEAD + i * block
        for k, tile in enumerate([labels[i], *(strip.tiles[i, 0] for strip in still)]):
            _paste(canvas, tile, top, _TEXT + k * (_TILE + _GAP))
        for row, strip in enumerate(moving):
            for t, tile in enumerate(strip.tiles[i]):
                _paste(canvas, tile, top + row * (_TILE + _GAP), left + t * (_TILE + _GAP))
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    _heads(axes, store, moving, still, left, fold)
    for i, row in enumerate(chosen):
        top = _HEAD + i * block
        _caption(axes, store, int(row), top)
        for number, strip in enumerate(moving):
            _beside(axes, strip.title, left + steps * (_TILE + _GAP) + 6, top + number * (_TILE + _GAP))
    _key(axes, store, height)
    return figure


def _paste(canvas: Image, tile: Image, top: int, left: int) -> None:
    """A tile, enlarged or thinned to the size of all tiles, with its gaps as pale grey."""
    place = np.arange(_TILE) * tile.shape[0] // _TILE
    canvas[top : top + _TILE, left : left + _TILE] = tile[place][:, place]


def _heads(
    axes: Axes, store: SampleStore, moving: Sequence[_Strip], still: Sequence[_Strip], left: int, fold: str
) -> None:
    kind = {"train": "Training", "validation": "Validation", "test": "Held-out"}[fold]
    axes.text(8, 16, f"{kind} samples", fontsize=TITLE, fontweight="bold", color=INK, va="center")
    facts = f"{store.side} x {store.side} pixels, {len(store.where(FOLDS[fold])):,} in all"
    axes.text(8, 36, f"{facts}; pale grey = not observed, or no label", fontsize=SMALL, color=FAINT, va="center")
    for k, name in enumerate(["label", *(strip.title.split("\n")[0] for strip in still)]):
        place = _TEXT + k * (_TILE + _GAP) + _TILE / 2
        axes.text(place, _HEAD - 8, name, fontsize=SMALL - 1, color=FAINT, ha="center", va="center")
    longest = sorted(moving, key=lambda strip: -len(strip.steps))[:1]
    for t, step in enumerate(longest[0].steps if longest else ()):
        place = left + t * (_TILE + _GAP) + _TILE / 2
        day = date.fromisoformat(step)
        text = day.strftime("%b %Y") if day.day == 1 else day.strftime("%d %b")
        axes.text(place, _HEAD - 8, text, fontsize=SMALL - 1, color=FAINT, ha="center", va="center")


def _caption(axes: Axes, store: SampleStore, row: int, top: int) -> None:
    entry = store.legend[int(store.label[row])]
    lat, lon = (float(store.column(name)[row]) for name in ("lat", "lon"))
    axes.add_patch(_swatch(8, top + 4, entry.color))
    axes.text(26, top + 11, entry.name, fontsize=TEXT, fontweight="bold", color=INK, va="center")
    place = f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"
    lines = [f"sample {row}", place]
    moving = [name for name, spec in store.inputs.items() if spec.modality.temporal]
    lines += [f"{name} {float(store.column(f'observed_{name}')[row]):.0%} observed" for name in moving[:4]]
    for k, line in enumerate(lines):
        axes.text(8, top + 30 + 15 * k, line, fontsize=SMALL - 1, color=FAINT, va="center")


def _beside(axes: Axes, title: str, left: int, top: int) -> None:
    head, _, tail = title.partition("\n")
    axes.text(left, top + _TILE / 2 - 8, head, fontsize=SMALL, color=INK, va="center")
    axes.text(left, top + _TILE / 2 + 8, tail, fontsize=SMALL - 1, color=FAINT, va="center")


def _key(axes: Axes, store: SampleStore, height: int) -> None:
    """The classes and their colours, in a row at the bottom."""
    left = 8.0
    for entry in store.legend:
        axes.add_patch(_swatch(left, height - 24, entry.color))
        axes.text(left + 18, height - 17, entry.name, fontsize=SMALL, color=INK, va="center")
        left += 34 + 7.6 * len(entry.name)


def _swatch(left: float, top: float, color: str) -> Rectangle:
    return Rectangle((left, top), 13, 13, facecolor=color, edgecolor=LINE, linewidth=0.5)


def _lines(store: SampleStore, chosen: Ints, series: dict[str, Floats]) -> Figure:
    """Pixel series: one row per sample, one column per sensor with time, a line per band."""
    moving = [name for name, spec in store.inputs.items() if spec.modality.temporal] or list(store.inputs)
    figure = new_figure(1.6 + 3.4 * len(moving), 0.7 + 0.95 * len(chosen))
    grid = figure.subplots(len(chosen), len(moving), squeeze=False, sharex="col", sharey="col")
    for i, row in enumerate(chosen):
        entry = store.legend[int(store.label[row])]
        for axes, name in zip(grid[i], moving, strict=True):
            spec = store.inputs[name]
            days = [date.fromisoformat(step) if step else date(2000, 1, 1) for step in spec.steps]
            bands = np.linspace(0, len(spec.modality.bands) - 1, min(4, len(spec.modality.bands))).round().astype(int)
            for color, band in zip(_LINES, bands, strict=False):
                values: npt.NDArray[np.float32] = series[name][i, :, band, 0, 0]
                axes.plot(days, values, color=color, linewidth=1.2, marker="o", markersize=2.5)
            axes.grid(color=LINE, linewidth=0.5)
            axes.tick_params(labelsize=SMALL - 1.5, colors=FAINT, length=0)
            axes.set_xlim(days[0] - timedelta(days=8), days[-1] + timedelta(days=8))
            months = "%b" if days[0].year == days[-1].year else "%b %y"
            axes.xaxis.set_major_formatter(DateFormatter(months))  # type: ignore[no-untyped-call]
            for spine in axes.spines.values():
                spine.set_color(LINE)
            if i == 0:
                known = [spec.modality.bands[band] for band in bands]
                units = ", ".join(dict.fromkeys(band.unit for band in known))
                title = spec.modality.title or name
                axes.set_title(f"{title} ({units})", loc="left", fontsize=TEXT, fontweight="bold", color=INK)
                axes.legend(
                    [band.name for band in known], fontsize=SMALL - 1.5, ncols=4, frameon=False, loc="upper right",
                    borderaxespad=0, handlelength=1.2, columnspacing=0.8,
                )  # fmt: skip
        grid[i][0].set_ylabel(
            f"{entry.name}\nsample {row}", fontsize=SMALL, color=INK, rotation=0, ha="right", va="center", labelpad=12
        )
    return figure
