"""Every recipe of the project parses, fits the schema, finds its sensors, plans, and has a comment per key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pystac
import pytest
import yaml
from odc.geo.geom import Geometry

import mdico_cube as mdico
from mdico_cube.colearn.encoders.registry import get_encoder
from mdico_cube.colearn.registry import get_method
from mdico_cube.cube import search
from mdico_cube.cube.catalog import CatalogFile, load_catalog, source_for
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.query import matches
from mdico_cube.cube.search import Span
from mdico_cube.cube.weather import band_makings, rules_of
from mdico_cube.journey.demo import pipeline_folder
from mdico_cube.recipe import Area, ClusterSection, ReadSection, Recipe, Source, StoreSection, load_recipe
from mdico_cube.sensors.registry import SENSORS, WEATHER, get_sensor

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


@pytest.mark.parametrize("path", [p for p in RECIPES if "  era5:" in p.read_text()], ids=lambda path: path.stem)
def test_weather_can_be_made_of_its_source(path: Path) -> None:
    """Every band that is asked for, and the height of the cells where a lapse rate is named."""
    recipe, weather = load_recipe(path), WEATHER["era5"]
    for name, section in recipe.modalities.items():
        if name == "era5":
            source = source_for(load_catalog(section.catalog or recipe.catalog), recipe, name, weather)
            bands = section.bands or weather.defaults
            assert [one.band for one in band_makings(weather, weather.modality.select(bands), source)] == list(bands)
            assert rules_of(source, name).orography is not None or "lapse_rate" not in section.model_fields_set


def choices(schema: dict[str, Any], key: str = "") -> list[tuple[str, frozenset[str]]]:
    """Key and choices, wherever a recipe's schema has a closed list of them."""
    found = [(key, frozenset(map(str, schema["enum"])))] if "enum" in schema else []
    for name, part in schema.get("properties", {}).items():
        found += choices(part, name)
    parts = (*schema.get("$defs", {}).values(), *schema.get("anyOf", ()))
    for part in (*parts, schema["items"]) if "items" in schema else parts:
        found += choices(part, key)
    return found


def test_the_template_names_every_choice() -> None:
    """A key with a closed list of values has all of them in its line."""
    known, seen = choices(Recipe.model_json_schema()), set()
    for line in (FOLDER / "templates" / "region.yml").read_text().splitlines():
        if said := re.match(r"[ #]*(\w+): +(?:\[\]|\[?([\w-]+))", line):
            key, value = said.groups()
            lists = [values for name, values in known if name == key and value in {*values, None}]
            assert not lists or any(values <= {*re.findall(r"[\w-]+", line)} for values in lists), (line, lists)
            seen |= {key} if lists else set()
    assert {"reducer", "schedule", "precision", "outputs", "loggers", "protocol"} <= seen


def scenes(
    catalog: CatalogFile, href: str, source: Source, area: Geometry, spans: list[Span] | None, reading: ReadSection
) -> list[pystac.Item]:
    """What a catalog would hold: every five days a scene of either orbit, with every asset."""
    bands = {band for sensor in SENSORS.values() for band in sensor.modality.band_names}
    keys = {key for band in bands for key in source.keys(band)} | set(source.quality_keys)
    lon, lat = (round(value, 6) for value in area.centroid.coords[0])
    zone = f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) // 6) + 1}"
    ends = spans or [(datetime(2021, 6, 1), datetime(2021, 6, 30))]
    days = [day for start, stop in ends for day in pd.date_range(start, stop) if day.day % 5 == 3]
    found = []
    for day in days:
        for hour, orbit in ((6, "descending"), (17, "ascending")):
            when = day.to_pydatetime().replace(hour=hour, tzinfo=UTC)
            facts = {"proj:code": zone, "sat:orbit_state": orbit, "s2:processing_baseline": "05.10"}
            facts |= {"earthsearch:boa_offset_applied": True, "eo:cloud_cover": 10, "landsat:collection_number": "02"}
            item = pystac.Item(
                f"{source.collection}-{when:%Y%m%d}-{orbit}", area.json, list(area.boundingbox), when, facts
            )
            for key in sorted(keys):
                item.add_asset(key, pystac.Asset(f"https://example.org/{item.id}/{key}.tif"))
            found.append(item)
    return [item for item in found if matches(item, source.query)]


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem != "demo"], ids=lambda path: path.stem)
def test_a_recipe_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its middle, against a made-up catalog; weather is planned in the tests of its stores."""
    monkeypatch.setattr(search, "find_items", scenes)
    ring = [[[10.30, 51.70], [10.36, 51.70], [10.36, 51.74], [10.30, 51.74], [10.30, 51.70]]]
    (tmp_path / "forest.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": ring}))
    recipe = load_recipe(shutil.copy(path, tmp_path))
    images = {name: section for name, section in recipe.modalities.items() if name != "era5"}
    grid = grid_for(recipe.area)
    x, y = grid.extent.centroid.coords[0]
    small = Area(bounds=(x - 900, y - 900, x + 900, y + 900), crs=str(grid.crs), resolution=recipe.area.resolution)
    summary = mdico.plan(recipe.model_copy(update={"modalities": images, "area": small})).summary()
    assert set(summary["modalities"]) == set(images)
    for name, facts in summary["modalities"].items():
        assert min(facts["scenes_per_step"]) >= 1, name
        assert facts["bytes_read"] > 0
    assert summary["gaps"] == {}


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
