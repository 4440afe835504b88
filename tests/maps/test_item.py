"""A map's STAC item and the collection over a run's maps: valid, true to the grid, every address leads somewhere."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pystac
import pystac.validation
import pytest
import rasterio
import rasterio.warp
import zarr
from shapely.geometry import box, mapping

from mdico_cube.cube.items import Answer, pack_items, save_items
from mdico_cube.cube.ledger import Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import write_cog
from mdico_cube.maps.item import write_collection, write_item
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.polygons import write_polygons
from mdico_cube.maps.write import map_path, write_map


@pytest.fixture
def source(run):
    source = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))
    write_cog(source, source.with_suffix(".tif"), "map")
    return source


def core_valid(path) -> dict:
    data = json.loads(path.read_text())
    pystac.validation.validate_dict({**data, "stac_extensions": []})  # the core schema, without the network
    return data


def test_the_item_is_valid_and_says_what_the_map_is(run, source):
    target = write_item(source, run.cube, run.bundle())
    assert target == source.with_suffix(".json")
    data = core_valid(target)
    with rasterio.open(source.with_suffix(".tif")) as tiff:
        assert data["properties"]["proj:code"] == f"EPSG:{tiff.crs.to_epsg()}"
        assert data["properties"]["proj:shape"] == [tiff.height, tiff.width]
        assert data["properties"]["proj:transform"] == list(tiff.transform)[:6]
        west, south, east, north = rasterio.warp.transform_bounds(tiff.crs, "EPSG:4326", *tiff.bounds)
        assert data["assets"]["class"]["nodata"] == tiff.nodata
        colors = tiff.colormap(1)
    assert data["bbox"] == pytest.approx([west, south, east, north], abs=1e-5)
    for item, expected in zip(data["assets"]["class"]["classification:classes"], run.classes, strict=True):
        assert (item["value"], item["title"]) == (expected.value, expected.name)
        assert item["color_hint"] == "".join(f"{part:02X}" for part in colors[expected.value][:3])
    assert data["properties"]["start_datetime"] == "2021-04-01T00:00:00Z"
    assert data["properties"]["end_datetime"] == "2021-07-01T00:00:00Z"
    assert data["properties"]["mdico:method"] == "mdico"
    assert data["properties"]["mdico:backend"] == "torch"


def test_the_item_tells_what_a_shorter_arithmetic_changes(run, source):
    zarr.open_group(source, mode="r+").attrs["int8_changed_classes"] = 0.0031
    data = json.loads(write_item(source, run.cube, run.bundle()).read_text())
    assert data["properties"]["mdico:int8_changed_classes"] == 0.0031


def test_every_address_is_relative_and_leads_somewhere_wherever_the_run_is_moved(run, source, tmp_path):
    write_item(source, run.cube, run.bundle())
    write_collection(run.out, "here")
    moved = tmp_path / "moved"
    shutil.move(run.out, moved)
    folder = moved / "maps"
    for path in (folder / "collection.json", folder / f"{source.stem}.json"):
        data = json.loads(path.read_text())
        places = [*data["links"], *data.get("assets", {}).values()]
        assert len(places) >= 2
        for place in places:
            assert place["href"].startswith(("./", "../"))
            assert (folder / place["href"]).exists()
    derived = [link["href"] for link in data["links"] if link["rel"] == "derived_from"]
    model = json.loads((folder / derived[1]).read_text())
    assert model["properties"]["mlm:name"] == "mdico-sentinel2-seed0"


def test_the_collection_covers_every_item_and_reads_with_pystac(run, source):
    other = write_map(run.cube, run.bundle("sentinel1"), map_path(run.out, "mdico", "sentinel1", 0))
    write_item(source, run.cube, run.bundle())
    assert "class" not in json.loads(write_item(other, run.cube, run.bundle("sentinel1")).read_text())["assets"]
    path = write_collection(run.out, "here")
    data = core_valid(path)
    assert data["summaries"]["mdico:modality"] == ["sentinel1", "sentinel2"]
    collection = pystac.Collection.from_file(str(path))
    assert sorted(item.id for item in collection.get_items()) == ["mdico-sentinel1-seed0", "mdico-sentinel2-seed0"]
    assert collection.extent.spatial.bboxes[0] == pytest.approx(next(collection.get_items()).bbox)


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(run, source):
    before = write_item(source, run.cube, run.bundle()).read_bytes()
    assert write_item(source, run.cube, run.bundle()).read_bytes() == before
    assert not [path for path in source.parent.iterdir() if path.name.startswith(".")]


def test_no_collection_without_items_and_no_item_of_half_a_map(run, source):
    assert write_collection(run.out, "here") is None
    Ledger(source, LAYER, "r+").forget(0, 0)
    with pytest.raises(MdicoError, match=r"lacks \d+ shards?:"):
        write_item(source, run.cube, run.bundle())


def test_an_item_of_several_sensors_names_every_model_and_layer(run):
    bundles = [run.bundle("sentinel1"), run.bundle("sentinel2")]
    source = write_map(run.cube, bundles, map_path(run.out, "mdico", "auto", 0), abstain=0.5, outputs=("entropy",))
    write_cog(source, source.with_suffix(".tif"), "map")
    write_polygons(source, source.with_suffix(".gpkg"))
    data = core_valid(write_item(source, run.cube, bundles))
    models = [link["href"] for link in data["links"] if link.get("title") == "The model"]
    assert len(models) == 2
    assert all((source.parent / href).exists() for href in models)
    assert {"class", "confidence", "entropy", "abstain", "sensor", "gpkg", "zarr"} == set(data["assets"])
    assert [one["name"] for one in data["assets"]["sensor"]["classification:classes"]] == [
        "none", "sentinel2", "sentinel1",
    ]  # fmt: skip
    assert data["assets"]["abstain"]["classification:bitfields"][0]["name"] == "unsure"
    fused = write_map(run.cube, run.bundle("fused"), map_path(run.out, "mdico", "fused", 0))
    data = core_valid(write_item(fused, run.cube, run.bundle("fused")))
    assert sum(link.get("title") == "The model" for link in data["links"]) == 2


def test_an_item_leads_to_the_items_of_a_stac_api(run, source):
    when = datetime(2021, 4, 3, tzinfo=UTC)
    items = [
        pystac.Item(f"scene-{n}", mapping(box(3, 50, 4, 51)), [3, 50, 4, 51], when, {}, collection="s2-l2a")
        for n in range(3)
    ]
    answers = {
        "sentinel2": Answer("https://stac.example.org/v1/", "0", tuple(items)),
        "sentinel1": Answer("https://files.example.org/catalog.json", "1", tuple(items)),
    }
    save_items(pack_items(answers, {"sentinel2": {"scene-1": "replaced"}}), run.out, run.cube)
    data = core_valid(write_item(source, run.cube, run.bundle()))
    found = [link["href"] for link in data["links"] if link["rel"] == "derived_from"]
    address = "https://stac.example.org/v1/collections/s2-l2a/items/scene-{}"
    assert [href for href in found if href.startswith("https")] == [address.format(0), address.format(2)]
    assert "../items.parquet" in found
    map_ = write_map(run.cube, run.bundle("sentinel1"), map_path(run.out, "mdico", "sentinel1", 0))
    data = core_valid(write_item(map_, run.cube, run.bundle("sentinel1")))
    assert not [link for link in data["links"] if link["href"].startswith("https")]
