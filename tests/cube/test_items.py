"""Saved items: exactly what was found, beside the cube and inside it; a build from them is the same build."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import zarr
from servers import publish
from typer.testing import CliRunner

import mdico_cube as mdico
from mdico_cube.cli import app
from mdico_cube.cube.catalog import catalog_folder
from mdico_cube.cube.items import Answer, Change, compare_items, pack_items, plain_item, unpack_items
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.stale import due_shards
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe, parse_recipe

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "stac-items"


@pytest.fixture
def facts(recipe_facts: dict[str, Any], toy_catalog: Path, tmp_path: Path) -> dict[str, Any]:
    """One shard per modality, on a catalog of the test's own."""
    shutil.copytree(toy_catalog.parent, tmp_path / "catalog")
    href = str(tmp_path / "catalog/catalog.json")
    return {**recipe_facts, "store": {"chunk": 32, "shard": 128}, "href": href}


def digests(plan: BuildPlan) -> list[str]:
    return [layer.digest(plan.block(shard)) for layer in plan.layers for shard in plan.shards()]


def arrays(cube: Path) -> dict[str, bytes]:
    """Every array of a cube but the ledger's entries, which tell the time taken."""
    found = zarr.open_group(cube, mode="r").members(max_depth=None)
    return {
        name: np.asarray(node[...]).tobytes()
        for name, node in found
        if isinstance(node, zarr.Array) and not name.endswith("/entry")
    }


def test_the_same_items_give_the_same_cube_without_the_catalog(facts: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(facts)
    planned = plan_build(recipe)
    cube = mdico.build(recipe)
    saved = recipe.output / "items.parquet"
    assert (cube / "ledger/items/c/0").read_bytes() == saved.read_bytes()
    (tmp_path / "catalog/catalog.json").unlink()
    other = parse_recipe({**facts, "output": str(tmp_path / "again")})
    with pytest.raises(MdicoError, match="no such file"):
        plan_build(other)
    for source in (saved, cube):
        assert digests(mdico.plan(other, source)) == digests(planned)
    again = mdico.build(other, items=saved)
    assert arrays(again) == arrays(cube)
    assert (other.output / "items.parquet").read_bytes() == saved.read_bytes()


def test_any_reader_opens_the_file(facts: dict[str, Any]) -> None:
    plan = plan_build(parse_recipe(facts))
    path = parse_recipe(facts).output
    path.mkdir(parents=True)
    (path / "x.parquet").write_bytes(plan.items_file())
    table = geopandas.read_parquet(path / "x.parquet")
    assert table.crs == "OGC:CRS84"
    assert set(table["collection"]) == {"sentinel-1-rtc", "sentinel-2-l2a", "cop-dem-glo-30"}
    assert table.groupby("mdico:modality").size().to_dict() == {"sentinel1": 9, "sentinel2": 9, "dem": 1}
    assert table.geometry.is_valid.all()
    assert str(table["datetime"].min()) == "2021-01-01 00:00:00+00:00"
    assert "s2:processing_baseline" in table


def test_what_was_left_out_is_in_the_file_with_the_reason(facts: dict[str, Any], tmp_path: Path) -> None:
    """The same acquisition in an older processing, as Earth Search has it."""
    folder = tmp_path / "catalog/sentinel-2-l2a"
    item = json.loads((folder / "S2_20210105/S2_20210105.json").read_text())
    item |= {"id": "S2_older"}
    item["properties"]["s2:processing_baseline"] = "02.14"
    (folder / "S2_20210105/S2_older.json").write_text(json.dumps(item))
    collection = json.loads((folder / "collection.json").read_text())
    collection["links"].append({"rel": "item", "href": "./S2_20210105/S2_older.json"})
    (folder / "collection.json").write_text(json.dumps(collection))
    recipe = parse_recipe(facts)
    plan = plan_build(recipe)
    why = "replaced by S2_20210105: processing baseline 03.01 after 02.14"
    assert plan.summary()["modalities"]["sentinel2"]["left_out"] == {"S2_older": why}
    cube = mdico.build(recipe)
    table = pq.read_table(recipe.output / "items.parquet", columns=["id", "mdico:use"]).to_pylist()
    assert {row["id"]: row["mdico:use"] for row in table if row["mdico:use"] != "used"} == {"S2_older": why}
    assert "S2_older" not in Ledger(cube, "sentinel2").read(0, 0).items
    assert mdico.plan(recipe, cube).layers[1].left_out == {"S2_older": why}
    (status,) = [one for one in mdico.inspect_cube(cube) if one.modality == "sentinel2"]
    assert status.left_out == {"S2_older": why}


def test_going_on_does_not_ask_the_catalog_again(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(facts)
    cube = mdico.build(recipe)
    before = arrays(cube)
    shutil.rmtree(cube / "sentinel2/reflectance/c")
    Ledger(cube, "sentinel2", mode="r+").forget(0, 0)
    shutil.move(facts["href"], facts["href"] + ".away")
    Path(facts["href"]).write_text("{}")  # the catalog is out of order
    mdico.build(recipe, resume=True)
    assert arrays(cube) == before
    facts["period"] = {"start": "2021-01-01", "end": "2021-02-28"}
    with pytest.raises(MdicoError, match="no STAC catalog"):  # another question is asked again
        mdico.build(parse_recipe(facts), resume=True)


def test_refresh_says_what_changed_and_builds_only_that(facts: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(facts)
    cube = mdico.build(recipe)
    assert mdico.refresh(recipe)[1] == []
    stamp = (cube / "sentinel1/backscatter/c/0/0/0/0").stat().st_mtime_ns
    folder = tmp_path / "catalog/sentinel-2-l2a"
    collection = json.loads((folder / "collection.json").read_text())
    gone = next(link for link in collection["links"] if "S2_20210105" in link["href"])
    collection["links"].remove(gone)
    (folder / "collection.json").write_text(json.dumps(collection))
    changed = folder / "S2_20210305/S2_20210305.json"
    changed.write_text(changed.read_text().replace('"04.00"', '"03.01"'))
    expected = [Change("sentinel2", "S2_20210305", "changed"), Change("sentinel2", "S2_20210105", "gone")]
    assert mdico.refresh(recipe)[1] == expected
    mdico.build(recipe, refresh=True)
    assert "S2_20210105" not in Ledger(cube, "sentinel2").read(0, 0).items
    assert Ledger(cube, "sentinel2").read(0, 0).offsets["S2_20210305"].startswith("+0")
    assert (cube / "sentinel1/backscatter/c/0/0/0/0").stat().st_mtime_ns == stamp
    assert mdico.refresh(recipe)[1] == []
    collection["links"].append(gone)
    (folder / "collection.json").write_text(json.dumps(collection))
    assert mdico.refresh(recipe)[1] == [Change("sentinel2", "S2_20210105", "new")]


def test_items_of_another_search_are_told_apart(facts: dict[str, Any]) -> None:
    saved = plan_build(parse_recipe(facts)).answers
    facts["period"] = {"start": "2021-01-01", "end": "2021-01-31"}
    facts["modalities"]["sentinel2"]["source"] = {"query": {"platform": "sentinel-2b"}}
    facts["area"] = {"bounds": [800000, 5600000, 800960, 5600640], "crs": "EPSG:32631"}
    with pytest.raises(MdicoError, match="none of the saved items is of the area"):
        plan_build(parse_recipe(facts), saved)
    facts["area"] = {"bounds": [700000, 5600000, 700960, 5600640], "crs": "EPSG:32631"}
    facts["modalities"] = {"sentinel1": {}, "sentinel2": {"bands": ["B04"]}}
    plan = plan_build(parse_recipe(facts), saved)
    assert set(plan.layers[0].left_out.values()) == {"outside the period in local solar time"}
    assert plan.layers[0].per_step == (3,)
    with pytest.raises(MdicoError, match="saved items have none of landsat"):
        plan_build(parse_recipe({**facts, "modalities": {**facts["modalities"], "landsat": {}}}), saved)


def test_a_run_that_was_moved_as_a_whole_is_as_it_was(facts: dict[str, Any], toy_catalog: Path, tmp_path: Path) -> None:
    """Catalog, files and cube in one folder: nothing is new, stale or read again in another place."""
    (tmp_path / "catalog").rename(tmp_path / "region")
    publish(toy_catalog, tmp_path / "region", str(tmp_path / "region"))
    before = {**facts, "href": str(tmp_path / "region/catalog.json"), "output": str(tmp_path / "region/out")}
    mdico.build(parse_recipe(before))
    (tmp_path / "region").rename(tmp_path / "moved")
    publish(toy_catalog, tmp_path / "moved", str(tmp_path / "moved"))
    after = parse_recipe({**facts, "href": str(tmp_path / "moved/catalog.json"), "output": str(tmp_path / "moved/out")})
    planned, changes = mdico.refresh(after)
    assert changes == []
    assert due_shards(tmp_path / "moved/out/cube.zarr", planned) == []
    assert mdico.stale_shards(tmp_path / "moved/out/cube.zarr", after) == []
    again = {**facts, "href": str(tmp_path / "moved/catalog.json"), "output": str(tmp_path / "again")}
    cube = mdico.build(parse_recipe(again), items=tmp_path / "moved/out/items.parquet")
    assert arrays(cube)["sentinel2/reflectance"] == arrays(tmp_path / "moved/out/cube.zarr")["sentinel2/reflectance"]


def test_saved_items_are_read_by_the_rules_of_their_own_catalog(facts: dict[str, Any], tmp_path: Path) -> None:
    """What another catalog answered, as the first was out of reach, keeps that catalog's offsets; no stranger's do."""
    text = (catalog_folder() / "local.yml").read_text().replace("kind: static", "kind: static\nhref: HREF")
    harmonised = text.replace("offset: baseline ", "offset: none ").replace("HREF", facts["href"])
    (tmp_path / "first.yml").write_text(text.replace("HREF", "http://127.0.0.1:9/catalog.json"))
    (tmp_path / "second.yml").write_text(harmonised)
    facts |= {"catalog": str(tmp_path / "first.yml"), "href": None, "read": {"retries": 0, "timeout": 1}}
    facts["fallback"] = [{"catalog": str(tmp_path / "second.yml")}]
    recipe = parse_recipe({**facts, "modalities": {"sentinel2": {"bands": ["B04"]}, "sentinel1": {}}})
    found = plan_build(recipe)
    assert list(found.layer("sentinel2").offsets) == ["+0 (harmonised by the source)"]
    again = plan_build(recipe, found.answers)
    assert again.layer("sentinel2").offsets == found.layer("sentinel2").offsets
    assert digests(again) == digests(found)
    other = {name: replace(one, catalog="https://other.example.org/v1") for name, one in found.answers.items()}
    with pytest.raises(
        MdicoError, match=r"saved items are of sentinel-\S+ in https://other.example.org/v1, the recipe"
    ):
        plan_build(recipe.model_copy(update={"fallback": ()}), other)
    facts["modalities"] = {"sentinel1": {}, "sentinel2": {"source": {"collection": "s2-c1"}}}
    with pytest.raises(MdicoError, match=r"items are of sentinel-2-l2a in .*, the recipe asks for s2-c1"):
        plan_build(parse_recipe(facts | {"fallback": []}), found.answers)


def test_signatures_do_not_get_into_the_file(recipe: Recipe) -> None:
    answers = plan_build(recipe).answers
    item = answers["sentinel1"].items[0].clone()
    item.assets["vv"].href += "?sig=secret"
    item.assets["vh"].extra_fields["alternate"] = {"s3": {"href": "s3://b/x.tif?token=secret"}}
    content = pack_items({"sentinel1": replace(answers["sentinel1"], items=(item,))}, {})
    assert b"secret" not in content
    back = unpack_items(content, "x")["sentinel1"].items[0]
    assert back.assets["vv"].href == item.assets["vv"].href.split("?")[0]


def test_saved_items_of_a_remote_catalog_cannot_make_us_read_local_files(facts: dict[str, Any]) -> None:
    answers = plan_build(parse_recipe(facts)).answers
    remote = {name: replace(answer, catalog="https://example.org/stac") for name, answer in answers.items()}
    with pytest.raises(MdicoError, match="may not ask for"):
        plan_build(parse_recipe(facts), remote)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no parquet", r"x.parquet: cannot be read \(.*Give the items.parquet that a build wrote"),
        (None, "No such file"),
    ],
)
def test_what_is_no_items_file(recipe: Recipe, tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MdicoError, match=sentence):
        mdico.plan(recipe, path)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(MdicoError, match="has no column mdico:catalog, mdico:item"):
        mdico.plan(recipe, tmp_path / "other.parquet")
    with pytest.raises(MdicoError, match="no cube that keeps its items"):
        mdico.plan(recipe, tmp_path)


def test_the_commands(facts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "toy.yml"
    path.write_text(json.dumps(facts))
    saved = Path(facts["output"]) / "items.parquet"

    def mdico_(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, [str(word) for word in words])
        return done.exit_code, done.stdout

    assert mdico_("--quiet", "build", path)[0] == 0
    code, text = mdico_("plan", path, "--items", saved, "--json")
    assert (code, json.loads(text)["modalities"]["sentinel2"]["scenes"]) == (0, 9)
    code, text = mdico_("plan", path, "--refresh")
    assert (code, "since the last build: 0 changes" in text) == (0, True)
    assert json.loads(mdico_("plan", path, "--refresh", "--json")[1])["changes"] == []
    assert mdico_("--quiet", "build", path, "--refresh")[0] == 0
    assert mdico_("build", path, "--resume", "--items", saved, "--refresh")[0] == 2


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real items are not at {REAL}")
@pytest.mark.filterwarnings("ignore:Could not parse bucket:UserWarning")  # pystac, when it migrates an item
def test_every_real_item_comes_back_to_the_last_digit() -> None:
    answers: dict[str, Answer] = {}
    for path in sorted(REAL.glob("*/*/*.json")):
        facts = json.loads(path.read_text())
        if facts["type"] == "Feature":
            name = path.parent.relative_to(REAL).as_posix()
            before = answers.get(name, Answer(f"https://{name}", name, ()))
            answers[name] = replace(before, items=(*before.items, pystac.Item.from_dict(facts)))
    content = pack_items(answers, {})
    assert pack_items(unpack_items(content, "x"), {}) == content
    back = unpack_items(content, "x")
    assert compare_items(answers, back) == compare_items(back, answers) == []
    assert list(back) == list(answers)
    for name, answer in answers.items():
        assert [plain_item(item) for item in back[name].items] == [plain_item(item) for item in answer.items]
    assert len(pq.read_table(pa.BufferReader(content), columns=["id"])) == sum(len(a.items) for a in answers.values())
