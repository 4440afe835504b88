"""Values known on the ground in, the parts of their range out, which stand for classes when windows are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ValueSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, Floats, LabelClass

_DARK, _LIGHT = 40, 220  # grey of the smallest and the largest values


def known_values(section: ValueSection, values: Array) -> Floats:
    """Values as float32, NaN where they are not finite or outside low to high."""
    found = np.asarray(values, dtype=np.float32)
    low, high = (np.float32(np.nan if end is None else end) for end in (section.low, section.high))
    with np.errstate(invalid="ignore"):
        return np.where(~np.isfinite(found) | (found < low) | (found > high), np.float32(np.nan), found)


def numbers_of(column: Any, path: Path) -> Floats:
    """A column of a vector file as numbers, NaN where it is empty.

    Raises:
        MdicoError: it holds something else.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    odd = column[numbers.isna() & column.notna()]
    if len(odd):
        raise MdicoError(
            f"labels {path}: column {column.name} holds {odd.iloc[0]!r}, but values are numbers. Name another column "
            "in labels.attribute, or list classes in labels.classes."
        )
    return np.asarray(numbers, dtype=np.float32)


def check_values(section: ValueSection, path: Path, values: Floats) -> None:
    """Raise MdicoError unless there are two different values to learn from."""
    found = values[~np.isnan(values)]
    if not found.size:
        raise MdicoError(
            f"labels {path}: no pixel in the area has a value of {section.name}. Check the file's extent and CRS "
            "against the recipe's area, its no-data value, and labels.values.low and high."
        )
    if found.min() == found.max():
        raise MdicoError(
            f"labels {path}: every value of {section.name} in the area is {found[0]:g}: there is nothing to learn. "
            "Widen the area or name another column."
        )


def range_edges(section: ValueSection, values: Floats) -> tuple[float, ...]:
    """Borders of the parts of the values' range, ascending, smallest and largest value included: parts + 1 of them.

    Equal borders fall together: a value that many pixels carry makes fewer parts.
    """
    found = values[~np.isnan(values)].astype(np.float64)
    shares = np.linspace(0, 1, section.bins + 1)
    if not found.size:
        return (0.0, 1.0)
    edges = np.quantile(found, shares) if section.spread == "quantiles" else found.min() + shares * np.ptp(found)
    kept = np.unique(edges.astype(np.float32))
    return tuple(float(edge) for edge in (kept if kept.size > 1 else [kept[0], kept[0] + 1]))


def part_of(values: Floats, edges: tuple[float, ...]) -> npt.NDArray[np.uint8]:
    """Which part of the range each value lies in, 255 = unlabelled; what lies outside belongs to the first or last."""
    part = np.digitize(values, edges[1:-1]).astype(np.uint8)
    return np.where(np.isnan(values), np.uint8(UNLABELLED), part)


def range_legend(edges: tuple[float, ...]) -> tuple[LabelClass, ...]:
    """The parts as classes, in shades of grey."""
    parts = len(edges) - 1
    greys = np.linspace(_DARK, _LIGHT, parts).round().astype(int)
    ends = zip(edges, edges[1:], greys, strict=False)
    return tuple(
        LabelClass(f"{low:.4g} to {high:.4g}", i + 1, f"#{grey:02x}{grey:02x}{grey:02x}")
        for i, (low, high, grey) in enumerate(ends)
    )
