"""Landsat Collection 2 Level 2: its scale, its fill, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.sensors import landsat

SOURCE = Source(collection="landsat-c2-l2")


@pytest.mark.parametrize(
    "asset",
    [
        {},
        {"raster:bands": [{"nodata": 0, "scale": 2.75e-5, "offset": -0.2}]},
        {"bands": [{"raster:scale": 2.75e-5, "raster:offset": -0.2}]},
        {"raster:scale": 2.75e-5, "raster:offset": -0.2},
        {"raster:bands": [{"nodata": 0, "spatial_resolution": 30}]},
    ],
)
def test_the_scale_is_the_same_however_it_is_declared(asset: dict[str, Any]) -> None:
    rule = landsat.radiometry("x", {"landsat:collection_number": "02"}, asset, SOURCE)
    assert (rule.scale, rule.offset) == (2.75e-5, -0.2)


@pytest.mark.parametrize(
    ("properties", "asset", "sentence"),
    [
        ({}, {"raster:bands": [{"scale": 0.00341802, "offset": 149.0}]}, "item LX declares scale 0.00341802"),
        ({}, {"raster:bands": [{"scale": 2.75e-5}]}, "offset None"),
        ({"landsat:collection_number": "01"}, {}, "Collection 01"),
    ],
)
def test_another_scale_is_refused(properties: dict[str, Any], asset: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        landsat.radiometry("LX", properties, asset, SOURCE)


def test_temperature_has_its_own_scale_and_storage() -> None:
    declared = {"raster:bands": [{"nodata": 0, "scale": 0.00341802, "offset": 149.0}]}
    rule = landsat.thermal("LX", {}, declared, SOURCE)
    assert rule == landsat.Radiometry(0.00341802, 149.0, "Collection 2 Level 2, as declared")
    raw = np.array([[[0, 1, 29258, 44177, 65535]]], dtype=np.uint16)
    work, observed = landsat.THERMAL_SENSOR.calibrate(raw, 0, rule)
    stored = landsat.THERMAL_SENSOR.finish(work, observed)
    kelvin, seen = landsat.THERMAL.storage.unpack(stored)
    assert seen[0, 0].tolist() == [False, True, True, True, True]
    np.testing.assert_allclose(kelvin[0, 0, 1:], raw[0, 0, 1:] * 0.00341802 + 149, atol=0.0051)


@pytest.mark.parametrize("band", [{"scale": 2.75e-5, "offset": -0.2}, {"scale": 0.0001, "offset": 0.0}])
def test_what_is_not_temperature_is_refused(band: dict[str, float]) -> None:
    with pytest.raises(MdicoError, match=r"item LX declares scale .* surface temperature has 0.00341802 and 149"):
        landsat.thermal("LX", {}, {"raster:bands": [band]}, SOURCE)


def test_counts_become_counts_of_a_ten_thousandth() -> None:
    raw = np.array([[[0, 1, 7272, 7273, 20000, 43636, 65535]]], dtype=np.uint16)
    counts, observed = landsat.calibrate(raw, 0, landsat.Radiometry(2.75e-5, -0.2, ""))
    expected = np.clip(np.rint((raw[0, 0].astype(float) * 2.75e-5 - 0.2) * 1e4), 0, 65534)
    assert counts[0, 0].tolist() == expected.tolist()
    assert counts[0, 0].tolist()[1:] == [0, 0, 0, 3500, 10000, 16022]
    assert observed[0].tolist() == [False, *[True] * 6]
    assert landsat.finish(counts, observed)[0, 0, 0] == 65535


@pytest.mark.parametrize(
    ("properties", "fine"),
    [
        ({"landsat:correction": "L2SP"}, True),
        ({"landsat:correction": "L2SR"}, True),
        ({"landsat:processing_level": "L2SP"}, True),
        ({}, True),
        ({"landsat:correction": "L1TP"}, False),
    ],
)
def test_level_1_is_refused(properties: dict[str, Any], fine: bool) -> None:
    if fine:
        landsat.refuse("landsat-c2-l2", properties)
    else:
        with pytest.raises(MdicoError, match="Level 2"):
            landsat.refuse("landsat-c2-l1", properties)
