"""Every recipe that comes with the project parses, fits the schema, finds its sensors, and has a comment per key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from mdico_cube.colearn.encoders.registry import get_encoder
from mdico_cube.colearn.registry import get_method
from mdico_cube.cube.catalog import load_catalog
from mdico_cube.journey import pipeline_folder
from mdico_cube.recipe import ClusterSection, Recipe, StoreSection, load_recipe
from mdico_cube.sensors.registry import get_sensor

FOLDER = pipeline_folder()
RECIPES = sorted([*FOLDER.glob("*.yml"), *FOLDER.glob("templates/*.yml")])
CLUSTERS = sorted(FOLDER.glob("clusters/*.yml"))


def test_the_uses_that_are_promised_are_there() -> None:
    assert {path.stem for path in RECIPES} == {
        *("demo", "region", "cropland-planetary-computer", "crop-type-earth-search"),
        *("fuel-moisture-landsat-sentinel1", "tree-species"),
    }
    assert {path.stem for path in CLUSTERS} == {"local", "slurm", "gateway", "kubernetes"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole(path: Path) -> None:
    recipe = load_recipe(path)
    facts = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
    facts["modalities"] = {name: section or {} for name, section in facts["modalities"].items()}
    if "orbit: split" not in path.read_text():  # split makes two sensors of one, which the schema cannot say
        jsonschema.validate(facts, Recipe.model_json_schema())
    for name, section in recipe.modalities.items():
        sensor = get_sensor(name)
        sensor.modality.select(section.bands)
        assert load_catalog(section.catalog or recipe.catalog).modalities
    for fallback in recipe.fallback:
        load_catalog(fallback.catalog)
    get_encoder(recipe.colearn.encoder.name)
    for method in recipe.colearn.methods:
        get_method(method)
    assert len(recipe.period.period.steps()) >= 4


@pytest.mark.parametrize("path", [*(p for p in RECIPES if p.parent == FOLDER and p.stem != "demo"), *CLUSTERS], ids=str)
def test_every_key_has_a_comment(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            assert re.search(r"\s# \S", line), f"{path.name}, line {number}: {line}"
            assert len(line) <= 120


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_cluster_s_section_is_one(path: Path) -> None:
    facts = yaml.safe_load(path.read_text())
    assert ClusterSection.model_validate(facts["cluster"]).kind == path.stem
    StoreSection.model_validate(facts.get("store", {}))


def test_the_makefile_runs_every_region(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    shutil.copy(FOLDER / "Makefile", tmp_path)
    for name in ("north", "south"):
        (tmp_path / f"{name}.yml").write_text("")
    command = ["make", "-n", "--no-print-directory"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split("\n")) == ["", "mdico run north.yml --resume", "mdico run south.yml --resume"]
    for path in RECIPES:
        if path.parent == FOLDER and path.stem != "demo":
            assert load_recipe(path).output.name == path.stem, "the Makefile looks for the report there"
