"""Weather over time steps against plain loops: hours, running totals, days, months, gaps, edges of all kinds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.recipe import StoreRules, StoreVariable
from mdico_cube.sensors.era5 import WEATHER, vapour_deficit
from mdico_cube.sensors.samples import Running, Samples, Window, samples_of, stamps_of
from mdico_cube.sensors.units import conversion
from mdico_cube.sensors.weather import Operator, band_recipe
from mdico_cube.spec import Array

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)


def steps(edges: list[str] | pd.DatetimeIndex) -> list[Window]:
    return list(pairwise(pd.DatetimeIndex(edges)))


def edges_of(period: Period) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([*period.intervals().left, period.intervals().right[-1]])


def filled(samples: Samples, values: pd.Series, parts: int = 3, coverage: float = 1.0) -> Array:
    """What the steps get when the values come in a few parts, the last first."""
    running = Running(samples, 1)
    index = np.arange(len(samples.stamps))
    for part in reversed(np.array_split(index, parts)):
        running.add(part, values.reindex(samples.stamps[part]).to_numpy(float)[:, None])
    return running.result(coverage)[:, 0]


def rain_and_totals(start: str, hours: int, seed: int = 0) -> tuple[pd.Series, pd.Series]:
    """What fell in the hour before each moment, and the same as ERA5-Land writes it: running since 00:00 UTC."""
    moments = pd.date_range(start, periods=hours, freq="h")
    fell = pd.Series(np.random.default_rng(seed).gamma(0.3, 2.0, hours), moments)
    total, running = [], 0.0
    for moment, amount in fell.items():
        running += amount
        total.append(running)
        if moment.hour == 0:
            running = 0.0
    return fell, pd.Series(total, moments)


EDGES = {
    "a month": ["2021-02-01", "2021-03-01"],
    "over the year": ["2020-12-20", "2021-01-01", "2021-01-09 00:00"],
    "days": [f"2021-02-{day:02d}" for day in range(2, 8)],
    "solar days in the east": [f"2021-02-{day:02d} 14:00" for day in range(2, 8)],
    "solar days in the west": [f"2021-02-{day:02d} 07:00" for day in range(2, 8)],
    "a part of a month": ["2021-02-13", "2021-02-26"],
    "one hour": ["2021-02-13 05:00", "2021-02-13 06:00", "2021-02-14 00:00", "2021-02-14 01:00"],
}


@pytest.mark.parametrize("name", EDGES)
def test_running_totals_give_what_fell(name: str) -> None:
    edges = pd.DatetimeIndex(EDGES[name])
    fell, total = rain_and_totals("2020-12-01 01:00", 24 * 120)
    want = [fell[(fell.index > a) & (fell.index <= b)].sum() for a, b in pairwise(edges)]
    samples = samples_of("since_midnight", "sum", steps(edges), "1h")
    np.testing.assert_allclose(filled(samples, total), want, rtol=1e-5)
    if name == "a month":
        assert len(samples.stamps) == 28, "one value a day is enough"


def test_the_last_total_of_a_day_is_dated_midnight() -> None:
    total = pd.Series([5.0, 7.0, 1.0], pd.DatetimeIndex(["2021-03-01 23:00", "2021-03-02 00:00", "2021-03-02 01:00"]))
    samples = samples_of("since_midnight", "sum", steps(["2021-03-01", "2021-03-02"]), "1h")
    assert filled(samples, total).tolist() == [7.0]


@settings(max_examples=60)
@given(
    start=st.integers(0, 200),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    shift=st.integers(-12, 12),
    seed=st.integers(0, 99),
    operator=st.sampled_from(["mean", "min", "max"]),
)
def test_instants_against_a_loop(start: int, lengths: list[int], shift: int, seed: int, operator: Operator) -> None:
    first = pd.Timestamp("2020-12-15") + start * DAY - shift * HOUR
    edges = pd.DatetimeIndex([first + day * DAY for day in np.cumsum([0, *lengths])])
    moments = pd.date_range(edges[0] - DAY, edges[-1] + DAY, freq="h")
    values = pd.Series(np.random.default_rng(seed).normal(280, 8, len(moments)), moments)
    want = [getattr(values[(moments >= a) & (moments < b)], operator)() for a, b in pairwise(edges)]
    np.testing.assert_allclose(filled(samples_of("instant", operator, steps(edges), "1h"), values), want, rtol=1e-6)


@pytest.mark.parametrize(("kind", "operator"), [("sum", "sum"), ("mean", "mean"), ("max", "max"), ("min", "min")])
def test_days_become_steps(kind: str, operator: Operator) -> None:
    edges = edges_of(Period("2020-11-11", "2021-03-05"))
    days = pd.date_range("2020-11-01", "2021-03-31", freq="D")
    values = pd.Series(np.random.default_rng(1).gamma(2, 3, len(days)), days)
    want = [getattr(values[a : b - DAY], operator)() for a, b in pairwise(edges)]  # type: ignore[misc]
    np.testing.assert_allclose(filled(samples_of(kind, operator, steps(edges), "1D"), values), want, rtol=1e-6)  # type: ignore[arg-type]


def test_months_of_unlike_length() -> None:
    """Monthly means count by their days, and a mean daily sum becomes the month's sum."""
    months = pd.date_range("2021-01-01", "2021-12-01", freq="MS")
    values = pd.Series(np.arange(1.0, 13.0), months)
    days = months.days_in_month.to_numpy()
    quarters = edges_of(Period("2021-01-01", "2021-12-31", "QS"))
    mean = filled(samples_of("mean", "mean", steps(quarters), "MS"), values)
    want = [np.average(values[i : i + 3], weights=days[i : i + 3]) for i in range(0, 12, 3)]
    np.testing.assert_allclose(mean, want, rtol=1e-6)
    assert abs(mean[2] - 8.0) > 0.01
    monthly = edges_of(Period("2021-01-01", "2021-12-31"))
    np.testing.assert_allclose(
        filled(samples_of("per_day", "sum", steps(monthly), "MS"), values), values * days, rtol=1e-6
    )
    np.testing.assert_allclose(filled(samples_of("sum", "sum", steps(monthly), "MS"), values), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("every", "start", "end", "step"),
    [
        ("MS", "2021-01-01", "2021-03-31", "10D"),
        ("MS", "2021-01-15", "2021-03-31", "MS"),
        ("MS", "2021-01-01", "2021-03-15", "MS"),
    ],
)
def test_months_cannot_be_cut(every: str, start: str, end: str, step: str) -> None:
    with pytest.raises(MdicoError, match="Use longer steps"):
        samples_of("mean", "mean", steps(edges_of(Period(start, end, step))), every)


@pytest.mark.parametrize("operator", ["mean", "min", "max", "sum"])
def test_missing_is_never_zero(operator: Operator) -> None:
    edges = pd.DatetimeIndex(["2021-01-01", "2021-01-11", "2021-01-21", "2021-01-31"])
    days = pd.date_range("2021-01-01", "2021-01-30", freq="D")
    values = pd.Series(5.0, days)
    values.iloc[12] = np.nan  # one day of the second step; the third is gone altogether
    values = values[:20]
    samples = samples_of(operator if operator == "sum" else "instant", operator, steps(edges), "1D")
    first, second, third = filled(samples, values)
    assert first == (50 if operator == "sum" else 5)
    assert np.isnan(second)
    assert np.isnan(third)
    first, second, third = filled(samples, values, coverage=0.9)
    assert np.isnan(second) if operator == "sum" else second == 5
    assert np.isnan(third)


def test_a_running_total_survives_lost_hours() -> None:
    """Hours that are lost within a day do not matter, the last one of a day does."""
    edges = pd.DatetimeIndex(["2021-02-01", "2021-02-02", "2021-02-03"])
    fell, total = rain_and_totals("2021-01-31 01:00", 24 * 5)
    total[pd.Timestamp("2021-02-01 13:00")] = np.nan
    total[pd.Timestamp("2021-02-03 00:00")] = np.nan
    came = filled(samples_of("since_midnight", "sum", steps(edges), "1h"), total)
    assert came[0] == pytest.approx(fell["2021-02-01 01:00":"2021-02-02 00:00"].sum(), rel=1e-6)  # type: ignore[misc]
    assert np.isnan(came[1])


@pytest.mark.parametrize(
    ("kind", "every", "stamp", "came", "gives"),
    [
        ("instant", "1h", "end", "2021-03-01 00:00", "2021-03-01 00:00"),
        ("since_midnight", "1h", "end", "2021-03-01 00:00", "2021-03-01 00:00"),
        ("sum", "1h", "end", "2021-03-01 00:00", "2021-02-28 23:00"),
        ("sum", "1h", "start", "2021-03-01 00:00", "2021-03-01 00:00"),
        ("mean", "1D", "start", "2021-03-01 12:00", "2021-03-01 00:00"),
        ("mean", "1D", "end", "2021-03-01 00:00", "2021-02-28 00:00"),
        ("sum", "MS", "start", "2021-02-15 00:00", "2021-02-01 00:00"),
        ("sum", "MS", "end", "2021-03-01 00:00", "2021-02-01 00:00"),
    ],
)
def test_what_a_date_stands_for(kind: str, every: str, stamp: str, came: str, gives: str) -> None:
    how = StoreRules(every=every, stamp=stamp, variables={"t2m": StoreVariable(name="v", unit="K")})  # type: ignore[arg-type]
    assert stamps_of(pd.DatetimeIndex([came]), kind, how)[0] == pd.Timestamp(gives)  # type: ignore[arg-type]


def rules(**kinds: str) -> StoreRules:
    variables = {band: StoreVariable(name=band, kind=kind, unit="K") for band, kind in kinds.items()}  # type: ignore[arg-type]
    return StoreRules(variables=variables)


def test_hourly_temperature_tells_its_extremes() -> None:
    for band, operator in (("t2m", "mean"), ("t2m_min", "min"), ("t2m_max", "max")):
        making = band_recipe(WEATHER, band, rules(t2m="instant"), "a store")
        assert (making.operator, making.variables[0].name) == (operator, "t2m")
    assert band_recipe(WEATHER, "vpd", rules(t2m="instant", d2m="instant"), "a store").compute is vapour_deficit
    assert band_recipe(WEATHER, "t2m_max", rules(t2m="mean", t2m_max="max"), "a store").variables[0].kind == "max"


@pytest.mark.parametrize(
    ("band", "kinds", "says"),
    [
        ("t2m_max", {"t2m": "mean"}, "does not tell era5's t2m_max.*single moments of t2m"),
        ("vpd", {"t2m": "instant"}, "single moments of t2m and d2m"),
        ("tp", {"t2m": "instant"}, "it has t2m. Leave tp out"),
        ("tp", {"tp": "mean"}, "tp is the sum over a step, which values of kind mean do not tell.*sum or per_day"),
        ("t2m", {"t2m": "since_midnight"}, "t2m is the mean over a step"),
    ],
)
def test_what_a_source_cannot_tell_is_refused(band: str, kinds: dict[str, str], says: str) -> None:
    with pytest.raises(MdicoError, match=says):
        band_recipe(WEATHER, band, rules(**kinds), "a store")


def test_every_band_has_an_operator() -> None:
    assert set(WEATHER.operators) == set(WEATHER.modality.band_names)
    assert set(WEATHER.defaults) <= set(WEATHER.operators)


@pytest.mark.parametrize(
    ("unit", "said", "wanted", "value", "gives"),
    [
        ("m", None, "mm", 0.003, 3.0),
        ("m", "m", "mm", 0.003, 3.0),
        ("mm", "mm", "mm", 3.0, 3.0),
        ("mm", "kg m**-2", "mm", None, None),
        ("J m**-2", "J m**-2", "MJ m-2", 2e6, 2.0),
        ("degC", "C", "K", 10.0, 283.15),
        ("m2 s-2", "m**2 s**-2", "m", 980.665, 100.0),
        ("m", "mm", "mm", 3.0, 3.0),
        ("mm", "m", "mm", None, None),
        ("K", "degC", "K", None, None),
        ("furlong", None, "mm", None, None),
    ],
)
def test_units_are_converted_and_watched(
    unit: str, said: str | None, wanted: str, value: float | None, gives: float | None
) -> None:
    variable = StoreVariable(name="v", unit=unit)
    if value is None:
        with pytest.raises(MdicoError, match=r"catalog file says|cannot become"):
            conversion(variable, wanted, said, "a store")
    else:
        factor, shift = conversion(variable, wanted, said, "a store")
        assert value * factor + shift == pytest.approx(gives)


def test_vapour_pressure_deficit() -> None:
    """Saturated air lacks nothing; at 25 degrees and 50 % humidity (dew point 13.86) it lacks 15.8 hPa."""
    assert vapour_deficit(np.array([285.0]), np.array([285.0]))[0] == 0
    assert vapour_deficit(np.array([298.15]), np.array([287.01]))[0] == pytest.approx(15.84, abs=0.06)
