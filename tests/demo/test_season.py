"""Plants follow their calendar, the year's warmth moves it, and the soil follows the rain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdico_cube.demo.landscape import BEET, FOREST, MAIZE, RAPESEED, WATER, WHEAT
from mdico_cube.demo.season import DAYS, Season, draw_weather, grow

KIND = np.repeat(np.arange(8), 60).astype(np.uint8)


@pytest.fixture(scope="module")
def season() -> Season:
    return grow(0, KIND, draw_weather(0, 2021))


def middle_day(season: Season, kind: int) -> float:
    green = season.green[kind == KIND].mean(axis=0)
    return float((green[:240] * np.arange(240)).sum() / green[:240].sum())


def test_crops_follow_their_calendar(season: Season) -> None:
    days = {
        kind: int(season.green[kind == KIND].mean(axis=0)[:300].argmax()) for kind in (WHEAT, RAPESEED, MAIZE, BEET)
    }
    assert 110 < days[WHEAT] < 175
    assert 100 < days[RAPESEED] < 170
    assert min(days[MAIZE], days[BEET]) > 185
    assert season.green[KIND == WATER].max() == 0
    assert season.flower[KIND != RAPESEED].max() == 0
    assert 105 < season.flower[KIND == RAPESEED].mean(axis=0).argmax() < 165
    assert season.conifer[KIND != FOREST].max() == 0


def test_fields_of_one_class_differ(season: Season) -> None:
    peaks = season.green[KIND == WHEAT].argmax(axis=1)
    assert 5 < peaks.std() < 60
    assert season.green[KIND == WHEAT].max(axis=1).std() > 0.4


def test_a_warm_year_is_early() -> None:
    usual = draw_weather(0, 2021)
    usual = replace(usual, temperature=usual.usual)
    warm, cold = (replace(usual, temperature=usual.usual + np.float32(by)) for by in (2, -2))
    assert usual.shift(100, 0) == pytest.approx(0, abs=1)
    assert warm.shift(100, 0) < -5
    assert cold.shift(100, 0) > 5
    assert middle_day(grow(0, KIND, warm), WHEAT) < middle_day(grow(0, KIND, cold), WHEAT) - 5


def test_weather_is_temperate_and_wets_the_soil() -> None:
    for seed in range(4):
        weather = draw_weather(seed, 2021)
        assert weather.temperature.shape == (DAYS,)
        assert 7 < weather.temperature.mean() < 14
        assert 450 < weather.rain.sum() < 1200
        assert weather.rain.min() >= 0
        wet = weather.rain[1:] > 10
        assert np.diff(weather.moisture)[wet].mean() > 0.02 > np.diff(weather.moisture)[weather.rain[1:] == 0].max()
        assert 0 < weather.moisture.min() < weather.moisture.max() <= 1
