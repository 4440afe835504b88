"""Samples of a weather source in, one value per time step out: which samples a step needs, and how they become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset
from scipy.sparse import csc_array

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import StoreRules, WeatherKind
from mdico_cube.sensors.weather import Operator
from mdico_cube.spec import Floats

Doubles = npt.NDArray[np.float64]
_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Samples:
    """Which samples of a source the steps need, and with what weight."""

    stamps: pd.DatetimeIndex
    """(n,) UTC, ascending: the moment of an instant or of a running total, the start of an interval."""
    weights: csc_array
    """(steps, n): 0 where a step does not need a sample."""
    operator: Operator

    @property
    def needed(self) -> npt.NDArray[np.int64]:
        """(steps,) samples of each step."""
        return np.bincount(self.weights.indices, minlength=self.weights.shape[0])


Window = tuple[pd.Timestamp, pd.Timestamp]
"""First moment of a step and the first after it, UTC."""


def samples_of(kind: WeatherKind, operator: Operator, windows: Sequence[Window], every: str) -> Samples:
    """The samples that some steps need.

    An instant belongs to the step it lies in, an interval to the step it lies in as a whole. A total since midnight
    (ERA5-Land: the value of 05:00 is what fell since 00:00 UTC, the value of 00:00 the whole day before) gives a step
    what it holds at the step's last moment of each day less what it held at the step's first.

    Args:
        kind: what a sample is.
        operator: what becomes of the samples.
        windows: the steps.
        every: pandas offset between samples.

    Raises:
        MdicoError: a step begins or ends within an interval of the source.
    """
    if kind == "since_midnight":
        totals = [(step, *total) for step, window in enumerate(windows) for total in _daily_totals(*window)]
        moments = pd.DatetimeIndex(sorted({moment for _, moment, _ in totals}))
        at = moments.get_indexer(pd.DatetimeIndex([moment for _, moment, _ in totals]))
        return _samples(
            moments, [weight for *_, weight in totals], [step for step, *_ in totals], at, windows, operator
        )
    starts, stop = _intervals(windows, every)
    days = np.diff([*starts, stop]) / _DAY
    inside = [np.flatnonzero((starts >= first) & (starts < end)) for first, end in windows]
    for edge in (edge for window in windows for edge in window):
        if edge != stop and edge not in starts:
            raise MdicoError(
                f"the source gives one value every {every}, and a step begins or ends within one, at {edge}. "
                "Use longer steps (MS for months), or a source with shorter intervals."
            )
    each = days if kind in ("mean", "per_day") else np.ones(len(starts))
    at, step = np.concatenate(inside), np.repeat(np.arange(len(windows)), [len(part) for part in inside])
    return _samples(starts, each[at], step, at, windows, operator)


def _samples(
    stamps: pd.DatetimeIndex,
    weight: npt.ArrayLike,
    step: npt.ArrayLike,
    at: npt.ArrayLike,
    windows: Sequence[Window],
    operator: Operator,
) -> Samples:
    weights = csc_array((weight, (step, at)), shape=(len(windows), len(stamps)), dtype=np.float64)
    return Samples(stamps, weights, operator)


def _intervals(windows: Sequence[Window], every: str) -> tuple[pd.DatetimeIndex, pd.Timestamp]:
    """Starts of a source's intervals from the one that the first step begins in to the last step, and their end."""
    offset = to_offset(every)
    first, end = min(start for start, _ in windows), max(stop for _, stop in windows)
    fixed = _is_fixed(every)
    start = first.floor(every) if fixed else offset.rollback(first.normalize())
    starts = pd.date_range(start, end, freq=every, inclusive="left")
    return starts, starts[-1] + offset


def _is_fixed(every: str) -> bool:
    """True for hours and days, False for months, which have no fixed length."""
    try:
        pd.Timestamp(0).floor(every)
    except ValueError:
        return False
    return True


def _daily_totals(start: pd.Timestamp, end: pd.Timestamp) -> list[tuple[pd.Timestamp, float]]:
    """Moment and weight of the running totals that give a step its sum."""
    found = []
    for day in pd.date_range(start.normalize(), end, freq="D", inclusive="left"):
        found.append((min(day + _DAY, end), 1.0))
        if start > day:
            found.append((start, -1.0))
    return found


def stamps_of(times: pd.DatetimeIndex, kind: WeatherKind, rules: StoreRules) -> pd.DatetimeIndex:
    """The dates of a store's values as `Samples` counts them: moments, or the starts of intervals."""
    if kind in ("instant", "since_midnight"):
        return times.floor(rules.every) if _is_fixed(rules.every) else times
    offset = to_offset(rules.every)
    starts = times - offset if rules.stamp == "end" else times
    return starts.floor(rules.every) if _is_fixed(rules.every) else starts.to_period("M").to_timestamp()


def solar_windows(steps: pd.IntervalIndex[pd.Interval[pd.Timestamp]], longitude: float, every: str) -> list[Window]:
    """Steps by local solar time as UTC windows: shifted by whole intervals of the source, not at all where it has days.

    Args:
        steps: in local solar time.
        longitude: of the area's middle, degrees east.
        every: pandas offset between the source's values.
    """
    epoch = pd.Timestamp(0)
    interval = epoch + to_offset(every) - epoch
    shift = pd.Timedelta(0) if interval >= _DAY else round(pd.Timedelta(hours=longitude / 15) / interval) * interval
    return [(step.left - shift, step.right - shift) for step in steps]


class Running:
    """Steps that are filled sample by sample, in any order; only the running values stay in memory."""

    def __init__(self, samples: Samples, cells: int) -> None:
        steps = samples.weights.shape[0]
        self.samples = samples
        self._needed = samples.needed
        self._seen = np.zeros((steps, cells), np.int64)
        self._mass = np.zeros((steps, cells))
        start = {"min": np.inf, "max": -np.inf}.get(samples.operator, 0.0)
        self._value = np.full((steps, cells), start)

    def add(self, index: npt.NDArray[np.intp], values: Doubles) -> None:
        """Add samples (k, cells), NaN = missing, which stand at `index` in the samples' stamps, each at most once."""
        weights = self.samples.weights[:, index]
        there = ~np.isnan(values)
        self._seen += (weights != 0).astype(np.int64) @ there.astype(np.int64)
        self._mass += weights @ there.astype(np.float64)
        if self.samples.operator in ("mean", "sum"):
            self._value += weights @ np.where(there, values, 0.0)
            return
        extreme = np.fmin if self.samples.operator == "min" else np.fmax
        step, sample = weights.nonzero()
        for one in np.unique(step):
            found = extreme.reduce(values[sample[step == one]], axis=0)
            self._value[one] = extreme(self._value[one], found)

    def result(self, coverage: float = 1.0) -> Floats:
        """(steps, cells), NaN where a step lacks samples.

        Args:
            coverage: share of a step's samples that must be there for a mean, minimum or maximum; a sum needs all.
        """
        share = 1.0 if self.samples.operator == "sum" else coverage
        enough = (self._seen >= share * self._needed[:, None]) & (self._seen > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self._value / self._mass if self.samples.operator == "mean" else self._value
        return np.where(enough, value, np.nan).astype(np.float32)
