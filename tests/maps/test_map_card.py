"""Maps that a card computes: the processor's, in every form and for every kind of bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
import xarray as xr

from mdico_cube.colearn.bundle import load_bundle
from mdico_cube.colearn.encoders.registry import ENCODERS
from mdico_cube.colearn.fast import PlainForm, fast_form
from mdico_cube.colearn.tasks import Scale
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.write import open_map, write_map
from mdico_cube.spec import LabelClass

EXTRAS = ("probabilities", "entropy", "observations", "applicability")


@pytest.mark.parametrize("precision", ["32-true", "bf16", "fp16"])
@pytest.mark.parametrize("outputs", [(), ("applicability", "probabilities")])
def test_a_map_from_the_card_is_the_processors_map(run, card, precision, outputs):
    far = open_map(
        write_map(run.cube, run.bundle(), run.out / "a.zarr", device="cuda", precision=precision, outputs=outputs)
    )
    near = open_map(write_map(run.cube, run.bundle(), run.out / "b.zarr", device="cpu", outputs=outputs))
    assert float((far["class"] == near["class"]).mean()) > (0.999 if precision == "32-true" else 0.97)
    away = np.abs(far["confidence"].values.astype(int) - near["confidence"].values.astype(int))
    assert away.max() <= (1 if precision == "32-true" else 10)
    assert far.attrs["device"] == "cuda"


@pytest.mark.parametrize("name", ENCODERS)
def test_maps_of_every_encoder_on_a_card(run, card, name):
    if name in ("gru", "lstm") and not torch.backends.cuda.is_built():
        pytest.skip("a card computes these cells by operators that no processor has")
    run.make_bundles(run.out / name, "mdico", 0, {"name": name, "layers": 1, "heads": 2, "hidden": 8})
    check_alike(*both(run, run.out / name / "sentinel2", window=64, outputs=EXTRAS))


def test_the_forms_on_the_card_give_the_plain_models_logits(run, card):
    model = load_bundle(run.bundle()).model
    values, valid = torch.randn(4, 4, 100) * 0.05 + 0.2, torch.rand(4, 100) > 0.3
    with torch.inference_mode():
        found = fast_form(model, device=card)(values.to(card), valid.to(card)).cpu()
        expected = PlainForm(model)(values, valid)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def both(run, bundle, **options) -> list[xr.Dataset]:
    """The map as the card and as the processor makes it."""
    return [
        open_map(write_map(run.cube, bundle, run.out / f"{d}.zarr", device=d, **options)).load()
        for d in ("cuda", "cpu")
    ]


def check_alike(far: xr.Dataset, near: xr.Dataset) -> None:
    """Every layer but for a pixel in a thousand, and no layer empty."""
    assert set(far) == set(near)
    for name, layer in near.items():
        assert float((far[name] == layer).mean()) > 0.999 or np.allclose(far[name], layer, 1e-4, equal_nan=True), name
        assert layer.dtype == far[name].dtype
        assert float((layer != NODATA).mean()) > 0.5, name


def test_several_sensors_on_a_card(run, card):
    options = {"outputs": EXTRAS, "abstain": 0.5, "pixels": 256}
    check_alike(*both(run, [run.bundle("sentinel1"), run.bundle("sentinel2")], **options))


@pytest.mark.parametrize("precision", ["32-true", "bf16"])
def test_a_fused_bundle_on_a_card(run, card, precision):
    maps = both(run, run.bundle("fused"), outputs=("probabilities", "entropy", "observations"))
    check_alike(*maps)
    assert (maps[0]["sensors"] if "sensors" in maps[0] else maps[0]["sensor"]).max() > 0


def test_labels_side_by_side_on_a_card(run, card):
    shutil.rmtree(run.out / "bundles")
    run.make_bundles(run.out / "bundles" / "mdico" / "seed-0", "mdico", 0, task={"kind": "multilabel", "share": 0.2})
    check_alike(*both(run, run.bundle(), outputs=EXTRAS))


@pytest.mark.parametrize("step", [None, 0.1])
def test_a_value_on_a_card(run, card, step):
    shutil.rmtree(run.out / "bundles")
    facts = {"task": {"kind": "regression"}, "classes": (LabelClass("biomass", 0, "#336633"),)}
    run.make_bundles(run.out / "bundles" / "mdico" / "seed-0", "mdico", 0, scale=Scale(30.0, 8.0), **facts)
    check_alike(*both(run, run.bundle(), outputs=("observations", "applicability"), step=step))


def test_two_cards_share_a_map(run, card, monkeypatch):
    """One Dask process for each: the same map as one card alone makes."""
    alone = open_map(write_map(run.cube, run.bundle(), run.out / "alone.zarr", device="cuda:0", pixels=64)).load()
    file = Path(__file__).parents[1] / "card.py"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("PYTHONPATH", str(file.parent))
    preload = [] if torch.backends.cuda.is_built() else [str(file)]
    if not preload and torch.cuda.device_count() < 2:
        pytest.skip("two cards are needed, or none")
    with dask.config.set({"distributed.worker.preload": preload}):
        shared = open_map(write_map(run.cube, run.bundle(), run.out / "shared.zarr", device="cuda")).load()
    xr.testing.assert_equal(shared, alone)
