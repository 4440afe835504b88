"""From catalog to map and report on a toy catalog, through the command line as a user calls it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import torch
import xarray as xr
import yaml
import zarr
from toy_weather import RULES, hourly_weather, save_weather
from toy_world import toy_counts

import mdico_cube as mdico
from mdico_cube import cli
from mdico_cube.patches.sources import gather


class Door:
    """Calls `mdico` in this process; keeps the exit status and what was printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["mdico", *map(str, words)])
        self.capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = self.capfd.readouterr()
        return code, out, err


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Door:
    return Door(monkeypatch, capfd)


def written(path: Path, facts: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(facts))
    return path


@pytest.fixture
def recipe_file(recipe_facts: dict[str, Any], tmp_path: Path) -> Path:
    return written(tmp_path / "recipe.yml", recipe_facts)


def test_the_whole_journey(door: Door, recipe_file: Path, tmp_path: Path) -> None:
    code, out, err = door("--quiet", "run", recipe_file)
    assert code == 0, err
    folder = tmp_path / "out"
    assert "report.html" in out
    assert "macro F1" in out
    assert (folder / "report.html").stat().st_size > 50_000
    scores = json.loads((folder / "scores.json").read_text())
    assert len(scores["maps"]) == 4
    for method in ("independent", "mdico"):
        for modality in ("sentinel1", "sentinel2"):
            with rasterio.open(folder / "maps" / f"{method}-{modality}-seed0.tif") as image:
                assert image.crs.to_epsg() == 32631
                assert image.shape == (64, 96)
                assert set(np.unique(image.read(1))) <= {1, 2}
    assert set(json.loads((folder / "timings.json").read_text())) >= {"build", "sample", "train", "predict"}

    code, _, err = door("run", recipe_file)
    assert code == 2
    assert "exists already" in err
    before = (folder / "maps/mdico-sentinel1-seed0.tif").read_bytes()
    code, _, err = door("run", recipe_file, "--resume")
    assert code == 0, err
    assert (folder / "maps/mdico-sentinel1-seed0.tif").read_bytes() == before
    skipped = [line.partition(":")[0] for line in err.splitlines() if line.endswith("skipped")]
    assert skipped == ["build", "sample", *["train"] * 2, *["predict"] * 4, "evaluate", "report"], err


def test_a_fusion_method_is_trained_and_not_mapped(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    recipe_facts["colearn"] |= {
        "methods": ["fusion-input", "comiss"],
        "encoder": {"name": "gru", "width": 8, "hidden": 8},
    }
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    mdico.sample(recipe)
    folders = mdico.train(recipe)
    assert [folder.parts[-3:] for folder in folders] == [("comiss", "seed-0", m) for m in recipe.colearn.modalities]
    assert (tmp_path / "out" / "models" / "fusion-input" / "seed-0" / "best.ckpt").is_file()
    assert mdico.train(recipe, resume=True) == folders
    assert [path.name for path in mdico.predict(recipe)]
    only = recipe_facts | {"maps": {"methods": ["fusion-input"]}}
    with pytest.raises(mdico.MdicoError, match=r"maps.methods: fusion-input cannot map with one sensor"):
        mdico.plan(mdico.parse_recipe(only))
    recipe_facts["colearn"]["methods"] = ["fusion-input"]
    with pytest.raises(mdico.MdicoError, match=r"Add one that can"):
        mdico.plan(mdico.parse_recipe(recipe_facts))


def test_an_unknown_encoder_is_refused_before_anything_is_read(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["colearn"]["encoder"] = {"name": "tempcn"}
    with pytest.raises(mdico.MdicoError, match="unknown encoder 'tempcn', did you mean 'tempcnn'"):
        mdico.plan(mdico.parse_recipe(recipe_facts))


def test_resume_does_again_what_has_changed(recipe_facts: dict[str, Any]) -> None:
    """New samples make bundles and maps stale; what has not changed is left alone."""
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    mdico.run(mdico.parse_recipe(recipe_facts))
    recipe_facts["samples"]["per_class"] = 20
    recipe = mdico.parse_recipe(recipe_facts)

    def made_from() -> tuple[str, str]:
        scores = json.loads((recipe.output / "scores.json").read_text())["made_from"]
        (line,) = (row for row in (recipe.output / "report.html").read_text().splitlines() if "made-from" in row)
        return scores, line

    old = made_from()
    mdico.run(recipe, resume=True)
    new = made_from()
    assert not set(old) & set(new), "scores and report are those of the new maps"
    bundle = mdico.load_bundle(recipe.output / "bundles/independent/seed-0/sentinel1")
    assert bundle.config.training.samples == 40
    assert mdico.open_samples(recipe.output / "samples.zarr").class_counts(1) == (20, 20)
    recipe_facts["colearn"] |= {"seeds": [0, 1]}
    weights = recipe.output / "bundles/independent/seed-0/sentinel1/weights.safetensors"
    stamp = weights.stat().st_mtime_ns
    mdico.run(mdico.parse_recipe(recipe_facts), resume=True)
    assert weights.stat().st_mtime_ns == stamp, "another seed does not train the first one again"
    assert (recipe.output / "bundles/independent/seed-1/sentinel2").exists()
    assert made_from()[0] == new[0], "the maps of the first seed are the same"


def test_the_same_seed_gives_the_same_maps(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    maps = []
    for name in ("first", "second"):
        recipe = mdico.parse_recipe({**recipe_facts, "output": str(tmp_path / name)})
        mdico.build(recipe)
        mdico.sample(recipe)
        mdico.train(recipe)
        (path, *_) = mdico.predict(recipe)
        maps.append(rasterio.open(path.with_suffix(".tif")).read())
    assert (maps[0] == maps[1]).all()


def test_ten_lines_of_python(recipe_facts: dict[str, Any]) -> None:
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.plan(recipe)
    mdico.build(recipe)
    cube = mdico.open_cube(recipe.output / "cube.zarr")
    mdico.sample(recipe)
    bundles = mdico.train(recipe)
    lazy = mdico.predict_map(recipe.output / "cube.zarr", bundles[0])
    mdico.predict(recipe)
    scores = mdico.evaluate(recipe)
    assert lazy["class"].sizes == {"y": cube.sizes["y"], "x": cube.sizes["x"]}
    assert mdico.report(recipe).exists()
    assert scores.to_dict()["maps"]


def test_the_paper_protocol_is_marked(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    recipe_facts["colearn"] |= {"protocol": "paper", "methods": ["independent"]}
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    store = mdico.open_samples(mdico.sample(recipe))
    bundle = mdico.load_bundle(mdico.train(recipe)[0])
    assert bundle.config.colearn.protocol == "paper"
    assert bundle.config.training.samples == len(store.where(1, 2)), "the validation blocks train as well"
    mdico.predict(recipe)
    assert "paper" in json.dumps(mdico.evaluate(recipe).to_dict())


@pytest.mark.parametrize(("protocol", "learn", "stop"), [("honest", (1,), (2,)), ("paper", (1, 2), (3,))])
def test_training_sees_only_the_folds_of_its_protocol(
    recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, protocol: str, learn: Any, stop: Any
) -> None:
    """Under the honest protocol neither training nor early stopping ever sees a scored block."""
    recipe_facts["colearn"]["protocol"] = protocol
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    store = mdico.open_samples(mdico.sample(recipe))
    seen: list[Any] = []

    def spy(*words: Any, **_: Any) -> None:
        seen.extend(words[4:6])
        raise KeyboardInterrupt

    monkeypatch.setattr("mdico_cube.journey.training.fit", spy)
    with pytest.raises(KeyboardInterrupt):
        mdico.train(recipe)
    for loader, folds in zip(seen, (learn, stop), strict=True):
        stored = gather(loader.dataset.source, np.arange(len(loader.dataset)))
        rows = store.where(*folds)
        for name, values in stored.items():
            np.testing.assert_array_equal(values, np.asarray(store.array(name)[:])[rows])
        np.testing.assert_array_equal(loader.dataset.source.target, np.asarray(store.array("target")[:])[rows])


def test_training_straight_from_the_cube(recipe_facts: dict[str, Any]) -> None:
    """Neither where the pixels are read nor how many read them changes the model where all fit one buffer."""
    recipe_facts["colearn"] |= {"methods": ["independent"], "augment": {"drop_steps": 0.2}}
    recipe_facts["maps"] = {"precision": "bf16", "modalities": ["sentinel2"]}
    recipe_facts["loader"] = {"source": "cube", "workers": 2, "backend": "tensorstore"}
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    store = mdico.open_samples(mdico.sample(recipe))
    assert not store.pixels
    direct = [mdico.load_bundle(folder) for folder in mdico.train(recipe)]
    mdico.predict(recipe)
    recipe_facts["loader"] = {"source": "cube"}
    again = [mdico.load_bundle(folder) for folder in mdico.train(mdico.parse_recipe(recipe_facts), overwrite=True)]
    for one, two in zip(direct, again, strict=True):
        for weights, others in zip(one.model.parameters(), two.model.parameters(), strict=True):
            assert torch.equal(weights, others)
    recipe_facts["loader"] = {}
    with pytest.raises(mdico.MdicoError, match=r"loader\.source: cube"):
        mdico.train(mdico.parse_recipe(recipe_facts), overwrite=True)


def test_scores_need_samples_of_this_cube_and_labels(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.run(recipe)
    recipe_facts["labels"]["classes"].reverse()
    changed = mdico.parse_recipe(recipe_facts)
    mdico.build(changed, resume=True)
    for stage in (mdico.train, mdico.evaluate):
        with pytest.raises(mdico.MdicoError, match="drawn from another cube, other labels"):
            stage(changed, overwrite=True)


def test_scores_are_of_the_recipes_maps_only(recipe_facts: dict[str, Any]) -> None:
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.run(recipe)
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    scores = mdico.run(mdico.parse_recipe(recipe_facts), resume=True)
    assert {result.method for result in scores.maps} == {"independent"}


def test_what_one_map_cannot_serve_is_refused_before_the_first(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    recipe = mdico.parse_recipe(recipe_facts)
    for stage in (mdico.build, mdico.sample, mdico.train):
        stage(recipe)
    with pytest.raises(mdico.MdicoError, match="fuses sensors"):
        mdico.predict(recipe, modalities=["sentinel1", "fused"], outputs=["applicability"])
    assert not (recipe.output / "maps").exists()


def test_polygons_of_an_earlier_map_do_not_stand_beside_a_new_one(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    recipe = mdico.parse_recipe(recipe_facts)
    for stage in (mdico.build, mdico.sample, mdico.train):
        stage(recipe)
    (target,) = mdico.predict(recipe, modalities=["sentinel2"], polygons="geojson")
    vectors, item = target.with_suffix(".geojson"), target.with_suffix(".json")
    mdico.predict(recipe, modalities=["sentinel2"], resume=True)
    assert vectors.exists(), "the map is the same"
    assert "geojson" in json.loads(item.read_text())["assets"]
    mdico.predict(recipe, modalities=["sentinel2"], overwrite=True)
    assert not vectors.exists()
    assert "geojson" not in json.loads(item.read_text())["assets"]


def test_scenes_are_lazy_and_in_counts(recipe_facts: dict[str, Any]) -> None:
    scenes = mdico.scenes(mdico.parse_recipe(recipe_facts), "sentinel2")
    assert scenes["item"].values.tolist()[:2] == ["S2_20210105", "S2_20210115"]
    assert set(scenes.data_vars) == {"B04", "B08", "SCL"}
    assert scenes["B08"].chunks is not None, "nothing is read yet"
    assert scenes["B08"].isel(time=8, y=3, x=4).compute().item() == toy_counts(3, 25, "B08")[3, 4] + 1000
    with pytest.raises(mdico.MdicoError, match="has no modality 'landsat'"):
        mdico.scenes(mdico.parse_recipe(recipe_facts), "landsat")


def test_a_region_without_labels_is_mapped_with_bundles_of_another(
    door: Door, recipe_facts: dict[str, Any], tmp_path: Path
) -> None:
    recipe_facts["colearn"] |= {"methods": ["fullco"]}
    recipe = mdico.parse_recipe(recipe_facts)
    for stage in (mdico.build, mdico.sample, mdico.train):
        stage(recipe)
    mdico.predict(recipe, modalities=["sentinel2", "auto", "fused"])
    facts = {key: value for key, value in recipe_facts.items() if key not in ("labels", "colearn")}
    path = written(tmp_path / "other.yml", {**facts, "name": "other", "output": "other"})
    assert door("build", path)[0] == 0
    code, _, err = door("predict", path)
    assert code == 2
    assert "`--bundle FOLDER`, or maps.bundles" in err
    bundles = [recipe.output / "bundles" / "fullco" / "seed-0" / name for name in ("sentinel1", "sentinel2", "fused")]
    given = [part for folder in bundles for part in ("--bundle", folder)]
    asked = [part for name in ("sentinel2", "auto", "fused") for part in ("--modality", name)]
    code, _, err = door("predict", path, *given, *asked)
    assert code == 0, err
    for name in ("sentinel2", "auto", "fused"):
        images = [folder / "maps" / f"fullco-{name}-seed0.tif" for folder in (recipe.output, tmp_path / "other")]
        own, other = (rasterio.open(image).read() for image in images)
        np.testing.assert_array_equal(own, other)
    assert len(list((tmp_path / "other" / "maps").glob("*.zarr"))) == 3
    assert pystac.Collection.from_file(str(tmp_path / "other" / "maps" / "collection.json")).title == "other: maps"
    code, _, err = door("predict", path, "--bundle", bundles[0], "--modality", "sentinel2", "--resume")
    assert code == 2
    assert "maps.bundles: none maps with sentinel2" in err
    code, _, err = door("predict", path, "--bundle", bundles[0], "--modality", "auto", "--resume")
    assert code == 2
    assert "auto chooses among two or more" in err
    twin = tmp_path / "twin"
    shutil.copytree(bundles[0], twin)
    code, _, err = door("predict", path, "--bundle", bundles[0], "--bundle", twin, "--resume")
    assert code == 2
    assert "both give the map fullco-sentinel1-seed0" in err


BAD = [
    ({"colour": 3}, "unknown key 'colour'"),
    ({"area": {"bbox": [10, 40, 10.1, 40.1]}}, "touches the area"),
    ({"period": {"start": "2019-01-01", "end": "2019-02-01"}}, "no item"),
    ({"modalities": {"sentinel1": {}, "sentinel2": {"bands": ["B04", "B11"]}}}, "has no asset B11"),
    ({"href": "labels.tif"}, "catalog"),
    ({"colearn": {"modalities": ["sentinel2"]}}, "co-learning needs at least two"),
    ({"colearn": {"modalities": ["sentinel1", "sentinel2"], "methods": ["mdicoo"]}}, "mdicoo"),
    ({"labels": {"path": "nowhere.tif", "classes": [{"name": "a", "source": 1}]}}, "no such file"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    door: Door, recipe_facts: dict[str, Any], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "labels.tif").write_bytes(b"II*\0not json")
    path = written(tmp_path / "recipe.yml", {**recipe_facts, **change})
    code, out, err = door("run", path)
    assert code == 2
    assert sentence in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_a_cube_needs_neither_labels_nor_two_sensors(door: Door, recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    facts = {key: value for key, value in recipe_facts.items() if key not in ("labels", "colearn")}
    path = written(
        tmp_path / "recipe.yml", {**facts, "modalities": {"sentinel2": recipe_facts["modalities"]["sentinel2"]}}
    )
    for stages in ("run", "folds"):
        code, _, err = door(stages, path)
        assert code == 2
        assert "has no `labels` section. Add it, or build the cube alone: `mdico build`." in err
    assert not (tmp_path / "out").exists(), "told before anything is read"
    code, out, _ = door("build", path)
    assert code == 0
    assert "cube.zarr" in out
    reader = mdico.open_reader(tmp_path / "out" / "cube.zarr")
    assert tuple(reader.modalities) == ("sentinel2",)
    assert not reader.has_labels
    code, _, err = door("sample", path)
    assert code == 2
    assert "has no `colearn` section" in err
    code, _, _ = door("build", written(tmp_path / "recipe.yml", recipe_facts), "--update")
    assert code == 0
    assert mdico.open_reader(tmp_path / "out" / "cube.zarr").has_labels, "labels that come later are put on the cube"


def test_a_single_class_is_refused_before_any_pixel_is_read(
    door: Door, recipe_facts: dict[str, Any], tmp_path: Path
) -> None:
    recipe_facts["labels"]["classes"] = [{"name": "odd", "source": 1}, {"name": "never", "source": 9}]
    code, _, err = door("build", written(tmp_path / "recipe.yml", recipe_facts))
    assert code == 2
    assert "only one class (odd)" in err
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_other_bands_is_refused(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    mdico.sample(recipe)
    (_, bundle, *_) = mdico.train(recipe)
    recipe_facts["modalities"]["sentinel2"]["bands"] = ["B08", "B04"]
    other = mdico.parse_recipe({**recipe_facts, "output": str(tmp_path / "other")})
    cube = mdico.build(other)
    with pytest.raises(mdico.MdicoError, match="B0"):
        mdico.predict_map(cube, bundle)


def test_stages_in_the_wrong_order_say_what_to_run(door: Door, recipe_file: Path) -> None:
    for stage, sentence in (
        ("sample", "mdico build"),
        ("train", "mdico sample"),
        ("predict", "mdico train"),
        ("evaluate", "mdico predict"),
        ("report", "mdico evaluate"),
    ):
        code, _, err = door(stage, recipe_file)
        assert code == 2, stage
        assert sentence in err, stage


def test_the_plan_reads_no_pixel(door: Door, recipe_file: Path, toy_catalog: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(toy_catalog.parent, folder)
    for path in folder.rglob("*.tif"):
        path.unlink()
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(str(toy_catalog.parent), str(folder)))
    facts = yaml.safe_load(recipe_file.read_text())
    recipe = written(tmp_path / "plan.yml", {**facts, "href": str(folder / "catalog.json")})
    code, out, _ = door("plan", recipe, "--json")
    assert code == 0
    assert json.loads(out)["modalities"]["sentinel1"]["scenes"] == 9
    code, out, _ = door("plan", recipe)
    assert code == 0
    assert re.search(r"sentinel2\s*│ 2 ", out)
    assert not (tmp_path / "out").exists()


def test_the_schema_is_json_schema(door: Door) -> None:
    code, out, _ = door("schema")
    assert code == 0
    schema = json.loads(out)
    assert schema["properties"]["area"]
    assert schema["additionalProperties"] is False
    described = schema["$defs"]["TrainSection"]["properties"]["patience"]
    assert described["description"], "editors show what a field means"


@pytest.mark.parametrize(
    "command", ["", "demo", "run", "plan", "build", "sample", "train", "predict", "evaluate", "report", "schema"]
)
def test_every_command_has_help_with_an_example(door: Door, command: str) -> None:
    code, out, _ = door(*[command] * bool(command), "--help")
    assert code == 0
    assert not command or "Example" in out


def test_ctrl_c_says_how_to_go_on(door: Door, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mdico_cube.journey.cubes.build_cube", stop)
    code, _, err = door("build", recipe_file)
    assert code == 130
    assert "--resume" in err


def test_public_names_are_what_they_say() -> None:
    for name in mdico.__all__:
        assert getattr(mdico, name) is not None
    with pytest.raises(AttributeError):
        _ = mdico.nonsense


def test_the_demo_s_recipe_covers_the_region_that_was_asked_for(tmp_path: Path) -> None:
    region = mdico.DemoRegion(size=48, year=2023, collections=("cop-dem-glo-30",))
    recipe = mdico.prepare_demo(tmp_path, region)
    card = json.loads((tmp_path / "region" / "region.json").read_text())
    assert list(recipe.area.bounds or ()) == card["bounds"]
    assert (recipe.period.start, recipe.period.end) == ("2023-01-01", "2023-12-31")
    whole = mdico.load_recipe(mdico.pipeline_folder() / "demo.yml")
    same = {"area": whole.area, "period": whole.period, "labelling": whole.labels, "output": whole.output}
    assert recipe.model_copy(update={**same, "href": whole.href}) == whole


def test_weather_is_a_modality_like_the_others(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    """Sampled, trained with, mapped with alone, shown; and a pixel's series is what the model gets."""
    era5 = {"bands": ["t2m", "tp"], "href": str(save_weather(tmp_path, hourly_weather()))}
    recipe_facts["modalities"]["era5"] = {**era5, "source": {"collection": "era5", "zarr": RULES}}
    recipe_facts["colearn"] |= {"modalities": ["sentinel1", "sentinel2", "era5"], "methods": ["mdico"]}
    recipe_facts["maps"] = {"outputs": ["observations"]}
    recipe = mdico.parse_recipe(recipe_facts)
    found = mdico.scenes(recipe, "era5")
    assert found["t2m"].sizes == {"valid_time": 2209, "latitude": 2, "longitude": 2}
    scores = mdico.run(recipe).to_dict()
    assert {score["modality"] for score in scores["maps"]} == {"sentinel1", "sentinel2", "era5"}
    store = mdico.open_samples(recipe.output / "samples.zarr")
    reader = mdico.open_reader(recipe.output / "cube.zarr")
    whole, observed = reader.read("era5", slice(0, 64), slice(0, 96))
    mean = store.inputs["era5"].stats.mean
    assert np.abs(np.asarray(mean) - whole.mean(axis=(0, 2, 3))).max() < 0.05
    cut = store.array("era5")[:8]
    rows, columns = (zarr.open_group(store.path)[name][:8] for name in ("row", "column"))  # type: ignore[index]
    np.testing.assert_array_equal(cut[..., 0, 0], whole[:, :, rows, columns].transpose(2, 0, 1))  # type: ignore[index]
    seen = xr.open_zarr(recipe.output / "maps" / "mdico-era5-seed0.zarr", consolidated=False)["observations"]
    assert observed.all()
    assert (seen == 3).all()
    cube = mdico.open_cube(recipe.output / "cube.zarr")
    table = cube.mdico.series(float(cube.x[30]), float(cube.y[12]))
    series = table[table.modality == "era5"].pivot(index="time", columns="band", values="value")[["t2m", "tp"]]
    np.testing.assert_allclose(series.to_numpy(), whole[:, :, 12, 30], rtol=1e-6)
    assert cube["era5"].to_dataset().mdico.units["band"].tolist() == ["t2m", "tp"]
    assert "Weather (ERA5)" in (recipe.output / "report.html").read_text(encoding="utf-8")


def test_a_training_that_was_begun_is_not_thrown_away_unasked(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["colearn"] |= {"methods": ["independent"]}
    recipe = mdico.parse_recipe(recipe_facts)
    begun = recipe.output / "models" / "independent" / "seed-0" / "last.ckpt"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"of a run that was cut off")
    with pytest.raises(mdico.MdicoError, match=r"seed-0: a training was begun here\. Use --resume to go on"):
        mdico.train(recipe)
    assert begun.read_bytes() == b"of a run that was cut off"
