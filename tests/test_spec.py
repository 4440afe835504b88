"""Storage and periods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import Period, Storage

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
    edges = period.edges()
    assert len(period.steps()) == steps == len(edges) - 1
    assert str(edges[0].date()) == period.start
    assert (edges[-1] - np.timedelta64(1, "ns")).date().isoformat() == period.end
    assert edges.is_monotonic_increasing
    assert edges.is_unique


@pytest.mark.parametrize(
    "period",
    [
        Period("2021-02-01", "2021-01-01"),
        *(Period("2021-01-01", "2021-02-01", step) for step in ("zebra", "0D", "-1D", "12h", "")),
    ],
)
def test_an_impossible_period_is_refused(period: Period) -> None:
    with pytest.raises(MdicoError, match="period"):
        period.edges()


def test_selecting_bands_keeps_the_asked_order() -> None:
    s2 = SENSORS["sentinel2"].modality
    assert s2.select(("B08", "B02")).band_names == ("B08", "B02")
    with pytest.raises(MdicoError, match="unknown band B99"):
        s2.select(("B99",))
