"""The commands that look at a cube, on a disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.stale import stale_shards
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


def test_inspect_counts_what_is_stale(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    where, runner, file = str(build_cube(parse_recipe(recipe_facts))), CliRunner(), tmp_path / "recipe.yml"
    assert stale_shards(where) == []
    modalities = {**recipe_facts["modalities"], "sentinel2": {"bands": ["B04", "B08"], "reducer": "first"}}
    file.write_text(yaml.safe_dump({**recipe_facts, "modalities": modalities, "href": "/nowhere"}))
    told = runner.invoke(app, ["inspect", where, "--recipe", str(file)])
    assert told.exit_code == 0, told.output
    assert 'sentinel2: 6 shards stale: reducer was "median", is "first"' in " ".join(told.output.split())
    told = runner.invoke(app, ["inspect", where, "--recipe", str(file), "--json"])
    counts = {one["modality"]: len(one["stale"]) for one in json.loads(told.output)}
    assert counts == {"sentinel1": 0, "sentinel2": 6, "dem": 0}
    told = runner.invoke(app, ["inspect", where, "--stale", "--json"])
    assert [one["stale"] for one in json.loads(told.output)] == [{}, {}, {}]
    assert "stale" not in json.loads(runner.invoke(app, ["inspect", where, "--json"]).output)[0]
