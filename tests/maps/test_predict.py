from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.fast import PlainForm, fast_form
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.maps.encode import encode
from mdico_cube.maps.origin import cube_digest
from mdico_cube.maps.outputs import NODATA, Layers
from mdico_cube.maps.plan import class_values, plan_map
from mdico_cube.maps.predict import predict_block, predict_map, windows

PLAIN = Layers()
EXTRAS = Layers(probabilities=True, entropy=True, observations=True)


def whole(run, modality="sentinel2", pixels=32, form=fast_form, layers=PLAIN):
    bundle = load_bundle(run.bundle(modality))
    values, valid = run.reader.read(modality, *run.everything)
    stack = predict_block(form(bundle.model), values, valid, class_values(bundle.config.classes), pixels, layers)
    return bundle, values, valid, stack


def test_each_pixel_gets_the_best_class_and_its_probability(run):
    bundle, values, valid, (classes, confidence) = whole(run)
    assert classes.dtype == confidence.dtype == np.uint8
    for y, x in ((0, 0), (10, 12), (43, 51), (6, 29)):
        image = torch.from_numpy(values[None, :, :, y : y + 1, x : x + 1].copy())
        logits = bundle.model(image, torch.from_numpy(valid[None, :, y : y + 1, x : x + 1].copy()))[0, :, 0, 0]
        share = logits.softmax(dim=0)
        assert classes[y, x] == run.classes[int(share.argmax())].value
        assert abs(int(confidence[y, x]) - 100 * float(share.max())) <= 0.51


def test_the_map_is_not_one_class(run):
    _, _, _, (classes, confidence) = whole(run)
    assert len(np.unique(classes[classes != NODATA])) > 1
    assert np.ptp(confidence[classes != NODATA]) > 5


def test_pixels_that_were_never_observed_are_nodata_in_both(run):
    _, _, valid, (classes, confidence) = whole(run)
    never = ~valid.any(axis=0)
    assert never[5:9, 30:44].all()
    assert np.array_equal(classes == NODATA, never)
    assert np.array_equal(confidence == NODATA, never)


def test_a_block_without_any_observation_never_reaches_the_model():
    def model(images, valid):
        raise AssertionError("the model was asked")

    classes, confidence = predict_block(model, np.zeros((2, 3, 4, 5), np.float32), np.zeros((2, 4, 5), bool), (1, 2))
    assert (classes == NODATA).all()
    assert (confidence == NODATA).all()


@pytest.mark.parametrize("form", [fast_form, PlainForm, lambda model: fast_form(model, "bf16")])
@pytest.mark.parametrize("pixels", [50, 256])
def test_blockwise_equals_whole_raster(run, pixels, form):
    bundle, values, valid, stack = whole(run, pixels=pixels, form=form, layers=EXTRAS)
    model, legend = form(bundle.model), class_values(bundle.config.classes)

    @settings(max_examples=12, deadline=None)
    @given(tall=st.integers(3, 44), wide=st.integers(3, 52))
    def law(tall, wide):
        chosen = list(windows(run.shape, max(tall, wide)))[-3:]  # the last ones are cut by the edge
        for y, x in [(slice(0, tall), slice(0, wide)), *chosen]:
            part = predict_block(model, values[..., y, x], valid[:, y, x], legend, pixels, EXTRAS)
            assert np.array_equal(part, stack[:, y, x])

    law()


def test_extras_follow_from_the_logits(run):
    bundle, values, valid, stack = whole(run, layers=EXTRAS)
    classes, confidence, *shares, entropy, observations = stack
    assert np.array_equal(observations, valid.sum(axis=0))
    assert observations.min() == 0
    seen = valid.any(axis=0)
    for layer in (*shares, entropy):
        assert (layer[~seen] == NODATA).all()
        assert layer[seen].max() <= 100
    assert np.array_equal(np.max(shares, axis=0), confidence)
    for y, x in ((0, 0), (20, 33), (43, 51)):
        image = torch.from_numpy(values[None, :, :, y : y + 1, x : x + 1].copy())
        logits = bundle.model(image, torch.from_numpy(valid[None, :, y : y + 1, x : x + 1].copy()))[0, :, 0, 0]
        share = logits.softmax(dim=0).numpy()
        assert np.abs(np.array([layer[y, x] for layer in shares]) - 100 * share).max() <= 0.51
        assert abs(entropy[y, x] + 100 * (share * np.log(share)).sum() / np.log(3)) <= 0.51
    plain = whole(run)[-1]
    assert np.array_equal(plain, [classes, confidence])


def test_a_map_with_extras_says_what_each_layer_is(run):
    lazy = predict_map(run.cube, run.bundle(), pixels=32, outputs=("observations", "probabilities"))
    assert list(lazy.data_vars) == ["class", "confidence", "probabilities", "observations"]
    assert lazy["probabilities"].dims == ("label", "y", "x")
    assert lazy["label"].values.tolist() == [1, 2, 4]
    assert lazy["observations"].attrs["units"] == "1"
    _, _, _valid, stack = whole(run, layers=Layers(observations=True, probabilities=True))
    done = lazy.compute()
    assert np.array_equal(done["probabilities"], stack[2:5])
    assert np.array_equal(done["observations"], stack[5])


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 30))
def test_windows_cover_every_pixel_once(height, width, side):
    count = np.zeros((height, width), int)
    for y, x in windows((height, width), side):
        count[y, x] += 1
    assert (count == 1).all()


def test_a_model_with_another_number_of_classes_is_refused(run):
    bundle, values, valid, _ = whole(run)
    with pytest.raises(MdicoError, match="3 classes, its config names 2"):
        predict_block(fast_form(bundle.model), values, valid, (1, 2))


def test_predict_map_is_lazy_georeferenced_and_equal_to_the_whole(run):
    lazy = predict_map(run.cube, run.bundle(), pixels=32)
    assert lazy["class"].chunks == ((16, 16, 12), (16, 16, 16, 4))
    assert lazy.odc.crs.epsg == 32631
    assert lazy.odc.geobox.affine == run.reader.geobox.affine
    assert lazy["class"].attrs["flag_values"] == [1, 2, 4]
    assert lazy["class"].attrs["flag_meanings"] == "wheat maize_&_beet forest"
    _, _, _, (classes, confidence) = whole(run)
    done = lazy.compute()
    assert np.array_equal(done["class"], classes)
    assert np.array_equal(done["confidence"], confidence)


def test_the_graph_carries_paths_not_the_model(run):
    graph = predict_map(run.cube, run.bundle())["class"].data.dask
    weights = (run.bundle() / "weights.safetensors").stat().st_size
    task = pickle.dumps(plan_map(run.cube, run.bundle()))
    assert len(task) < min(1000, weights)
    assert not any(isinstance(value, torch.nn.Module) for value in graph.values())


def test_a_bundle_is_loaded_once_and_again_when_its_files_change(run, monkeypatch):
    loads = []

    def counting(path):
        loads.append(path)
        return load_bundle(path)

    monkeypatch.setattr("mdico_cube.maps.forms.load_bundle", counting)
    predict_map(run.cube, run.bundle()).compute()
    assert len(loads) == 1
    plan = plan_map(run.cube, run.bundle())
    assert len(loads) == 1
    run.make_bundles(run.bundle().parent.parent / "other", "mdico", 5)
    other = run.bundle().parent.parent / "other" / "sentinel2"
    for name in ("weights.safetensors", "applicability.safetensors", "bundle.json"):
        (run.bundle() / name).write_bytes((other / name).read_bytes())
    with pytest.raises(MdicoError, match="changed while the map was being made"):
        plan.predict(slice(0, 4), slice(0, 4))
    assert len(loads) == 2


def test_a_bundle_that_does_not_fit_is_refused_before_anything_is_built(run, monkeypatch):
    reader = run.reader
    short = {**reader.modalities, "sentinel2": reader.modalities["sentinel2"].select(("B02", "B03", "B04"))}
    monkeypatch.setattr(reader, "modalities", short)
    with pytest.raises(MdicoError, match="missing band B08"):
        predict_map(run.cube, run.bundle())
    monkeypatch.setattr(reader, "modalities", {"sentinel1": reader.modalities["sentinel1"]})
    with pytest.raises(MdicoError, match="has no sentinel2"):
        predict_map(run.cube, run.bundle())


def test_the_cube_digest_follows_what_was_written(run, tmp_path):
    run.make_cube(tmp_path / "same.zarr", seed=0)
    run.make_cube(tmp_path / "other.zarr", seed=1)
    mine = cube_digest(run.reader, "sentinel1")
    assert mine == cube_digest(open_reader(tmp_path / "same.zarr"), "sentinel1")
    assert mine != cube_digest(open_reader(tmp_path / "other.zarr"), "sentinel1")
    assert mine != cube_digest(run.reader, "sentinel2")


@pytest.mark.parametrize("classes", [2, 3, 10, 33])
def test_a_pixels_bytes_do_not_depend_on_how_many_are_encoded_with_it(classes):
    scores = 4 * torch.randn(320, classes, generator=torch.Generator().manual_seed(classes))
    values, layers = torch.arange(classes, dtype=torch.uint8), Layers(probabilities=True, entropy=True)
    whole = encode(scores, values, layers)
    for start, count in product((0, 1, 3, 40), (1, 2, 5, 17, 63, 64, 65, 200)):
        assert torch.equal(encode(scores[start : start + count], values, layers), whole[:, start : start + count])
    for number, best in enumerate(scores.t().softmax(dim=0).amax(dim=0)[:64].tolist()):  # to the last bit
        sure = Layers(abstain=best)
        assert torch.equal(encode(scores[number : number + 1], values, sure), encode(scores, values, sure)[:, [number]])
    shares = scores.double().softmax(dim=1)
    assert torch.equal(whole[0].long(), shares.argmax(dim=1))
    assert float((whole[1] - 100 * shares.amax(dim=1)).abs().max()) <= 0.501
    assert float((whole[2:-1] - 100 * shares.t()).abs().max()) <= 0.501
    assert float((whole[-1] + 100 * (shares * shares.log()).sum(dim=1) / np.log(classes)).abs().max()) <= 0.501
