"""A cube's ledger in, one picture out: per sensor its shards in place, coloured by their state, and its time steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mdico_cube.cube.change import writing
from mdico_cube.cube.inspect import LayerStatus, inspect_cube
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, name_of
from mdico_cube.errors import some
from mdico_cube.maps.charts import step_names
from mdico_cube.maps.style import FAINT, SMALL, TEXT, new_figure, plain, png, titled

_COLORS = {"missing": "#e6e6e6", "failed": "#d55e00"}
_GAPS = "#cc79a7"
_SEEN = LinearSegmentedColormap.from_list("seen", ["#f2f6fa", "#9ecae1", "#2171b5", "#08306b"])
_WIDTH, _ROW = 11.0, 3.1
_WRITTEN = 12  # shards along a side up to which each shows its number


def ledger_picture(cube: Location, target: Path | str) -> Path:
    """Write the picture of a cube's state as a PNG.

    Args:
        cube: where the cube lies.
        target: the file; one that is there is replaced.

    Raises:
        MdicoError: there is no cube, or the file cannot be written.
    """
    target = Path(target)
    content = png(ledger_figure(cube))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.draft")
        draft.write_bytes(content)
        draft.replace(target)
    return target


def ledger_figure(cube: Location) -> Figure:
    """One row per sensor: its shards on the map, coloured by the share that was observed, and that share per step.

    Raises:
        MdicoError: there is no cube.
    """
    reader, statuses = open_reader(cube), inspect_cube(cube)
    figure = new_figure(_WIDTH, 0.7 + _ROW * len(statuses))
    grids = figure.subplots(len(statuses), 2, squeeze=False, width_ratios=[1, 1.45])
    for (place, steps), status in zip(grids, statuses, strict=True):
        _draw_shards(place, reader, status)
        _draw_steps(steps, reader.steps(status.modality), status)
    scale = ScalarMappable(Normalize(0, 100), _SEEN)
    bar = figure.colorbar(scale, ax=grids[:, 0], location="bottom", shrink=0.85, aspect=40, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("observed share of steps and pixels, percent", fontsize=SMALL, color=FAINT)
    kinds = [Patch(color=_COLORS["missing"], label="missing"), Patch(color=_COLORS["failed"], label="failed")]
    kinds.append(Patch(facecolor="white", edgecolor=_GAPS, linewidth=2, label="built with gaps"))
    figure.legend(handles=kinds, loc="outside upper right", ncols=3, fontsize=SMALL, frameon=False)
    figure.suptitle(f"{name_of(reader.path)}: what stands", x=0.01, ha="left", fontsize=TEXT + 3, fontweight="bold")
    return figure


def _draw_shards(axes: Axes, reader: CubeReader, status: LayerStatus) -> None:
    left, bottom, right, top = reader.geobox.boundingbox.bbox
    height, width = reader.shape
    side = max(height, width) if reader.modalities[status.modality].coarse else reader.shard
    rows, columns = -(-height // side), -(-width // side)
    ys = top - (top - bottom) * np.minimum(np.arange(rows + 1) * side, height) / height
    xs = left + (right - left) * np.minimum(np.arange(columns + 1) * side, width) / width
    for shard in status.shards:
        box = xs[shard.column], xs[shard.column + 1], ys[shard.row + 1], ys[shard.row]
        stands, share = shard.state not in _COLORS, shard.valid_fraction
        _draw_shard(axes, box, _SEEN(share) if stands else to_rgba(_COLORS[shard.state]), shard.state == "gaps")
        roomy = min((box[1] - box[0]) / (xs[1] - xs[0]), (box[3] - box[2]) / (ys[0] - ys[1])) > 0.4
        if max(rows, columns) <= _WRITTEN and roomy:
            text = f"{100 * share:.0f}" if stands else {"failed": "failed"}.get(shard.state, "")
            dark = shard.state == "failed" or (stands and share > 0.45)
            middle = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
            axes.annotate(text, middle, ha="center", va="center", fontsize=SMALL, color="white" if dark else "#222222")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=SMALL - 1, colors=FAINT)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.locator_params(nbins=4)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    titled(axes, f"{status.modality}\n{_in_words(status)}")


def _draw_shard(axes: Axes, box: tuple[float, float, float, float], color: object, gaps: bool) -> None:
    left, right, bottom, top = box
    corners = [left, right, right, left], [bottom, bottom, top, top]
    axes.fill(*corners, facecolor=color, edgecolor="white", linewidth=0.6)
    if gaps:
        inner = 0.06 * (right - left), 0.06 * (top - bottom)
        xs = [left + inner[0], right - inner[0], right - inner[0], left + inner[0]]
        ys = [bottom + inner[1], bottom + inner[1], top - inner[1], top - inner[1]]
        axes.fill(xs, ys, facecolor="none", edgecolor=_GAPS, linewidth=2)


def _in_words(status: LayerStatus) -> str:
    counts = {"built": status.done, "with gaps": status.gaps, "failed": status.failed, "missing": status.missing}
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return f"shards: {', '.join(said)}; {some(status.items, 'item')}"


def _draw_steps(axes: Axes, steps: Sequence[str], status: LayerStatus) -> None:
    if tuple(steps) == ("",):
        axes.set_axis_off()  # no time
        return
    shares: npt.NDArray[np.float64] = 100 * np.array(list(status.step_fractions.values()))
    names = step_names(tuple(steps))
    colors = [_SEEN(max(0.25, share / 100)) for share in shares]
    bars = axes.bar(range(len(shares)), shares, width=0.72, color=colors)
    if len(shares) <= 26:
        axes.bar_label(bars, [f"{share:.0f}" for share in shares], fontsize=SMALL - 0.5, color=FAINT, padding=1)
    axes.set_ylim(0, 118)
    axes.set_yticks([0, 50, 100])
    axes.set_xticks(range(len(names)), names, fontsize=SMALL - 1)
    plain(axes, "y")
    empty = sum(share == 0 for share in shares)
    tail = f"; nothing in {empty} of {len(shares)} steps" if empty else ""
    titled(axes, f"observed per step\npercent of the pixels of the shards that stand{tail}")
