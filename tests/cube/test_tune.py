"""Layouts measured side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from mdico_cube.cube.tune import Layout, Measured, advise, likely_values, tune_layout
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe, parse_recipe
from mdico_cube.sensors.registry import SENSORS


def test_every_layout_is_measured_and_nothing_stays(recipe: Recipe) -> None:
    recipe.output.mkdir()
    tuning = tune_layout(recipe, 0.1, [(32, 64, "zstd", 1), (64, 64, "lz4", 5)], rounds=1, seconds=0.02)
    assert [row.layout for row in tuning.rows] == [
        Layout(16, 32, "lz4", 9),
        Layout(32, 64, "zstd", 1),
        Layout(64, 64, "lz4", 5),
    ]
    for row in tuning.rows:
        assert min(row.write, row.patches, row.series) > 0
        assert row.ratio > 1
    assert tuning.rows[0].objects == 4 * tuning.rows[1].objects
    assert tuning.modality == "dem", "four floats are more than two bands of three months"
    assert tuning.advice in [row.layout for row in tuning.rows]
    assert list(recipe.output.iterdir()) == []


def test_the_advice_is_lines_of_a_recipe(recipe: Recipe, recipe_facts: dict[str, Any]) -> None:
    lines = tune_layout(recipe, 0.1, [(64, 64, "zstd", 2)], rounds=1, seconds=0.02).lines()
    store = parse_recipe({**recipe_facts, **yaml.safe_load(lines)}).store
    assert (store.codec, store.level) in (("lz4", 9), ("zstd", 2))


def row(chunk: int, write: float, patches: float, ratio: float) -> Measured:
    return Measured(Layout(chunk, 512, "lz4", 9), write, patches, 1.0, ratio, 1)


def test_the_advice_weighs_reading_against_writing_and_room() -> None:
    assert advise([row(16, 40, 900, 2), row(32, 60, 500, 2), row(64, 100, 300, 2)]).chunk == 32, "16 writes too slowly"
    assert advise([row(16, 90, 900, 1.5), row(64, 100, 300, 2)]).chunk == 64, "16 takes too much room"
    with pytest.raises(MdicoError, match="no layout"):
        advise([])


def test_the_values_compress_as_a_sensors_do(tmp_path: Path) -> None:
    values = likely_values((4, 3, 128, 128), SENSORS["sentinel2"].modality)
    array = zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(4, 3, 64, 64))
    assert values.dtype == np.uint16
    assert 1.2 < values.nbytes / array.nbytes_stored() < 4
