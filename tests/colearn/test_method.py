"""The contract every method keeps, over the whole registry."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section, make_spec

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.registry import ENCODERS
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import METHODS, get_method
from mdico_cube.errors import MdicoError

every_method = pytest.mark.parametrize("name", METHODS)
mapping_alone = pytest.mark.parametrize("name", [n for n, method in METHODS.items() if method.maps_alone])
any_subset = pytest.mark.parametrize("name", [n for n, method in METHODS.items() if method.any_subset])
needs_all = pytest.mark.parametrize("name", [n for n, method in METHODS.items() if not method.any_subset])
every_shape = pytest.mark.parametrize(("three", "size"), [(False, 1), (True, 1), (True, 3)])


SUPERVISED = ("auxiliary", "contrastive", "missing", "single")


def make_model(name: str, three: bool = False, seed: int = 0, **changes: object) -> CoLearner:
    torch.manual_seed(seed)
    weights = balanced_weights([30, 20, 10], [c.name for c in LEGEND])
    return METHODS[name](make_inputs(three), len(LEGEND), make_section(**changes), weights)


@every_method
@every_shape
def test_forward_gives_one_map_of_logits_per_output(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three), make_batch(make_inputs(three), 5, size)
    logits = model(batch.images, batch.valid)
    assert list(make_inputs(three)) == list(model.modalities)
    assert list(logits) == list(model.outputs) == (list(model.modalities) if model.maps_alone else ["fused"])
    assert all(value.shape == (5, len(LEGEND), size, size) for value in logits.values())
    _, learned = model.learn(batch)
    assert {k: v.shape for k, v in learned.items()} == {k: v.shape for k, v in logits.items()}


@every_method
@every_shape
def test_learning_gives_the_logits_of_forward(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three).eval(), make_batch(make_inputs(three), 5, size)
    logits = model(batch.images, batch.valid)
    for output, learned in model.learn(batch)[1].items():
        torch.testing.assert_close(learned, logits[output])


@any_subset
@every_shape
def test_one_modality_fused_is_that_modality_alone(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three).eval(), make_batch(make_inputs(three), 5, size)
    for m in model.modalities:
        alone = model.single(m)(batch.images[m], batch.valid[m])
        torch.testing.assert_close(model.fused({m: batch.images[m]}, {m: batch.valid[m]}), alone)


@any_subset
def test_never_observed_is_absent_per_sample(name: str) -> None:
    """Samples without any radar step are predicted as if radar had not been handed over; the others with it."""
    model, batch = make_model(name, three=True).eval(), make_batch(make_inputs(three=True), 6, size=2, gaps=0.0)
    valid = dict(batch.valid, radar=batch.valid["radar"].clone())
    valid["radar"][3:] = False
    images = dict(batch.images, radar=batch.images["radar"].clone())
    images["radar"][3:] = torch.nan
    got = model.fused(images, valid)
    others = [m for m in model.modalities if m != "radar"]
    without = model.fused({m: images[m] for m in others}, valid)
    torch.testing.assert_close(got[3:], without[3:])
    torch.testing.assert_close(got[:3], model.fused(batch.images, batch.valid)[:3])
    assert not torch.allclose(got[:3], without[:3])


@every_method
def test_a_pixel_without_any_observation_gets_a_prediction(name: str) -> None:
    model, batch = make_model(name).eval(), make_batch(make_inputs(), 3)
    nothing = {m: torch.zeros_like(mask) for m, mask in batch.valid.items()}
    assert model.fused(batch.images, nothing).isfinite().all()


@needs_all
def test_what_needs_every_modality_says_so(name: str) -> None:
    model, batch = make_model(name), make_batch(make_inputs(), 3)
    with pytest.raises(MdicoError, match="needs every modality, optical is lacking"):
        model.fused({"radar": batch.images["radar"]}, batch.valid)
    with pytest.raises(MdicoError, match="cannot map with radar alone"):
        model.single("radar")


@every_method
def test_fusing_nothing_or_something_unknown_is_named(name: str) -> None:
    model, batch = make_model(name), make_batch(make_inputs(), 3)
    with pytest.raises(MdicoError, match="no model of nothing"):
        model.fused({}, {})
    with pytest.raises(MdicoError, match="no model of 'lidar'"):
        model.fused({**batch.images, "lidar": batch.images["radar"]}, batch.valid)


@every_method
def test_card_tells_title_paper_and_formula(name: str) -> None:
    card = METHODS[name].card
    assert card.title
    assert card.paper
    assert card.formula
    assert sum(method.card == card for method in METHODS.values()) == 1


@mapping_alone
@every_shape
def test_single_is_forward_of_that_modality(name: str, three: bool, size: int) -> None:
    model, batch = make_model(name, three).eval(), make_batch(make_inputs(three), 5, size)
    logits = model(batch.images, batch.valid)
    for m in model.modalities:
        assert torch.equal(model.single(m)(batch.images[m], batch.valid[m]), logits[m])


@mapping_alone
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
    """Over a few steps: a method that leaves modalities out at random reaches one now and another then."""
    model, batch = make_model(name, three), make_batch(make_inputs(three), 12, size)
    for _ in range(4):
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
    assert all(value.item() == 0.0 for key, value in nothing.items() if key in SUPERVISED)


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


@pytest.mark.parametrize("name", ["independent", "mdico", "discom-kd"])
def test_the_main_loss_counts_each_modality_where_it_was_observed(name: str) -> None:
    model, batch = make_model(name).eval(), make_batch(make_inputs(), 8, gaps=0.0)
    blind = dict(batch.valid, radar=batch.valid["radar"].clone())
    blind["radar"][4:] = False
    kept = model.losses(replace(batch, valid=blind))
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
    steady = {"encoder": {"dropout": 0.0}, "timmil": {"dropout": 0.0}}
    model, batch = make_model(name, three=True, **steady), make_batch(make_inputs(three=True), 24, noise=2.0)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(120):
        adam.zero_grad()
        losses, logits = model.learn(batch)
        torch.stack(list(losses.values())).sum().backward()
        adam.step()
        if step > 60 and all((z.argmax(1) == batch.target).all() for m, z in logits.items() if m != "terrain"):
            break
    model.eval()
    assert (model.fused(batch.images, batch.valid).argmax(1) == batch.target).all()
    if name.startswith("fusion"):
        return  # nothing taught a modality alone
    for m, logits in model(batch.images, batch.valid).items():
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
    with pytest.raises(MdicoError, match=r"use one of: independent, fusion-input, .*mdico"):
        get_method("xyz")


@pytest.mark.parametrize(
    ("name", "encoder"), [*((name, "tempcnn") for name in METHODS), *(("mdico", name) for name in ENCODERS)]
)
def test_what_stands_under_a_mask_changes_nothing(name: str, encoder: str) -> None:
    """From the batch to losses and logits: hidden steps and whole missing modalities are masks, not zeros."""
    torch.manual_seed(0)
    inputs = make_inputs(three=True)
    batch = make_batch(inputs, 12, size=2, gaps=0.4)
    batch.valid["radar"][:4] = False
    batch.valid["optical"][8:] = False
    section = make_section(modalities=tuple(inputs), encoder={"name": encoder, "heads": 2, "dropout": 0.0})
    model = METHODS[name](inputs, len(LEGEND), section, None)
    found = []
    for filler in (0.0, 1e4, float("nan")):
        images = {m: torch.where(batch.valid[m].unsqueeze(2), image, filler) for m, image in batch.images.items()}
        torch.manual_seed(1)
        losses = deepcopy(model).train().losses(batch.replace(images=images))
        with torch.no_grad():
            found.append((losses, model.eval().fused(images, batch.valid)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
        assert all(loss.isfinite() for loss in other[0].values())


@pytest.mark.parametrize("name", METHODS)
def test_a_coarser_modality_is_read_on_the_finest_grid(name: str) -> None:
    torch.manual_seed(0)
    inputs = make_inputs()
    batch = make_batch(inputs, 8, size=4)
    coarse = batch.replace(
        images={**batch.images, "radar": batch.images["radar"][..., :1, :1]},
        valid={**batch.valid, "radar": batch.valid["radar"][..., :1, :1]},
    )
    fine = coarse.replace(
        images={**batch.images, "radar": coarse.images["radar"].expand_as(batch.images["radar"]).contiguous()},
        valid={**batch.valid, "radar": coarse.valid["radar"].expand_as(batch.valid["radar"]).contiguous()},
    )
    model = METHODS[name](inputs, len(LEGEND), make_section(), None).eval()
    torch.manual_seed(2)
    one = model.losses(coarse)
    torch.manual_seed(2)
    torch.testing.assert_close(one, model.losses(fine))
