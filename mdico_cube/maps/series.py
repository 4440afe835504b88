"""One pixel's values over time in, a figure out: a panel per sensor, dates below, units at the side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mdico_cube.errors import MdicoError
from mdico_cube.maps.style import LINE, SMALL, TEXT, new_figure, plain, titled

_HUES = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#666666", "#7b2d8b", "#222222")
"""Line colours that stay apart for colour-blind readers."""
_BROKEN = "#bbbbbb"


def series_figure(table: pd.DataFrame, titles: Mapping[str, str], place: str) -> Figure:
    """Draw the rows that have a time.

    Args:
        table: modality, time, band, value (NaN = not observed), unit; one row per value.
        titles: modality -> what a person calls the sensor.
        place: where the pixel is, for the title.

    Raises:
        MdicoError: no row has a time.
    """
    timed = table.dropna(subset=["time"])
    groups = list(timed.groupby(["modality", "unit"], sort=False))
    if not groups:
        raise MdicoError("this pixel has no values over time: no sensor here has time steps.")
    figure = new_figure(10, 0.3 + 2.3 * len(groups))
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    for axes, ((name, unit), rows) in zip(panels, groups, strict=True):
        _panel(axes, rows)
        axes.set_ylabel(str(unit), fontsize=TEXT)
        titled(axes, f"{titles.get(str(name), str(name))}\n{place}, {unit}")
    locator = dates.AutoDateLocator(minticks=4, maxticks=13)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    """One line per band; months without an observation are bridged by a faint line."""
    for hue, (band, values) in zip(_hues(rows["band"].nunique()), rows.groupby("band", sort=False), strict=True):
        seen = values.dropna(subset=["value"])
        axes.plot(seen["time"], seen["value"], color=_BROKEN, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.plot(values["time"], values["value"], marker="o", markersize=3.5, color=hue, label=str(band), zorder=2)
    plain(axes, "y")
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(LINE)
    axes.margins(x=0.02)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL, labelspacing=0.25)


def _hues(count: int) -> list[str]:
    return [to_hex(_HUES[k % len(_HUES)]) for k in range(count)]
