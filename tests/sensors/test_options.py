"""Options of a recipe that mean nothing to a sensor are refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ModalitySection
from mdico_cube.sensors.options import check_options
from mdico_cube.sensors.registry import SENSORS, WEATHER, get_sensor

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("era5", {"resampling": "cubic"}, r"modalities\.era5\.resampling: .*own coarse grid.*Leave resampling out"),
    ("era5", {"reducer": "mean"}, r"every band has its own \(t2m: mean"),
    ("era5", {"source": {"dilate": 3}}, "no quality layer"),
    ("sentinel2", {"lapse_rate": 6.5}, r"modalities\.sentinel2\.lapse_rate: Sentinel-2 has no air temperatures"),
    ("landsat_st", {"lapse_rate": 0}, "only weather has"),
    ("sentinel1", {"source": {"hide": [1]}}, "Sentinel-1 has no quality layer"),
    ("dem", {"source": {"quality": "mask"}}, "Terrain has no quality layer"),
    ("dem", {"reducer": "mean"}, "of tiles that overlap the first one counts"),
    ("sentinel2_count", {"reducer": "median"}, "sentinel2_count counts observations, and nothing else"),
    ("landsat", {"source": {"offset": "baseline"}}, "only Sentinel-2's offset changes by item"),
    ("sentinel1", {"source": {"zarr": {"variables": {"vv": {"name": "vv", "unit": "1"}}}}}, "only weather from Zarr"),
]


@pytest.mark.parametrize(("name", "section", "said"), WRONG)
def test_what_does_not_apply_is_refused(name: str, section: dict[str, Any], said: str) -> None:
    with pytest.raises(MdicoError, match=said):
        check_options(name, ModalitySection.model_validate(section), get_sensor(name))


@pytest.mark.parametrize("name", [*SENSORS, *WEATHER])
def test_defaults_and_nulls_apply_to_all(name: str) -> None:
    nulls = {"reducer": None, "resampling": None, "source": {"hide": None, "quality": None, "zarr": None}}
    for section in ({}, nulls):
        check_options(name, ModalitySection.model_validate(section), get_sensor(name))
