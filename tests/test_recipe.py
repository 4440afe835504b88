"""Recipes: what is accepted, and the one sentence for what is not."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import MapOptions, Recipe, load_recipe, parse_recipe
from mdico_cube.recipe.whole import recipe_card


def changed(facts: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    facts = deepcopy(facts)
    *parents, last = path.split(".")
    node = facts
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return facts


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("colour", 1, "unknown key 'colour'"),
        ("area.resoltion", 10, "unknown key 'area.resoltion', did you mean 'resolution'?"),
        ("colearn.train.epoch", 3, "unknown key 'colearn.train.epoch', did you mean 'epochs'?"),
        ("modalities.sentinel2.band", ["B02"], "unknown key 'modalities.sentinel2.band', did you mean 'bands'?"),
        ("colearn.modalities", ["sentinel2"], "co-learning needs at least two different modalities"),
        ("colearn.modalities", ["sentinel2", "sentinel2"], "co-learning needs at least two different modalities"),
        ("colearn.modalities", ["sentinel2", "landsat"], "colearn.modalities names landsat"),
        ("area", {"bbox": [5, 51, 6, 50]}, "must run from the lower left to the upper right"),
        ("area", {"bounds": [6, 50, 5, 51], "crs": "EPSG:4326"}, "must run from the lower left to the upper right"),
        ("area", {"bbox": [5, 50, 6, 51], "tile": "31UFS"}, "exactly one of bbox, bounds, geojson, tile"),
        ("modalities.sentinel2", {"resampling": "spline"}, "modalities.sentinel2.resampling"),
        ("read", {"engine": "gdal"}, "read.engine"),
        ("area", {"bbox": [5, 50, 6, 51], "geojson": "x"}, "give exactly one of bbox, bounds, geojson"),
        ("area", {"bounds": [0, 0, 1, 1]}, "set crs"),
        ("period.start", "yesterday-ish", "period.start"),
        ("period", {"start": "2021-01-01", "end": "2021-12-31", "step": "season"}, "step: season needs a season"),
        ("period", {"windows": [["2021-01-01", "2021-01-09"]], "step": "10D"}, "windows are the steps themselves"),
        ("period", {"windows": [["2021-01-01", "2021-01-09"]], "end": "2021-02-01"}, "windows are the steps"),
        ("period", {"step": "MS"}, "'period.start' is missing"),
        ("samples.validation", 0.8, "must leave blocks for training"),
        ("store.chunk", 48, "shard (32) must be a multiple of chunk (48)"),
        ("name", "a/b", "name: must be of letters, digits, points, dashes and underscores, came 'a/b'"),
        ("maps", {"device": "gpu"}, "maps.device: must be auto, cpu, cuda or the number of a card"),
        ("area", {"bbox": [200, 50, 201, 51]}, "bbox is in degrees"),
        ("area.bounds", [float("nan"), 0, 1, 1], "area.bounds.0"),
        ("modalities.sentinel2.bands", [], "name at least one band"),
        ("modalities.sentinel2.bands", ["B04", "B04"], "names B04 twice"),
        ("colearn.seeds", [-1], "recipe: colearn.seeds.0: input should be greater than or equal to 0, came -1."),
        ("colearn.seeds", [], "recipe: colearn.seeds: must hold at least 1, came []."),
        ("tune", {"space": {"encoder.width": [8]}}, "tune.space.encoder.width.values: must hold at least 2, came [8]."),
        ("tune", {"space": {"encoder.width": {"low": 8}}}, "'tune.space.encoder.width.range.high' is missing: add it."),
        ("colearn.train", {"warmup": 2}, "colearn.train: warmup goes with constant, cosine or step"),
        ("colearn.seeds", [1, 1], "names 1 twice"),
        ("colearn.modalities", ["sentinel1", "sentinel2", "sentinel1"], "names sentinel1 twice"),
        ("samples.seed", -1, "samples.seed"),
        ("samples.validation", 0, "the honest protocol stops training on validation blocks"),
        ("maps", {"modalities": ["dem"]}, "maps.modalities names dem, which colearn.modalities does not list"),
        ("maps", {"methods": ["fusion"]}, "maps.methods names fusion, which colearn.methods does not list"),
        ("labels.classes", [{"name": "a"}, {"name": "a"}], "names a twice"),
        ("modalities.sentinel2.orbit", "ascending", "modalities.sentinel2.orbit is ascending, but only sentinel1"),
        ("modalities.sentinel1.orbit", "up", "modalities.sentinel1.orbit"),
        ("modalities.sentinel2.source", {"query": {"eo:cloud_cover": {"under": 5}}}, "is compared by 'under': use one"),
        ("modalities.sentinel2.source", {"query": {"platform": {"in": "a"}}}, "`in` needs a list"),
    ],
)
def test_a_bad_recipe_gets_a_sentence(recipe_facts: dict[str, Any], path: str, value: Any, sentence: str) -> None:
    with pytest.raises(MdicoError) as caught:
        parse_recipe(changed(recipe_facts, path, value))
    assert sentence in str(caught.value)
    assert not sentence.endswith(".") or str(caught.value).endswith(sentence), "nothing more is said"
    assert "\n" not in str(caught.value)


def test_options_of_radar_hold_for_both_of_its_split_orbits(recipe_facts: dict[str, Any]) -> None:
    facts = changed(recipe_facts, "modalities.sentinel1", {"orbit": "split"})
    facts = changed(facts, "samples.min_valid", {"sentinel1_ascending": 0.2, "sentinel1": 0.1, "sentinel2": 0.5})
    facts = changed(changed(facts, "samples.coarsen", {"sentinel1": 2}), "samples.patch", 4)
    samples = parse_recipe(facts).samples
    assert samples.min_valid == {"sentinel1_ascending": 0.2, "sentinel1_descending": 0.1, "sentinel2": 0.5}
    assert samples.coarsen == {"sentinel1_ascending": 2, "sentinel1_descending": 2}


def test_split_orbits_are_two_modalities_wherever_the_recipe_names_radar(recipe_facts: dict[str, Any]) -> None:
    facts = changed(recipe_facts, "modalities.sentinel1", {"orbit": "split", "reducer": "median"})
    recipe = parse_recipe(changed(facts, "maps.modalities", ["sentinel1"]))
    both = ("sentinel1_ascending", "sentinel1_descending")
    assert tuple(recipe.modalities) == (*both, "sentinel2", "dem")
    assert all(recipe.modalities[name].reducer == "median" for name in both)
    assert recipe.colearn.modalities == (*both, "sentinel2")
    assert recipe.maps.modalities == both
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe, "what a cube keeps of it reads back"


def test_a_missing_section_is_named(recipe_facts: dict[str, Any]) -> None:
    del recipe_facts["area"]
    with pytest.raises(MdicoError, match="'area' is missing"):
        parse_recipe(recipe_facts)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name: [1, 2", "is not YAML at line"),
        (b"\xff\xfe\x00binary", "is not a text file"),
        (b"just words", "must be a mapping of sections"),
        (b"name: a\narea: {}\nname: b", r"is not YAML at line 3, column 1 \('name' stands twice\)"),
        (b"name: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "recipe.yml"
    path.write_bytes(content)
    with pytest.raises(MdicoError, match=sentence):
        load_recipe(path)


def test_paths_count_from_the_recipe(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    facts = {**recipe_facts, "output": "runs/a", "href": "catalog/catalog.json"}
    facts["labels"] = {**facts["labels"], "path": "labels.tif"}
    recipe = parse_recipe(facts, base=tmp_path)
    assert recipe.output == tmp_path / "runs/a"
    assert recipe.href == str(tmp_path / "catalog/catalog.json")
    assert recipe.labels.path == tmp_path / "labels.tif"


def test_legend_counts_from_one(recipe: Recipe) -> None:
    assert [entry.value for entry in recipe.labels.legend] == [1, 2]


@pytest.mark.parametrize(
    ("period", "fits"),
    [
        ({"start": "2021-01-01", "end": "2021-12-31"}, True),
        ({"windows": [["2021-01-01", "2021-01-09"]]}, True),
        ({"start": "2021-01-01"}, False),
        ({}, False),
    ],
)
def test_the_schema_asks_for_two_days_or_windows(period: dict[str, Any], fits: bool) -> None:
    schema = Recipe.model_json_schema()
    checker = Draft202012Validator({**schema["$defs"]["PeriodSection"], "$defs": schema["$defs"]})
    assert checker.is_valid(period) == fits


def test_a_recipe_reads_itself_again(recipe: Recipe) -> None:
    facts = json.loads(recipe.model_dump_json())
    assert parse_recipe(facts) == recipe
    for key in ("labels", "colearn"):
        del facts[key]
    cube = parse_recipe(facts)
    assert cube.labelling is cube.learning is None
    assert parse_recipe(json.loads(cube.model_dump_json())) == cube
    assert "labels" not in recipe_card(cube).html()
    Draft202012Validator(Recipe.model_json_schema()).validate(facts)


def test_a_recipe_cannot_be_changed(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        ({"strategy": "points"}, r"samples: places \(a vector file\) goes with strategy points or polygons"),
        ({"places": {"path": "p.gpkg"}}, r"samples: places \(a vector file\) goes with strategy points or polygons"),
        ({"folds": 3, "test_fold": 3}, "samples: test_fold 3 does not exist: folds are counted 0 to 2"),
        ({"min_valid": {"landsat": 0.5}}, "samples.min_valid names landsat, which the recipe's modalities do not list"),
        ({"dates": ["2021-01-01", "tomorrow!"]}, r"samples.dates"),
        ({"strategy": "points", "places": {"path": "p.gpkg", "labl": "c"}}, "unknown key 'samples.places.labl'"),
    ],
)
def test_sampling_that_makes_no_sense(recipe_facts: dict[str, Any], samples: dict[str, Any], sentence: str) -> None:
    recipe_facts["samples"] = samples
    with pytest.raises(MdicoError, match=sentence):
        parse_recipe(recipe_facts)


def test_places_count_from_the_recipes_folder(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    recipe_facts["samples"] = {"strategy": "points", "places": {"path": "p.gpkg"}, "min_valid": {"sentinel1": 0.5}}
    samples = parse_recipe(recipe_facts, base=tmp_path).samples
    assert samples.places is not None
    assert samples.places.path == tmp_path / "p.gpkg"
    assert (samples.least_valid("sentinel1"), samples.least_valid("sentinel2")) == (0.5, 0.0)


def test_pixels_at_once_follow_the_precision_unless_they_are_set() -> None:
    at_once = {precision: MapOptions(precision=precision).at_once for precision in ("32-true", "fp16", "bf16", "int8")}
    assert at_once == {"32-true": 1024, "fp16": 1024, "bf16": 2048, "int8": 2048}
    assert MapOptions(precision="int8", pixels=512).at_once == 512
