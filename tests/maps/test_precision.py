"""What bf16 changes is counted on the validation windows and stands in the bundle and in the map."""

from __future__ import annotations

import numpy as np
import torch

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.fast import fast_form
from mdico_cube.maps.precision import bf16_loss, record_bf16_loss
from mdico_cube.maps.write import map_path, open_map, write_map
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.splits import VALIDATION
from mdico_cube.recipe import SampleSection

SECTION = SampleSection(patch=1, per_class=400, block=8, guard=0, validation=0.3, test=0.2, min_valid=0)


def test_the_loss_is_counted_on_every_validation_window(run):
    samples = run.out / "samples.zarr"
    extract_samples(run.cube, samples, ("sentinel1", "sentinel2"), SECTION)
    share, pixels = bf16_loss(run.bundle(), samples)
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
    share = record_bf16_loss(run.bundle(), samples)
    config = load_bundle(run.bundle()).config
    assert config.scores["bf16_changed_classes"] == share
    assert config.scores["bf16_pixels"] > 50
    assert config.digest == digest  # the bundle still makes the same maps
    target = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0), precision="bf16")
    assert open_map(target).attrs["bf16_changed_classes"] == share
    monkeypatch.setattr("mdico_cube.maps.precision.bf16_loss", None)
    assert record_bf16_loss(run.bundle(), samples) == share  # not counted again
