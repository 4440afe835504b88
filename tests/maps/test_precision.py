"""What bf16 changes is counted on the validation windows and stands in the bundle and in the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.fast import fast_form, folded
from mdico_cube.errors import MdicoError
from mdico_cube.maps import precision
from mdico_cube.maps.precision import int8_loss, low_loss, record_int8, record_low_loss
from mdico_cube.maps.write import map_path, open_map, write_map
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.splits import TRAIN, VALIDATION
from mdico_cube.recipe import SampleSection

SECTION = SampleSection(patch=1, per_class=400, block=8, guard=0, validation=0.3, test=0.2, min_valid=0)


def test_the_loss_is_counted_on_every_validation_window(run):
    samples = run.out / "samples.zarr"
    extract_samples(run.cube, samples, ("sentinel1", "sentinel2"), SECTION)
    share, pixels = low_loss(run.bundle(), samples)
    store, bundle = open_samples(samples), load_bundle(run.bundle())
    rows = store.where(VALIDATION)
    values, valid = bundle.config.spec.modality.storage.unpack(np.asarray(store.array("sentinel2").oindex[rows]))
    images, seen = torch.from_numpy(values), torch.from_numpy(valid.all(axis=2))
    kept = seen.any(dim=1)[:, 0, 0]
    assert pixels == int(kept.sum()) > 50
    with torch.inference_mode():
        exact = bundle.model(images, seen)[kept, :, 0, 0].argmax(dim=1)
        rough = fast_form(bundle.model, "bf16")(images[..., 0, 0].permute(1, 2, 0), seen[..., 0, 0].t())[kept]
    assert abs(share - float((rough.argmax(dim=1) != exact).float().mean())) < 0.02


def test_the_loss_stands_in_the_bundle_and_in_the_map(run, monkeypatch):
    samples = run.out / "samples.zarr"
    extract_samples(run.cube, samples, ("sentinel1", "sentinel2"), SECTION)
    digest = load_bundle(run.bundle()).config.digest
    share = record_low_loss(run.bundle(), samples)
    config = load_bundle(run.bundle()).config
    assert config.scores["bf16_changed_classes"] == share
    assert config.scores["bf16_pixels"] > 50
    assert config.digest == digest  # the bundle still makes the same maps
    target = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0), precision="bf16")
    assert open_map(target).attrs["bf16_changed_classes"] == share
    monkeypatch.setattr("mdico_cube.maps.precision.low_loss", None)
    assert record_low_loss(run.bundle(), samples) == share  # not counted again


def test_int8_is_calibrated_on_training_windows_and_counted_on_validation_windows(run, monkeypatch):
    samples = run.out / "samples.zarr"
    extract_samples(run.cube, samples, ("sentinel1", "sentinel2"), SECTION)
    with pytest.raises(MdicoError, match="not calibrated"):
        write_map(run.cube, run.bundle(), run.out / "early.zarr", precision="int8")
    monkeypatch.setattr(precision, "LIMIT", 0.0)
    loss = int8_loss(load_bundle(run.bundle()), samples)
    store = open_samples(samples)
    loaded = load_bundle(run.bundle())
    shares, counts = [], []
    for fold in (TRAIN, VALIDATION):
        stored = np.asarray(store.array("sentinel2").oindex[store.where(fold)])
        values, valid = loaded.config.spec.modality.storage.unpack(stored)
        series = torch.from_numpy(values)[..., 0, 0].permute(1, 2, 0)
        seen = torch.from_numpy(valid.all(axis=2))[..., 0, 0].t()
        kept = seen.any(dim=0)
        rows = folded(loaded.model)[0].inputs.rows(series[..., kept], seen[:, kept])
        counts.append(int(kept.sum()))
        if fold == TRAIN:
            assert loss.ranges[0][0][0] == pytest.approx(float(rows.min()), rel=0.05)
            assert loss.ranges[0][0][1] == pytest.approx(float(rows.max()), rel=0.05)
        else:
            forms = (fast_form(loaded.model), fast_form(loaded.model, "int8", ranges=loss.ranges))
            exact, rough = (form(series[..., kept], seen[:, kept]).argmax(dim=1) for form in forms)
            shares.append(float((exact != rough).float().mean()))
    assert (loss.pixels, loss.counted) == tuple(counts)
    assert loss.changed == pytest.approx(shares[0])
    if loss.changed > 0:
        with pytest.raises(MdicoError, match="get another class in int8, at most"):
            record_int8(run.bundle(), samples)
        assert load_bundle(run.bundle()).config.int8 is None
    assert record_int8(run.bundle(), samples, force=True) == loss
    config = load_bundle(run.bundle()).config
    assert config.int8 == loss
    assert config.digest == loaded.config.digest  # the same maps in float32
    target = write_map(run.cube, run.bundle(), run.out / "maps" / "int8.zarr", precision="int8")
    assert open_map(target).attrs["int8_changed_classes"] == loss.changed
    plain = open_map(write_map(run.cube, run.bundle(), run.out / "maps" / "plain.zarr"))
    same = (open_map(target)["class"].values == plain["class"].values).mean()
    assert 0.9 < same <= 1
    monkeypatch.setattr("mdico_cube.maps.precision.int8_loss", None)
    assert record_int8(run.bundle(), samples) == loss  # not measured again
