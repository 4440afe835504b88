"""A matplotlib Figure in, PNG bytes out; and the few colours, sizes and ornaments that all pictures share."""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

INK = "#222222"
FAINT = "#767676"
LINE = "#d9d9d9"
OTHERS = ("#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#e69f00")
METHODS = {"independent": "#9a9a9a", "mdico": "#0072b2"}
"""Colours that stay apart for colour-blind readers."""
NAMES = {"independent": "independent", "mdico": "MDiCo"}
TITLE, TEXT, SMALL = 10.5, 9.0, 8.0
DPI = 130


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """A white figure of this size in inches whose parts find their own place."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def method_color(method: str, methods: list[str]) -> str:
    """A method's colour: the same in every picture of a run."""
    rest = [name for name in methods if name not in METHODS]
    return METHODS[method] if method in METHODS else OTHERS[rest.index(method) % len(OTHERS)]


def method_name(method: str) -> str:
    """What a method is called in pictures and tables."""
    return NAMES.get(method, method)


def titled(axes: Axes, title: str) -> None:
    """A left-aligned title: the first line stands out, the others explain."""
    head, _, tail = title.partition("\n")
    room = 6 + 1.45 * SMALL * bool(tail)
    axes.set_title(head, loc="left", fontsize=TITLE, fontweight="bold", color=INK, pad=room)
    axes.annotate(
        tail,
        (0, 1),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=SMALL,
        color=FAINT,
        annotation_clip=False,
    )


def plain(axes: Axes, grid: str | None = None) -> None:
    """Axes without a box, with faint grid lines along one axis."""
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
    if grid:
        axes.grid(axis=grid, color=LINE, linewidth=0.7)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def scale_bar(axes: Axes, width: int, height: int, metres: float) -> None:
    """A bar of a round length in the lower left corner of an image of this many pixels."""
    length = _round_length(width * metres * 0.28)
    pixels = length / metres
    left, base, thick = 0.03 * width, 0.955 * height, max(0.011 * height, 1.0)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    pad = 0.018 * width
    frame = (left - pad, base - 0.072 * height), pixels + 2 * pad, 0.072 * height + thick + 0.014 * height
    axes.add_patch(Rectangle(*frame, facecolor="white", alpha=0.85, linewidth=0))
    axes.add_patch(Rectangle((left, base), pixels, thick, facecolor=INK, linewidth=0))
    axes.text(left + pixels / 2, base - 0.012 * height, label, ha="center", va="bottom", fontsize=SMALL, color=INK)


def _round_length(metres: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** len(str(int(metres))) / 10 if metres >= 1 else 1.0
    return max((k * power for k in (1, 2, 5) if k * power <= metres), default=power)


def swatches(entries: list[tuple[str, str]]) -> list[Patch]:
    """Legend patches from (name, colour)."""
    return [Patch(facecolor=color, edgecolor="#00000033", linewidth=0.5, label=name) for name, color in entries]
