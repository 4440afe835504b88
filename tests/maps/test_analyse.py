"""What is said of a training: its spaces, its calibration and its classes, as figures and as a picture."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.errors import MdicoError
from mdico_cube.maps.analyse import analyse_bundles, analysis_table
from mdico_cube.maps.spaces_picture import lay_out
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import open_samples
from mdico_cube.recipe import SampleSection

NAMES = ("sentinel1", "sentinel2")


@pytest.fixture
def samples(run, tmp_path: Path) -> Path:
    section = SampleSection(block=8, guard=1, per_class=60, min_valid=0)
    return extract_samples(run.cube, tmp_path / "drawn" / "samples.zarr", NAMES, section)


def test_figures_are_those_of_the_held_out_windows(run, samples: Path, tmp_path: Path) -> None:
    results = [
        analyse_bundles({m: run.bundle(m, method) for m in NAMES}, samples, tmp_path / "a" / method, layout="pca")
        for method in ("independent", "mdico")
    ]
    store = open_samples(samples)
    test = store.where(3)
    config = load_bundle(run.bundle("sentinel1", "mdico")).config
    values, valid = config.storage.unpack(np.asarray(store.array("sentinel1").oindex[test]))
    model = load_bundle(run.bundle("sentinel1", "mdico")).model

    with torch.no_grad():
        logits = model(torch.from_numpy(values), torch.from_numpy(valid.all(axis=2)))[:, :, 0, 0]
    truth = np.asarray(store.array("target").oindex[test])[:, 0, 0]
    found = results[1].sensors["sentinel1"]
    wanted = f1_score(truth, logits.argmax(1).numpy(), labels=np.unique(truth), average="macro", zero_division=0)
    assert found.f1_macro == pytest.approx(wanted)
    assert results[1].places == len(test)
    assert list(results[1].spaces) == ["specific", "unused", "shared"]
    assert list(results[0].spaces) == ["embedding"]
    assert json.loads((tmp_path / "a" / "mdico.json").read_text())["sensors"]["sentinel1"]["f1_macro"] == found.f1_macro
    parted, whole = (Image.open(BytesIO((tmp_path / "a" / f"{m}.png").read_bytes())) for m in ("mdico", "independent"))
    assert parted.width > 900
    assert parted.height > 2 * whole.height, "a row per space"
    table = analysis_table(results)
    assert "| mdico | 0 | shared | " in table
    gain = found.f1[config.classes[0].name] - results[0].sensors["sentinel1"].f1[config.classes[0].name]
    assert f"({gain:+.3f})" in table


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_a_layout_keeps_neighbours_together(how: str) -> None:
    draw = np.random.default_rng(0)
    kind = np.arange(60) % 2
    place = lay_out((draw.normal(size=(60, 6)) + 8 * kind[:, None]).astype(np.float32), how)  # type: ignore[arg-type]
    assert place.shape == (60, 2)
    gap = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(gap, np.inf)
    assert (kind[gap.argmin(axis=1)] == kind).all()


def test_without_held_out_windows_it_says_so(run, samples: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mdico_cube.maps.analyse.TEST", 9)
    with pytest.raises(MdicoError, match="holds no held-out window"):
        analyse_bundles({m: run.bundle(m) for m in NAMES}, samples, tmp_path / "a")
