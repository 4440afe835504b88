"""What the ledger tells of a cube."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.ledger import FAILED, Entry, Ledger
from mdico_cube.errors import MdicoError


def test_a_finished_cube(toy_cube: Path) -> None:
    statuses = {status.modality: status for status in inspect_cube(toy_cube)}
    assert {name: status.done for name, status in statuses.items()} == {"sentinel1": 2, "sentinel2": 2, "dem": 2}
    s2 = statuses["sentinel2"]
    assert (s2.failed, s2.missing, s2.items, s2.errors) == (0, 0, 9, {})
    assert s2.valid_fraction == pytest.approx(0.75), "three of four months were observed"
    counted = {offset.partition(" - ")[0]: items for offset, items in s2.offsets.items()}
    assert counted == {"+0 (processing baseline 03.01)": 6, "-0.1 (processing baseline 04.00)": 3}
    assert s2.bytes_written == 64 * 96 * 4 * 2 * 2


def test_failures_are_told(copied: Path) -> None:
    Ledger(copied, "sentinel1", mode="r+").record(1, 2, Entry(FAILED, error="the disk is on fire"))
    (status,) = [one for one in inspect_cube(copied) if one.modality == "sentinel1"]
    assert (status.done, status.failed) == (5, 1)
    assert status.errors == {"1,2": "the disk is on fire"}
    assert status.failures() == ["shard 1,2 failed: the disk is on fire"]


def test_a_thousand_failures_for_one_reason_are_one_sentence(toy_cube: Path) -> None:
    errors = {f"{number // 40},{number % 40}": "no such file" for number in range(1000)} | {"30,0": "no answer"}
    (status,) = [replace(one, errors=errors) for one in inspect_cube(toy_cube) if one.modality == "sentinel1"]
    many, other = status.failures()
    assert many == "1,000 shards (0,0 0,1 0,2 0,3 0,4 0,5 0,6 0,7 0,8 0,9 0,10 0,11 ...) failed: no such file"
    assert other == "shard 30,0 failed: no answer"


def test_what_is_no_cube(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="is no cube"):
        inspect_cube(tmp_path)
