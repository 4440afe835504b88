from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdico_cube import doctor
from mdico_cube.cli import app
from mdico_cube.doctor import examine


def states(folder: Path) -> dict[str, str]:
    return {one.name: one.state for one in examine(folder)}


def test_a_machine_that_runs_the_tests_is_fit(tmp_path: Path) -> None:
    found = states(tmp_path)
    assert set(found) >= {"packages", "extras", "formats", "processors", "memory", "disk", "GPU", "catalogs"}
    assert "FAILED" not in found.values()


def test_nothing_is_left_and_no_folder_is_made(tmp_path: Path) -> None:
    examine(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []


def test_an_old_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=99", "no-such-package>=1", "pandas>=1"])
    (packages,) = [one for one in examine(tmp_path) if one.name == "packages"]
    assert packages.state == "FAILED"
    assert "numpy" in packages.detail
    assert "no-such-package is missing" in packages.detail
    assert "pandas" not in packages.detail


def test_little_memory_is_a_note_and_a_full_disk_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "total available")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory(8e9, 1e9))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(1e9, 1e9, 1e6))
    assert states(tmp_path)["memory"] == "note"
    assert states(tmp_path)["disk"] == "FAILED"
    result = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert result.exit_code == 2
    assert "disk" in result.output


def test_json_is_for_machines(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert {one["name"] for one in json.loads(result.stdout)} >= {"packages", "disk"}


def test_online_asks_each_catalog_that_has_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def check(name: str) -> list[doctor.Check]:
        asked.append(name)
        return [doctor.Check("reachable", name != "cdse", "no answer")]

    monkeypatch.setattr(doctor, "check_catalog", check)
    found = {one.name: one for one in examine(tmp_path, online=True)}
    assert "local" not in asked
    assert found["catalog cdse"].state == "note"
    assert "no answer" in found["catalog cdse"].detail
    assert found["catalog earth-search"].state == "ok"
