"""What the ledger tells of a cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.ledger import FAILED, Entry, Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe, parse_recipe


def test_a_finished_cube(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["period"]["end"] = "2021-04-30"
    statuses = {status.modality: status for status in inspect_cube(build_cube(parse_recipe(recipe_facts)))}
    assert {name: status.done for name, status in statuses.items()} == {"sentinel1": 6, "sentinel2": 6, "dem": 6}
    s2 = statuses["sentinel2"]
    assert (s2.failed, s2.missing, s2.items, s2.errors) == (0, 0, 9, {})
    assert s2.valid_fraction == pytest.approx(0.75), "three of four months were observed"
    counted = {offset.partition(" - ")[0]: items for offset, items in s2.offsets.items()}
    assert counted == {"+0 (processing baseline 03.01)": 6, "-0.1 (processing baseline 04.00)": 3}
    assert s2.bytes_written == 64 * 96 * 4 * 2 * 2


def test_failures_are_told(recipe: Recipe) -> None:
    path = build_cube(recipe)
    Ledger(path, "sentinel1", mode="r+").record(1, 2, Entry(FAILED, error="the disk is on fire"))
    (status,) = [one for one in inspect_cube(path) if one.modality == "sentinel1"]
    assert (status.done, status.failed) == (5, 1)
    assert status.errors == {"1,2": "the disk is on fire"}


def test_what_is_no_cube(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="is no cube"):
        inspect_cube(tmp_path)
