"""The commands that look at a cube, on a disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube.build import build_cube
from mdico_cube.recipe import parse_recipe


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_inspect_and_export(kind: str, recipe_facts: dict[str, Any], place: Any, tmp_path: Path) -> None:
    facts = {**recipe_facts, "store": {**recipe_facts["store"], "target": str(place(kind))}}
    where, runner = str(build_cube(parse_recipe(facts))), CliRunner()
    told = runner.invoke(app, ["inspect", where, "--json", "--picture", str(tmp_path / "shards.png")])
    assert told.exit_code == 0, told.output
    (radar,) = [one for one in json.loads(told.output) if one["modality"] == "sentinel1"]
    assert [shard["state"] for shard in radar["shards"]] == ["done"] * 6
    assert radar["step_fractions"] == {"2021-01-01": 1.0, "2021-02-01": 1.0, "2021-03-01": 1.0}
    assert (tmp_path / "shards.png").read_bytes().startswith(b"\x89PNG")
    done = runner.invoke(app, ["export", where, "sentinel2", str(tmp_path / "march.tif"), "--step", "2021-03"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "march.tif").exists()
