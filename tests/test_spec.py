"""Storage and periods."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import Storage

UINT = Storage("uint16", 1e-4, 65535)
INT = Storage("int16", 0.01, -32768)
FLOAT = Storage("float32", 1.0, float("nan"))


@given(st.lists(st.one_of(st.none(), st.floats(-40, 40)), min_size=1, max_size=50), st.sampled_from([INT, FLOAT]))
def test_what_is_packed_comes_back(values: list[float | None], storage: Storage) -> None:
    physical = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    back, observed = storage.unpack(storage.pack(physical))
    assert (observed == ~np.isnan(physical)).all()
    step = storage.scale / 2 if storage.dtype != "float32" else 1e-5
    assert np.abs(back - physical)[observed].max(initial=0) <= step + 1e-5
    assert (back[~observed] == 0).all()


@given(st.floats(-1e6, 1e6))
def test_a_packed_observation_is_never_missing(value: float) -> None:
    for storage in (UINT, INT):
        assert storage.observed(storage.pack(np.array([value]))).all()


@pytest.mark.parametrize(
    ("period", "steps"),
    [
        (Period("2021-01-01", "2021-12-31"), 12),
        (Period("2020-11-01", "2021-10-31"), 12),
        (Period("2021-01-15", "2021-03-02"), 3),
        (Period("2021-01-01", "2021-01-01"), 1),
        (Period("2021-01-01", "2021-01-30", "10D"), 3),
        (Period("2020-02-01", "2020-02-29"), 1),
    ],
)
def test_steps_cover_the_period_without_a_gap(period: Period, steps: int) -> None:
    assert len(period.steps()) == len(period.stops()) == steps
    assert period.steps()[0] == period.start
    assert pd.Timestamp(period.stops()[-1]) - pd.Timedelta(days=1) == pd.Timestamp(period.end)
    assert period.stops()[:-1] == period.steps()[1:]
    assert len(period.spans()) == 1
    assert period.intervals().is_monotonic_increasing


DEKADS = (
    Period("2020-02-01", "2020-03-31", "dekad"),
    ("2020-02-01", "2020-02-11", "2020-02-21", "2020-03-01", "2020-03-11", "2020-03-21"),
    "2020-04-01",
)


@pytest.mark.parametrize(
    ("period", "steps", "stop"),
    [
        DEKADS,
        (Period("2021-01-05", "2021-01-12", "dekad"), ("2021-01-05", "2021-01-11"), "2021-01-13"),
        (Period("2021-01-11", "2021-01-20", "dekad"), ("2021-01-11",), "2021-01-21"),
        (Period("2019-01-01", "2021-12-31", "season", ("04-01", "09-30")),
         ("2019-04-01", "2020-04-01", "2021-04-01"),
         "2021-10-01"),
        # over the turn of the year; the period cuts the first and the last season short
        (Period("2019-01-15", "2020-11-30", "season", ("10-01", "03-31")), ("2019-01-15", "2019-10-01", "2020-10-01"),
         "2020-12-01"),
        (Period("2018-09-01", "2019-08-31", "MS", ("11-15", "01-31")), ("2018-11-15", "2018-12-01", "2019-01-01"),
         "2019-02-01"),
        (Period("2019-01-01", "2020-12-31", "season", ("12-01", "02-29")), ("2019-01-01", "2019-12-01", "2020-12-01"),
         "2021-01-01"),
        (Period("2021-01-03", "2021-04-04", windows=(("2021-01-03", "2021-01-03"), ("2021-03-30", "2021-04-04"))),
         ("2021-01-03", "2021-03-30"), "2021-04-05"),
    ],
)  # fmt: skip
def test_dekads_seasons_and_windows(period: Period, steps: tuple[str, ...], stop: str) -> None:
    assert period.steps() == steps
    assert period.stops()[-1] == stop


def test_a_season_ends_with_the_last_of_february() -> None:
    winters = Period("2018-11-01", "2020-03-31", "season", ("12-01", "02-29"))
    assert winters.stops() == ("2019-03-01", "2020-03-01")
    assert [str(stop.date()) for _, stop in winters.spans()] == ["2019-03-01", "2020-03-01"]


DAYS = st.dates(pd.Timestamp("2017-01-01").date(), pd.Timestamp("2023-12-31").date())


@given(
    DAYS,
    DAYS,
    st.sampled_from(["MS", "dekad", "season", "10D", "W", "QS"]),
    st.one_of(st.none(), st.tuples(DAYS, DAYS)),
)
def test_every_day_of_the_season_lies_in_exactly_one_step(
    a: date, b: date, step: str, season: tuple[date, date] | None
) -> None:
    first, last = sorted((a, b))
    turn = None if season is None else (f"{season[0]:%m-%d}", f"{season[1]:%m-%d}")
    period = Period(str(first), str(last), step, turn)
    days = pd.date_range(first, last, freq="D")
    names = days.strftime("%m-%d")
    if turn is None:
        wanted = np.ones(len(days), bool)
    elif turn[0] <= turn[1]:
        wanted = (names >= turn[0]) & (names <= turn[1])
    else:
        wanted = (names >= turn[0]) | (names <= turn[1])
    if not wanted.any():
        with pytest.raises(MdicoError, match="no day of the season"):
            period.steps()
        return
    found = sum(((days >= step.left) & (days < step.right)).astype(int) for step in period.intervals())
    np.testing.assert_array_equal(found, wanted.astype(int))


@pytest.mark.parametrize(
    "period",
    [
        Period("2021-02-01", "2021-01-01"),
        *(Period("2021-01-01", "2021-02-01", step) for step in ("zebra", "0D", "-1D", "12h", "")),
        Period("2021-01-01", "2021-02-01", season=("1-4", "30-2")),
        Period("2021-01-01", "2021-02-01", season=("05-01", "06-01")),
        Period("2021-01-01", "2021-02-01", windows=(("2021-01-01", "2021-01-10"), ("2021-01-10", "2021-01-20"))),
        Period("2021-01-01", "2021-02-01", windows=(("2021-01-11", "2021-01-20"), ("2021-01-01", "2021-01-10"))),
        Period("2021-01-01", "2021-02-01", windows=(("2021-01-20", "2021-01-10"),)),
        Period("2021-01-01", "no day"),
    ],
)
def test_an_impossible_period_is_refused(period: Period) -> None:
    with pytest.raises(MdicoError, match="period"):
        period.steps()


def test_selecting_bands_keeps_the_asked_order() -> None:
    s2 = SENSORS["sentinel2"].modality
    assert s2.select(("B08", "B02")).band_names == ("B08", "B02")
    with pytest.raises(MdicoError, match="unknown band B99"):
        s2.select(("B99",))


@given(data=st.data())
def test_filling_is_unpacking_with_the_mask_taken_over_bands(data: st.DataObject) -> None:
    kind, missing = data.draw(
        st.sampled_from([("uint16", 65535), ("uint16", 0), ("uint16", 7), ("int16", -32768), ("float32", np.nan)])
    )
    storage = Storage(kind, 1.0 if kind == "float32" else 0.01, missing)
    lead = data.draw(st.sampled_from([(3,), (2, 3), (1,), (0, 2)]))
    shape = (*lead, data.draw(st.integers(1, 4)), *(data.draw(st.integers(1, side)) for side in (20, 20)))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    stored = draw.integers(0, 60, shape).astype(kind)
    stored[draw.random(shape) < data.draw(st.sampled_from([0, 0.01, 1]))] = missing
    stored[draw.random(lead) < data.draw(st.sampled_from([0, 0.5]))] = missing
    values, seen = np.full(shape, 9, np.float32), draw.random((*lead, *shape[-2:])) < 0.5
    storage.fill(stored[..., ::-1], values, seen)
    physical, observed = storage.unpack(stored[..., ::-1])
    np.testing.assert_array_equal(values, physical)
    np.testing.assert_array_equal(seen, observed.all(axis=-3))
