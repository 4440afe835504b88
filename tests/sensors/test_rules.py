"""The radiometry and validity rules of each sensor, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import Source
from mdico_cube.sensors import dem, sentinel1, sentinel2
from mdico_cube.sensors.quality import seen
from mdico_cube.sensors.registry import SENSORS, get_sensor
from mdico_cube.sensors.sensor import Steps


@pytest.mark.parametrize(
    ("policy", "properties", "asset", "offset"),
    [
        ("baseline", {"s2:processing_baseline": "02.14"}, {}, 0.0),
        ("baseline", {"s2:processing_baseline": "03.01"}, {}, 0.0),
        ("baseline", {"s2:processing_baseline": "04.00"}, {}, -0.1),
        ("baseline", {"s2:processing_baseline": "05.11"}, {}, -0.1),
        ("baseline", {"processing:version": "05.09"}, {}, -0.1),
        ("declared", {}, {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}, -0.1),
        ("declared", {}, {"raster:bands": [{"scale": 1e-4}]}, 0.0),
        ("declared", {}, {"bands": [{"raster:offset": -0.1}]}, -0.1),
        (
            "declared",
            {"earthsearch:boa_offset_applied": True},
            {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]},
            0.0,
        ),
        ("none", {"s2:processing_baseline": "05.11"}, {"raster:bands": [{"offset": -0.1}]}, 0.0),
    ],
)
def test_sentinel2_offset(policy: Any, properties: dict[str, Any], asset: dict[str, Any], offset: float) -> None:
    rule = sentinel2.radiometry("x", properties, asset, Source(collection="c", offset=policy))
    assert rule.offset == offset
    assert rule.reason


def test_sentinel2_without_a_baseline_is_refused_not_guessed() -> None:
    with pytest.raises(MdicoError, match="item S2X has processing baseline None"):
        sentinel2.radiometry("S2X", {}, {}, Source(collection="c", offset="baseline"))


def test_sentinel2_calibration_keeps_missing_apart_from_dark() -> None:
    raw = np.array([[[0, 900, 1000, 1001, 65535]]], dtype=np.uint16)
    rule = sentinel2.Radiometry(1e-4, -0.1, "")
    counts, observed = sentinel2.calibrate(raw, 0, rule)
    assert counts[0, 0, 1:].tolist() == [0, 0, 1, 64535]
    assert observed.tolist() == [[False, True, True, True, True]]
    stored = sentinel2.finish(counts, observed)
    assert stored[0, 0].tolist() == [65535, 0, 0, 1, 64535]


def test_sentinel2_is_observed_only_where_every_band_is() -> None:
    raw = np.array([[[5, 0]], [[5, 5]]], dtype=np.uint16)
    _, observed = sentinel2.calibrate(raw, 0, sentinel2.Radiometry(1e-4, 0.0, ""))
    assert observed.tolist() == [[True, False]]


@pytest.mark.parametrize(("scl", "clear"), list(enumerate([0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1])))
def test_scl_classes(scl: int, clear: int) -> None:
    assert seen(np.array([[scl]], dtype=np.uint8), sentinel2.SCL, sentinel2.SCL.hides).item() == bool(clear)


def test_sentinel1_stores_decibels_of_the_power() -> None:
    power = np.array([[[1.0, 0.1, 0.0, -1.0, -32768, np.nan]]], dtype=np.float32)
    work, observed = sentinel1.calibrate(power, -32768, sentinel1.Radiometry(1, 0, ""))
    stored = sentinel1.finish(work, observed)
    assert observed[0].tolist() == [True, True, False, False, False, False]
    assert stored[0, 0].tolist() == [0, -1000, *([-32768] * 4)]


def test_rtc_made_from_grd_is_welcome() -> None:
    sentinel1.refuse("sentinel-1-rtc", {"sar:product_type": "GRD"})


@pytest.mark.parametrize(("collection", "properties"), [("sentinel-1-grd", {}), ("other", {"sar:product_type": "GRD"})])
def test_grd_is_refused_with_the_way_out(collection: str, properties: dict[str, Any]) -> None:
    with pytest.raises(MdicoError, match="RTC"):
        sentinel1.refuse(collection, properties)


@pytest.mark.parametrize(("east", "north"), [(0.3, 0.0), (0.0, 0.5), (-0.2, 0.1), (0.0, 0.0)])
def test_terrain_of_a_plane_is_exact(east: float, north: float) -> None:
    """A plane that rises by `east` and `north` metres per metre: slope atan(hypot), aspect downhill."""
    rows, columns = np.mgrid[0:12, 0:14].astype(np.float64)
    plane = (500 + east * 10 * columns - north * 20 * rows).astype(np.float32)
    elevation, slope, northness, eastness = dem.terrain(plane, Steps(10, 0, 0, -20))
    steep = np.hypot(east, north)
    np.testing.assert_allclose(elevation, plane[2:-2, 2:-2])
    np.testing.assert_allclose(slope, np.degrees(np.arctan(steep)), atol=1e-3)
    np.testing.assert_allclose(northness, -north / steep if steep else 0, atol=1e-3)
    np.testing.assert_allclose(eastness, -east / steep if steep else 0, atol=1e-3)


def test_terrain_beside_the_unknown_uses_the_neighbour_that_is_known() -> None:
    plane = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    plane[:, :2] = np.nan
    slope = dem.terrain(plane, Steps(1, 0, 0, -1))[1]
    np.testing.assert_allclose(slope, 45, atol=1e-3)


def test_an_unknown_sensor_gets_a_suggestion() -> None:
    with pytest.raises(MdicoError, match="Did you mean 'sentinel2'"):
        get_sensor("sentinel-2")


@pytest.mark.parametrize(
    ("name", "hint"), [("landsaT", "landsat"), ("sentinel1-ascend", "sentinel1_ascending"), ("xyzzy", "")]
)
def test_the_closest_name_is_only_a_close_one(name: str, hint: str) -> None:
    assert did_you_mean(name, SENSORS) == (f" Did you mean {hint!r}?" if hint else "")


def test_an_unknown_band_gets_a_suggestion() -> None:
    with pytest.raises(MdicoError, match=r"sentinel2: unknown band b8a\. .*Did you mean 'B8A'\?"):
        sentinel2.MODALITY.select(("B02", "b8a"))


@pytest.mark.parametrize("name", SENSORS)
def test_every_sensor_is_complete(name: str) -> None:
    sensor = SENSORS[name]
    assert sensor.modality.name == name
    assert set(sensor.defaults) <= set(sensor.modality.band_names)
    assert all(band.unit for band in sensor.modality.bands)
