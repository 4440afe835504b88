"""Catalog files: one more is a file and no code; every file that comes with the project is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_world import toy_counts

from mdico_cube.cube.catalog import catalog_folder, load_catalog, source_for
from mdico_cube.cube.check import list_catalogs
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.planning import plan_build
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe
from mdico_cube.sensors.registry import SENSORS, get_sensor

MINE = """
name: mine
title: Scenes on our server
href: {href}
modalities:
  sentinel2:
    collection: optical
    quality: [classes, mask]
    offset: declared
    nodata: 0
    assets: {{B04: red, B08: [nir, near_infrared]}}
  sentinel1:
    collection: radar
    nodata: -32768
also:
  sentinel2:
    - {{collection: old-optical, quality: SCL, offset: none, assets: {{B04: B4}}}}
"""


@pytest.fixture
def mine(toy_catalog: Path, tmp_path: Path) -> Path:
    """A catalog with names of its own: other collections, other asset keys, offsets declared."""
    for collection in json.loads(toy_catalog.read_text())["links"]:
        if collection["rel"] == "child" and "dem" not in collection["href"]:
            copy_collection(toy_catalog.parent, tmp_path / "ours", Path(collection["href"]).parts[0])
    children = [{"rel": "child", "href": f"./{name}/collection.json"} for name in ("optical", "radar")]
    page = json.loads(toy_catalog.read_text()) | {"links": children}
    (tmp_path / "ours/catalog.json").write_text(json.dumps(page))
    path = tmp_path / "mine.yml"
    path.write_text(MINE.format(href=tmp_path / "ours/catalog.json"))
    return path


def copy_collection(toy: Path, target: Path, name: str) -> None:
    """A collection of the toy under another name, its items with other asset keys."""
    new = {"sentinel-2-l2a": "optical", "sentinel-1-rtc": "radar"}[name]
    names = {"B04": "red", "B08": "near_infrared", "SCL": "mask"}
    links = []
    for source in sorted((toy / name).glob("*/*.json")):
        item = json.loads(source.read_text())
        late = item["properties"].pop("s2:processing_baseline", "") >= "04"
        assets = {}
        for key, asset in item["assets"].items():
            asset["href"] = str((source.parent / asset["href"]).resolve())
            if late and key != "SCL":
                asset["raster:bands"] = [{"scale": 1e-4, "offset": -0.1}]
            assets[names.get(key, key)] = asset
        folder = target / new / source.stem
        folder.mkdir(parents=True)
        (folder / source.name).write_text(json.dumps(item | {"collection": new, "assets": assets, "links": []}))
        links.append({"rel": "item", "href": f"./{source.stem}/{source.name}"})
    collection = json.loads((toy / name / "collection.json").read_text())
    (target / new / "collection.json").write_text(json.dumps(collection | {"id": new, "links": links}))


def test_a_catalog_of_ones_own_needs_no_code(mine: Path, recipe_facts: dict[str, Any]) -> None:
    del recipe_facts["href"]
    facts = {**recipe_facts, "catalog": str(mine), "modalities": {"sentinel1": {}, "sentinel2": {"bands": ["B08"]}}}
    plan = plan_build(parse_recipe(facts))
    layer = plan.layers[1]
    assert layer.assets == ("nir",)
    assert layer.offsets == {"+0 (declared by the item)": 6, "-0.1 (declared by the item)": 3}
    stored = compute_block(layer, plan.geobox)
    for step in range(3):
        expected = np.median([toy_counts(step + 1, day, "B08")[20:] for day in (5, 15, 25)], axis=0)
        np.testing.assert_array_equal(stored[step, 0, 20:], expected)


def test_other_collections_bring_their_own_description(mine: Path, recipe_facts: dict[str, Any]) -> None:
    section = {"source": {"collection": "old-optical", "dilate": 2}}
    recipe = parse_recipe({**recipe_facts, "modalities": {"sentinel1": {}, "sentinel2": section}})
    source = source_for(load_catalog(str(mine)), recipe, "sentinel2", get_sensor("sentinel2"))
    assert (source.collection, source.offset, source.dilate) == ("old-optical", "none", 2)
    assert source.keys("B04") == ("B4",)
    assert source.quality_keys == ("SCL",)
    section["source"]["collection"] = "elsewhere"  # not described: the catalog's usual names hold
    recipe = parse_recipe({**recipe_facts, "modalities": {"sentinel1": {}, "sentinel2": section}})
    source = source_for(load_catalog(str(mine)), recipe, "sentinel2", get_sensor("sentinel2"))
    assert (source.collection, source.keys("B04")) == ("elsewhere", ("red",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("modalities: {sentinel-2: {collection: x}}", "modalities.sentinel-2 is no sensor.*Did you mean 'sentinel2'"),
        ("also: {landsaat: [{collection: x}]}\nmodalities: {}", "also.landsaat is no sensor.*Did you mean 'landsat'"),
        ("modalities: {sentinel2: {collection: x, assets: {B4: red}}}", "no band 'B4'.*Did you mean 'B04'"),
        ("modalities: {sentinel2: {collection: x, offset: guess}}", "modalities.sentinel2.offset"),
        ("modalities: {sentinel2: {}}", "modalities.sentinel2.collection"),
        ("modalities: [", "is not YAML"),
    ],
)
def test_a_slip_in_a_catalog_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(f"name: mine\ntitle: Mine\n{text}\n")
    with pytest.raises(MdicoError, match=sentence):
        load_catalog(str(path))


@pytest.mark.parametrize("name", [path.stem for path in sorted(catalog_folder().glob("*.yml"))])
def test_every_file_describes_every_band_it_must(name: str) -> None:
    """Bands that a catalog renames are renamed all or none; each optical source has a mask and a policy."""
    catalog = load_catalog(name)
    for modality, source in [*catalog.modalities.items(), *((m, s) for m, all_ in catalog.also.items() for s in all_)]:
        if modality not in SENSORS:  # weather stores keep names of their own
            continue
        sensor = SENSORS[modality]
        named = [band in source.assets for band in sensor.reads or sensor.defaults]
        assert all(named) or not any(named), (name, modality)
        assert (sensor.quality is None) == (not source.quality_keys), (name, modality)
        if sensor.sentinel is not None:
            assert source.offset in ("baseline", "declared"), (name, modality)


def test_every_sensor_stands_in_some_catalog() -> None:
    known = {name for catalog in list_catalogs() for name in catalog.modalities}
    assert known >= {sensor.entry or name for name, sensor in SENSORS.items()}


def test_the_copernicus_store_is_no_bucket_of_amazon() -> None:
    s3 = load_catalog("cdse").s3
    assert (s3.endpoint, s3.path_style, s3.unsigned) == ("https://eodata.dataspace.copernicus.eu", True, False)
