"""The offset sentinel: silent on right offsets, loud on wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from mdico_cube.sensors.offsets import dark_floor, judge_floors


def test_the_floor_is_the_darkest_clear_ground_before_clipping() -> None:
    raw = np.full((2, 40, 40), 1300, dtype=np.uint16)
    raw[1] = np.arange(1600).reshape(40, 40) + 1100
    seen = np.ones((40, 40), dtype=bool)
    raw[:, 0, :20] = 5  # dark, but not seen
    seen[0, :20] = False
    assert dark_floor(raw, seen, 1e-4, -0.1) == pytest.approx((1100 + 20 + 15) * 1e-4 - 0.1, abs=2e-4)
    assert dark_floor(raw - 400, seen, 1e-4, -0.1) < 0
    assert np.isnan(dark_floor(raw, seen & (np.arange(1600).reshape(40, 40) > 1500), 1e-4, -0.1))


OLD = {f"old{i}": 0.01 + 0.005 * i for i in range(5)}
NEW = {f"new{i}": 0.012 + 0.004 * i for i in range(5)}
ERAS: dict[str, bool | None] = {**dict.fromkeys(OLD, False), **dict.fromkeys(NEW, True)}


def moved(floors: dict[str, float], by: float) -> dict[str, float]:
    return {item: floor + by for item, floor in floors.items()}


@pytest.mark.parametrize(
    ("floors", "doubted", "why"),
    [
        ({**OLD, **NEW}, set(), ""),
        ({**OLD, **moved(NEW, 0.1)}, set(NEW), "not subtracted"),
        ({**OLD, **moved(NEW, -0.1)}, set(NEW), "twice"),
        ({**moved(OLD, -0.1), **NEW}, set(OLD), "twice"),
        (moved(NEW, 0.1), set(NEW), "no dark ground"),
        (NEW, set(), ""),
        ({**moved(OLD, 0.12), **moved(NEW, 0.12)}, set(), ""),  # a desert on both sides of the change
        ({**OLD, **NEW, "cloudy": float("nan")}, set(), ""),
    ],
)
def test_verdicts(floors: dict[str, float], doubted: set[str], why: str) -> None:
    found = judge_floors(floors, ERAS)
    doubts = {item for item in found if item in OLD or item in NEW}
    assert doubted <= doubts
    assert all(why in text for item, text in found.items() if item in doubted)
    assert doubted or not found
