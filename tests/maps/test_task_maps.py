"""Maps of a value and of labels side by side: what each pixel holds, what stands beside it, and its scores."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import rasterio
import torch
import zarr
from rich.console import Console
from sklearn.metrics import f1_score, mean_absolute_error, r2_score

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.tasks import Scale, goal_of
from mdico_cube.cube.reader import forget_readers
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import beside_cog, write_cog
from mdico_cube.maps.evaluate import evaluate, read_scores
from mdico_cube.maps.item import write_item
from mdico_cube.maps.outputs import assembled, bits_dtype, missing
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.polygons import write_polygons
from mdico_cube.maps.predict import predict_map
from mdico_cube.maps.report import write_report
from mdico_cube.maps.tallies import labels_around
from mdico_cube.maps.write import map_path, open_map, write_map
from mdico_cube.recipe import TaskSection
from mdico_cube.recipe.load import parse_recipe
from mdico_cube.spec import LabelClass

VALUE = (LabelClass("biomass", 0, "#336633"),)
SCALE = Scale(30.0, 8.0)
NEVER = np.s_[5:9, 30:44]


@pytest.fixture
def values(run):
    """The run with bundles that give a value, and a cube that knows values."""
    shutil.rmtree(run.out / "bundles")
    for method in ("independent", "mdico"):
        facts = {"task": {"kind": "regression"}, "classes": VALUE, "scale": SCALE}
        run.make_bundles(run.out / "bundles" / method / "seed-0", method, 0, **facts)
    truth = np.random.default_rng(3).normal(30, 8, run.shape).astype(np.float32)
    truth[:3] = np.nan
    labels = zarr.open_group(run.cube, mode="r+")["labels"]
    labels.attrs["legend"] = [{"name": "biomass", "value": 0, "color": "#336633"}]
    labels.create_array("value", data=truth, chunks=(run.shard, run.shard))
    forget_readers()
    return run


@pytest.fixture
def labels(run):
    """The run with bundles of labels side by side, learned from 3 x 3 patches."""
    shutil.rmtree(run.out / "bundles")
    task = {"kind": "multilabel", "share": 0.2}
    for method in ("independent", "mdico"):
        run.make_bundles(run.out / "bundles" / method / "seed-0", method, 0, task=task)
    return run


def answers(run, modality="sentinel2"):
    """(K, h, w) of the bundle itself, and (h, w) True = observed at all."""
    images, valid = run.reader.read(modality, *run.everything)
    bundle = load_bundle(run.bundle(modality))
    return bundle.answer(torch.from_numpy(images)[None], torch.from_numpy(valid)[None])[0].numpy(), valid.any(axis=0)


def test_a_map_of_a_value_holds_what_the_bundle_answers_in_its_unit(values):
    map_ = open_map(write_map(values.cube, values.bundle(), values.out / "maps" / "v.zarr"))
    (truth,), seen = answers(values)
    found = map_["value"].values
    assert found.dtype == np.float32
    assert np.array_equal(np.isnan(found), ~seen)
    assert np.isnan(found[NEVER]).all()
    np.testing.assert_allclose(found[seen], truth[seen], atol=1e-3)
    assert found[seen].std() > 0.5
    assert map_["value"].attrs["long_name"] == "biomass"
    assert map_.attrs["task"] == "regression"
    assert "confidence" not in map_


def test_a_value_in_counts_is_the_same_to_half_a_count(values):
    map_ = open_map(write_map(values.cube, values.bundle(), values.out / "maps" / "v.zarr", step=0.5))
    (truth,), seen = answers(values)
    found = map_["value"].values
    assert found.dtype == np.int16
    assert (found[~seen] == missing("int16")).all()
    assert np.abs(found[seen] * 0.5 - truth[seen]).max() <= 0.2501
    assert map_["value"].attrs["scale_factor"] == 0.5


def test_labels_are_bits_beside_the_probability_of_each(labels):
    map_ = open_map(write_map(labels.cube, labels.bundle(), labels.out / "maps" / "l.zarr", outputs=("entropy",)))
    shares, seen = answers(labels)
    bits = map_["labels"].values
    assert (bits[~seen] == 255).all()
    clear = seen & (np.abs(shares - 0.5) > 1e-4).all(axis=0)
    expected = ((shares > 0.5) << np.arange(3)[:, None, None]).sum(axis=0)
    assert np.array_equal(bits[clear], expected[clear])
    assert len(np.unique(bits[seen])) > 2
    assert np.abs(map_["probabilities"].values[:, seen] - 100 * shares[:, seen]).max() < 0.51
    least = np.maximum(shares, 1 - shares).min(axis=0)
    assert np.abs(map_["confidence"].values[seen] - 100 * least[seen]).max() < 0.51
    entropy = -(shares * np.log2(shares) + (1 - shares) * np.log2(1 - shares)).mean(axis=0)
    assert np.abs(map_["entropy"].values[seen] - 100 * entropy[seen]).max() < 0.52
    assert map_["labels"].attrs["flag_masks"] == [1, 2, 4]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"outputs": ("entropy",)}, "entropy"),
        ({"outputs": ("probabilities",)}, "probabilities"),
        ({"abstain": 0.5}, "abstain"),
    ],
)
def test_what_a_value_has_not_is_refused_before_anything_is_written(values, options, what):
    target = values.out / "maps" / "v.zarr"
    with pytest.raises(MdicoError, match=f"gives a value, which has no probability, so that {what} cannot"):
        write_map(values.cube, values.bundle(), target, **options)
    assert not target.exists()


def test_counts_are_refused_for_classes(run):
    with pytest.raises(MdicoError, match=r"maps\.step: is for maps of a value"):
        plan_map(run.cube, run.bundle(), step=0.1)


def test_a_value_goes_with_observations_and_applicability(values):
    options = {"outputs": ("observations", "applicability")}
    map_ = open_map(write_map(values.cube, values.bundle(), values.out / "maps" / "v.zarr", **options))
    plain = open_map(write_map(values.cube, values.bundle(), values.out / "maps" / "p.zarr"))
    assert np.array_equal(map_["value"], plain["value"], equal_nan=True)
    assert map_["observations"].values[NEVER].max() == 0
    assert (map_["applicability"].values[NEVER] == 255).all()
    assert np.ptp(map_["applicability"].values[10:]) > 5


def test_each_pixel_takes_the_sensor_with_the_best_r2(values):
    bundles = [values.bundle("sentinel1"), values.bundle("sentinel2")]
    map_ = open_map(write_map(values.cube, bundles, values.out / "maps" / "auto.zarr"))
    assert map_.attrs["modalities"] == ["sentinel2", "sentinel1"]  # .7 before .5
    (by_radar,), _ = answers(values, "sentinel1")
    np.testing.assert_allclose(map_["value"].values[NEVER], by_radar[NEVER], atol=1e-3)
    assert (map_["sensor"].values[NEVER] == 2).all()


@pytest.mark.parametrize("step", [None, 0.25])
def test_the_lazy_map_is_the_written_one(values, step):
    lazy = predict_map(values.cube, values.bundle(), step=step)
    written = open_map(write_map(values.cube, values.bundle(), values.out / "maps" / "v.zarr", step=step))
    assert lazy["value"].dtype == written["value"].dtype
    assert np.array_equal(lazy["value"].values, written["value"].values, equal_nan=step is None)


def test_the_geotiff_and_the_item_say_what_the_value_is(values):
    for step, dtype in ((None, "float32"), (0.5, "int16")):
        source = map_path(values.out, "mdico", "sentinel2", 0)
        write_map(values.cube, values.bundle(), source, overwrite=True, step=step)
        target = write_cog(source, source.with_suffix(".tif"), "biomass by optics")
        with rasterio.open(target) as file:
            assert file.dtypes == (dtype,)
            assert np.isnan(file.nodata) if step is None else file.nodata == 32767
            assert file.scales == (step or 1.0,)
            assert file.descriptions == ("biomass",)
            shown = file.read(1, masked=True)
        assert shown.mask[NEVER].all()
        asset = json.loads(write_item(source, values.cube, values.bundle()).read_text())["assets"]["value"]
        assert (asset["data_type"], asset["href"]) == (dtype, f"./{target.name}")
        assert asset["nodata"] == ("nan" if step is None else 32767)
        assert asset.get("raster:scale") == step


def test_the_geotiffs_of_labels_have_bits_and_a_named_band_each(labels):
    source = map_path(labels.out, "mdico", "sentinel2", 0)
    write_map(labels.cube, labels.bundle(), source)
    target = write_cog(source, source.with_suffix(".tif"), "labels")
    with rasterio.open(target) as file, rasterio.open(beside_cog(target, "probabilities")) as shares:
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        assert shares.descriptions == tuple(item.name for item in labels.classes)
    asset = json.loads(write_item(source, labels.cube, labels.bundle()).read_text())["assets"]["labels"]
    assert [bit["name"] for bit in asset["classification:bitfields"]] == ["wheat", "maize_&_beet", "forest"]
    with pytest.raises(MdicoError, match="holds no classes"):
        write_polygons(source, source.with_suffix(".gpkg"))


@pytest.mark.parametrize("step", [None, 0.5])
def test_scores_of_a_value_equal_scikit_learn_on_the_held_out_pixels(values, step):
    for method in ("independent", "mdico"):
        path = map_path(values.out, method, "sentinel2", 0)
        write_map(values.cube, values.bundle("sentinel2", method), path, step=step)
    scores = evaluate(values.out)
    truth = values.reader.values(*values.everything)
    for item in scores.maps:
        found = open_map(map_path(values.out, item.method, "sentinel2", 0))["value"].values.astype(np.float64)
        found = found if step is None else np.where(found == 32767, np.nan, found * step)
        chosen = (values.folds == 3) & ~np.isnan(truth)
        y, p = truth[chosen].astype(np.float64), found[chosen]
        there = ~np.isnan(p)
        assert item.pixels == chosen.sum()
        assert item.unpredicted == pytest.approx((~there).mean())
        assert item.unpredicted > 0
        error = p[there] - y[there]
        expected = {
            "r2": r2_score(y[there], p[there]),
            "rmse": np.sqrt((error**2).mean()),
            "rrmse": np.sqrt((error**2).mean()) / y[there].mean(),
            "mae": mean_absolute_error(y[there], p[there]),
            "bias": error.mean(),
        }
        assert item.figures == pytest.approx(expected, rel=1e-5)
        assert sum(map(sum, item.counts)) == there.sum()
    assert read_scores(values.out) == scores
    (gain,) = scores.gains
    assert gain.figure == "R2"


def test_scores_of_labels_equal_scikit_learn_on_the_held_out_pixels(labels):
    path = map_path(labels.out, "mdico", "sentinel2", 0)
    write_map(labels.cube, labels.bundle(), path)
    scores = evaluate(labels.out)
    (item,) = scores.maps
    truth, known = labels_around(labels.reader.labels(*labels.everything), 3, 0.2, 1)
    bits = open_map(path)["labels"].values
    chosen = (labels.folds == 3) & known
    there = bits[chosen] != 255
    said = ((bits[chosen][:, None] >> np.arange(3)) & 1 == 1) & there[:, None]
    expected = f1_score(truth[chosen], said, average=None, zero_division=0.0)
    assert [one.f1 for one in item.labels] == pytest.approx(list(expected))
    assert item.figures["f1_macro"] == pytest.approx(expected.mean())
    assert item.figures["accuracy"] == pytest.approx((truth[chosen] == said).mean())
    assert item.figures["exact"] == pytest.approx(((truth[chosen] == said).all(axis=1) & there).mean())
    assert read_scores(labels.out) == scores


@pytest.mark.parametrize("kind", ["values", "labels"])
def test_the_report_shows_figures_and_pictures_of_the_task(kind, request):
    run = request.getfixturevalue(kind)
    for method in ("independent", "mdico"):
        write_map(run.cube, run.bundle("sentinel1", method), map_path(run.out, method, "sentinel1", 0))
    scores = evaluate(run.out)
    facts = {
        "name": "small",
        "output": "out",
        "area": {"bbox": [3, 50, 3.1, 50.1]},
        "period": {"start": "2021-04-01", "end": "2021-07-31"},
        "catalog": "local",
        "modalities": {"sentinel1": {}, "sentinel2": {}},
        "labels": {"path": "x.tif", "classes": [{"name": "a"}, {"name": "b"}]},
        "colearn": {"modalities": ["sentinel1", "sentinel2"]},
    }
    text = write_report(run.out, parse_recipe(facts)).read_text()
    wanted = {"values": ["labels", "maps", "scatter"], "labels": ["maps", "classes"]}[kind]
    sections = re.findall(r'<section id="([a-z]+)"', text)
    assert sections == ["scores", "sensors", "availability", *wanted, "sources", "provenance"]
    for name in scores.names.values():
        assert f'<th scope="col">{name}</th>' in text
    for row in scores.summary:
        assert str(next(iter(row.figures.values()))) in text
    assert "against independent training" in text
    assert text.count("data:image/png;base64,") == {"values": 5, "labels": 4}[kind]
    table = Console(width=120, record=True)
    table.print(scores.table())
    assert next(iter(scores.names.values())) in table.export_text()


@pytest.mark.parametrize("patch", [1, 3, 4])
def test_the_labels_of_a_pixel_are_those_a_patch_around_it_is_trained_with(patch):
    label = np.random.default_rng(patch).integers(-1, 3, (9, 11)).astype(np.int16)
    there, known = labels_around(label, 3, 0.3, patch)
    padded = np.pad(label, patch, constant_values=-1)
    for y, x in np.ndindex(9, 11):
        top, left = y + patch - patch // 2, x + patch - patch // 2
        cut = torch.from_numpy(padded[top : top + patch, left : left + patch].astype(np.int64))[None]
        goal = int(goal_of(TaskSection(kind="multilabel", share=0.3), cut, 3, Scale())[0, patch // 2, patch // 2])
        assert known[y, x] == (goal >= 0)
        if goal >= 0:
            assert sum(int(bit) << k for k, bit in enumerate(there[y, x])) == goal


def test_maps_of_two_kinds_are_not_put_into_one_table(values):
    write_map(values.cube, values.bundle(), map_path(values.out, "mdico", "sentinel2", 0))
    values.make_bundles(values.out / "others", "mdico", 0)
    write_map(values.cube, values.out / "others" / "sentinel2", map_path(values.out, "other", "sentinel2", 0))
    with pytest.raises(MdicoError, match="regression and classes"):
        evaluate(values.out)


@pytest.mark.parametrize(
    ("labels", "dtype"), [(1, "uint8"), (7, "uint8"), (8, "uint16"), (31, "uint32"), (62, "uint64")]
)
def test_all_ones_are_no_set_of_labels(labels, dtype):
    assert bits_dtype(labels) == dtype
    assert (1 << labels) - 1 < missing(dtype)


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint16", "uint32", "uint64"])
def test_bytes_that_are_all_255_are_missing(dtype):
    planes = np.full((np.dtype(dtype).itemsize, 2, 3), 255, np.uint8)
    found = assembled(planes, dtype)
    assert found.dtype == dtype
    assert np.isnan(found).all() if dtype == "float32" else (found == missing(dtype)).all()
