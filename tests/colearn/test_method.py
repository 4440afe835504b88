"""The contract every method keeps, over the whole registry."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section, make_spec

from mdico_cube.batch import Batch
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import METHODS, get_method
from mdico_cube.errors import MdicoError

every_method = pytest.mark.parametrize("name", METHODS)
every_shape = pytest.mark.parametrize(("three", "size"), [(False, 1), (True, 1), (True, 3)])


def make_model(name: str, three: bool = False, seed: int = 0) -> CoLearner:
    torch.manual_seed(seed)
    weights = balanced_weights([30, 20, 10], [c.name for c in LEGEND])
    return METHODS[name](make_inputs(three), len(LEGEND), make_section(), weights)


@every_method
@every_shape
def test_forward_gives_one_map_of_logits_per_modality(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three), make_batch(make_inputs(three), 5, size)
    logits = model(batch.images, batch.valid)
    assert list(logits) == list(make_inputs(three)) == list(model.modalities)
    assert all(value.shape == (5, len(LEGEND), size, size) for value in logits.values())


@every_method
@every_shape
def test_single_is_forward_of_that_modality(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three).eval(), make_batch(make_inputs(three), 5, size)
    logits = model(batch.images, batch.valid)
    for m in model.modalities:
        assert torch.equal(model.single(m)(batch.images[m], batch.valid[m]), logits[m])


@every_method
def test_single_shares_weights_and_build_single_has_their_names(name: str) -> None:
    model, section = make_model(name), make_section()
    names = {id(p) for p in model.parameters()}
    for m, spec in make_inputs().items():
        single = model.single(m)
        assert all(id(p) in names for p in single.parameters())
        fresh = METHODS[name].build_single(spec, len(LEGEND), section)
        assert {k: v.shape for k, v in fresh.state_dict().items()} == {
            k: v.shape for k, v in single.state_dict().items()
        }


@every_method
@every_shape
def test_losses_are_finite_and_reach_every_parameter(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three), make_batch(make_inputs(three), 12, size)
    losses = model.losses(batch)
    assert "main" in losses
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if not key.endswith("bias"):  # a bias before batch normalisation has no influence
            assert parameter.grad.any(), key


@every_method
def test_unlabelled_pixels_take_part_in_no_supervised_loss(name: str) -> None:
    model, batch = make_model(name).eval(), make_batch(make_inputs(), 6, 2)
    assert batch.target is not None
    losses = [model.losses(replace(batch, target=batch.target.masked_fill(batch.target == k, -1))) for k in (-2, 0)]
    assert losses[0]["main"] != losses[1]["main"]
    nothing = model.losses(replace(batch, target=torch.full_like(batch.target, -1)))
    assert nothing["main"].item() == 0.0
    assert all(value.item() == 0.0 for key, value in nothing.items() if key in ("auxiliary", "contrastive"))


@every_method
def test_a_modality_that_was_never_observed_leaves_its_sample_out(name: str) -> None:
    """Losses of a batch do not change when samples without any radar step are added with random radar values."""
    model, batch = make_model(name).eval(), make_batch(make_inputs(), 8, gaps=0.0)
    blind = dict(batch.valid, radar=batch.valid["radar"].clone())
    blind["radar"][4:] = False
    noise = dict(batch.images, radar=batch.images["radar"].clone())
    noise["radar"][4:] = torch.nan
    kept = model.losses(replace(batch, valid=blind))
    assert {k: v.item() for k, v in kept.items()} == {
        k: v.item() for k, v in model.losses(replace(batch, images=noise, valid=blind)).items()
    }
    first = Batch({m: i[:4] for m, i in batch.images.items()}, {m: v[:4] for m, v in batch.valid.items()})
    logits = model(batch.images, blind)
    assert batch.target is not None
    radar = torch.nn.functional.cross_entropy(
        model(first.images, first.valid)["radar"], batch.target[:4], model.class_weights
    )
    optical = torch.nn.functional.cross_entropy(logits["optical"], batch.target, model.class_weights)
    assert kept["main"].item() == pytest.approx((radar + optical).item() / 2, rel=1e-5)


@every_method
def test_overfits_one_batch(name: str) -> None:
    model, batch = make_model(name, three=True), make_batch(make_inputs(three=True), 24, noise=2.0)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        adam.zero_grad()
        torch.stack(list(model.losses(batch).values())).sum().backward()
        adam.step()
    for m, logits in model.eval()(batch.images, batch.valid).items():
        if m != "terrain":  # one noisy step of three bands need not separate
            assert (logits.argmax(1) == batch.target).all(), m


@every_method
def test_needs_two_modalities_and_two_classes(name: str) -> None:
    with pytest.raises(MdicoError, match="at least two modalities, came radar"):
        METHODS[name]({"radar": make_spec("radar", 2)}, 3, make_section(), None)
    with pytest.raises(MdicoError, match="at least two classes, came 1"):
        METHODS[name](make_inputs(), 1, make_section(), None)


@every_method
def test_unknown_modality_and_missing_labels_are_named(name: str) -> None:
    model, batch = make_model(name), make_batch(make_inputs(), 4)
    with pytest.raises(MdicoError, match=r"no model of 'lidar': .* radar, optical"):
        model.single("lidar")
    with pytest.raises(MdicoError, match="no labels"):
        model.losses(replace(batch, target=None))


def test_unknown_method_gives_the_closest_name() -> None:
    with pytest.raises(MdicoError, match=r"unknown method 'MDiCo-', did you mean 'mdico'\?"):
        get_method("MDiCo-")
    with pytest.raises(MdicoError, match="use one of: independent, mdico"):
        get_method("xyz")
