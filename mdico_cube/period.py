"""A period cut into time steps: months, dekads, seasons, windows. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import MonthEnd

from mdico_cube.errors import MdicoError

_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """A span of days cut into time steps; first and last day belong to it, and to every window and season."""

    start: str
    """First day, ISO date."""
    end: str
    """Last day, ISO date, included."""
    step: str = "MS"
    """Pandas offset of the step starts ("MS" = calendar months, "10D" = ten days), "dekad" = days 1-10, 11-20 and 21
    to the month's end, or "season" = one step per season."""
    season: tuple[str, str] | None = None
    """First and last day of the season as month-day ("10-01", "03-31"); it may run over the turn of the year. Only
    these days of each year are cut into steps; None takes every day."""
    windows: tuple[tuple[str, str], ...] = ()
    """The steps themselves as (first day, last day), in order and without overlap; they take the place of `step`."""

    def intervals(self) -> pd.IntervalIndex[pd.Interval[pd.Timestamp]]:
        """Steps as intervals [first day, day after the last) in UTC-naive time, in order, never overlapping.

        Raises:
            MdicoError: the period is empty, the step is no pandas offset, or windows overlap.
        """
        first, stop = _day(self.start), _day(self.end) + _DAY
        if first >= stop:
            raise MdicoError(f"period: start {self.start} must come before end {self.end}.")
        spans = [(_day(a), _day(b) + _DAY) for a, b in self.windows] or [
            cut for span in self._seasons(first, stop) for cut in _cut(*span, self.step)
        ]
        if not spans:
            raise MdicoError(f"period: no day of the season {self.season} lies between {self.start} and {self.end}.")
        for (a, b), (c, _) in zip(spans, [*spans[1:], (spans[-1][1], None)], strict=True):
            if a >= b or b > c:
                raise MdicoError(
                    f"period.windows: {a.date()} to {(b - _DAY).date()} is empty or runs into the next window "
                    f"({c.date()}). Give [first day, last day] each, in order and without overlap."
                )
        return pd.IntervalIndex.from_arrays([a for a, _ in spans], [b for _, b in spans], closed="left")

    def spans(self) -> tuple[tuple[pd.Timestamp, pd.Timestamp], ...]:
        """The same with neighbours joined: what has to be searched for."""
        joined: list[tuple[pd.Timestamp, pd.Timestamp]] = []
        for step in self.intervals():
            if joined and joined[-1][1] == step.left:
                joined[-1] = (joined[-1][0], step.right)
            else:
                joined.append((step.left, step.right))
        return tuple(joined)

    def steps(self) -> tuple[str, ...]:
        """ISO date of each step's first day."""
        return tuple(str(day.date()) for day in self.intervals().left)

    def stops(self) -> tuple[str, ...]:
        """ISO date of the day after each step's last."""
        return tuple(str(day.date()) for day in self.intervals().right)

    def _seasons(self, first: pd.Timestamp, stop: pd.Timestamp) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
        if self.season is None:
            return [(first, stop)]
        opens, closes = (_month_day(text) for text in self.season)
        spans = []
        for year in range(first.year - 1, stop.year + 1):
            start = pd.Timestamp(year, *opens)
            last = pd.Timestamp(year + (closes < opens), closes[0], 1)
            end = min(last + pd.Timedelta(days=closes[1] - 1), last + MonthEnd(0)) + _DAY
            start, end = max(start, first), min(end, stop)
            if start < end:
                spans.append((start, end))
        return spans


def _day(text: str) -> pd.Timestamp:
    try:
        return pd.Timestamp(text).normalize().tz_localize(None)
    except ValueError as error:
        raise MdicoError(f"period: {text!r} is no day. Write an ISO date such as 2021-03-01.") from error


def _month_day(text: str) -> tuple[int, int]:
    try:
        day = pd.Timestamp(f"2020-{text}")  # a leap year: the last of February may be written 02-29
        if day.strftime("%m-%d") != text:
            raise ValueError(text)
    except ValueError as error:
        raise MdicoError(f"period.season: {text!r} is no day of the year. Write month-day, such as '10-01'.") from error
    return day.month, day.day


def _cut(first: pd.Timestamp, stop: pd.Timestamp, step: str) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """A span of days cut into steps; the first and the last may be cut short."""
    if step == "season":
        return [(first, stop)]
    if step == "dekad":
        days = pd.date_range(first, stop, freq="D", inclusive="left")
        starts = days[days.day.isin([1, 11, 21])]
    else:
        starts = _starts(first, stop, step)
    if not len(starts) or starts[0] != first:
        starts = starts.insert(0, first)
    return list(pairwise([*starts, stop]))


def _starts(first: pd.Timestamp, stop: pd.Timestamp, step: str) -> pd.DatetimeIndex:
    try:
        starts = pd.date_range(first, stop, freq=step, inclusive="left")
        forward = first + to_offset(step) >= first + _DAY
    except (ValueError, ZeroDivisionError) as error:
        raise MdicoError(
            f"period.step {step!r} is no pandas offset: use 'MS' for months, '10D' for ten days, 'dekad' or 'season'."
        ) from error
    if not forward:
        raise MdicoError(f"period.step {step!r} must move on by a day or more: use 'MS' or '10D'.")
    return starts


def first_days(steps: tuple[str, ...]) -> list[int]:
    """Days of each step's first day since the first step; [0] for a modality without time."""
    if steps == ("",):
        return [0]
    first = date.fromisoformat(steps[0])
    return [(date.fromisoformat(step) - first).days for step in steps]
