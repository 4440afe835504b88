"""MDiCo: its four losses against the formulas in plain steps, its options, its twins."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from colearn_toys import LEGEND, make_batch, make_inputs, make_section

from mdico_cube.colearn.losses import nt_xent
from mdico_cube.colearn.mdico import MDiCo, MDiCoPath
from mdico_cube.errors import MdicoError

HALF = 8


def make_model(three: bool = False, **options: object) -> MDiCo:
    torch.manual_seed(0)
    weights = torch.tensor([0.5, 1.0, 2.0])
    return MDiCo(make_inputs(three), len(LEGEND), make_section(mdico=options), weights).eval()


@torch.no_grad()
@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("discriminate", ["unused", "shared"])
def test_losses_equal_the_formulas(three: bool, discriminate: str) -> None:
    model = make_model(three, discriminate=discriminate, contrastive_reduction="sum", temperature=0.2)
    batch = make_batch(make_inputs(three), 9, gaps=0.0)
    assert batch.target is not None
    y = batch.target.flatten()
    rows = {}
    for m in model.modalities:
        path = model.single(m)
        assert isinstance(path, MDiCoPath)
        series = path.inputs(batch.images[m], batch.valid[m])
        u = path.encoder_unique(series, batch.valid[m]).flatten(1)  # (B, d)
        common = path.encoder_common(series, batch.valid[m])
        rows[m] = (u[:, :HALF], u[:, HALF:], path.shared(common).flatten(1), path)

    def linear(layer: torch.nn.Linear, z: torch.Tensor) -> torch.Tensor:
        return z @ layer.weight.T + layer.bias

    def ce(z: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(z, y, model.class_weights)

    count = len(rows)
    main = sum(ce(linear(p.head, torch.cat([spe, sha], 1))) for spe, _, sha, p in rows.values()) / count
    aux = sum((ce(linear(model.auxiliary, s)) + ce(linear(model.auxiliary, h))) / 2 for s, _, h, _ in rows.values())
    modality = 0.0
    for number, (spe, unu, sha, _) in enumerate(rows.values()):
        m = torch.full_like(y, number)
        second = unu if discriminate == "unused" else sha
        modality += F.cross_entropy(linear(model.discriminate_specific, spe), m) / 2
        modality += F.cross_entropy(linear(model.discriminate_unused, second), m) / 2
    contrast = sum(nt_xent(rows[i][2], rows[j][2], 0.2) for i, j in permutations(rows, 2))

    got = model.losses(batch)
    expected = {"main": main, "auxiliary": aux / count, "modality": modality / count, "contrastive": contrast}
    assert {k: v.item() for k, v in got.items()} == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-4)


def test_mean_reduction_equals_the_sum_for_two_and_does_not_grow() -> None:
    two, three = make_batch(make_inputs(), 9), make_batch(make_inputs(three=True), 9)
    sums = [make_model(len(b.images) == 3, contrastive_reduction="sum").losses(b)["contrastive"] for b in (two, three)]
    means = [make_model(len(b.images) == 3).losses(b)["contrastive"] for b in (two, three)]
    assert means[0].item() == pytest.approx(sums[0].item())
    assert means[1].item() == pytest.approx(sums[1].item() / 3)  # 6 ordered pairs instead of 2


def test_twin_encoders_start_equal_and_are_two() -> None:
    path = make_model().single("optical")
    assert isinstance(path, MDiCoPath)
    unique, common = path.encoder_unique.state_dict(), path.encoder_common.state_dict()
    assert all(torch.equal(unique[k], common[k]) for k in unique)
    assert all(unique[k].data_ptr() != common[k].data_ptr() for k in unique)


@pytest.mark.parametrize(("discriminate", "learns"), [("unused", True), ("shared", False)])
def test_who_gets_no_gradient(discriminate: str, learns: bool) -> None:
    """With `shared` the second half of E_uni's last Linear, which makes z_unu, is the only one without a gradient."""
    model = make_model(discriminate=discriminate).train()
    torch.stack(list(model.losses(make_batch(make_inputs(), 12)).values())).sum().backward()
    for m in model.modalities:
        embed = model.single(m).get_submodule("encoder_unique.embed")
        assert isinstance(embed, torch.nn.Linear)
        assert embed.weight.grad is not None
        assert bool(embed.weight.grad[HALF:].any()) is learns
        assert embed.weight.grad[:HALF].any()
    assert all(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("name", ["main", "auxiliary", "modality", "contrastive"])
def test_every_loss_has_a_weight_and_a_switch(name: str) -> None:
    batch = make_batch(make_inputs(), 9)
    plain, doubled = make_model().losses(batch), make_model(**{name: 2.0}).losses(batch)
    assert doubled[name].item() == pytest.approx(2 * plain[name].item())
    off = make_model(**{name: 0.0}).losses(batch)
    assert set(off) == set(plain) - {name}
    assert all(off[k] == plain[k] for k in off)


def test_no_loss_at_all_is_refused() -> None:
    with pytest.raises(MdicoError, match="every loss weight"):
        make_model(main=0, auxiliary=0, modality=0, contrastive=0)


def test_patches_contrast_at_most_the_given_number_of_pixels() -> None:
    batch = make_batch(make_inputs(), 4, size=6)  # 144 pixels
    everything = make_model(contrast_pixels=144).losses(batch)["contrastive"]
    assert everything == make_model(contrast_pixels=1000).losses(batch)["contrastive"]
    few = make_model(contrast_pixels=16)
    assert few.losses(batch)["contrastive"] == few.losses(batch)["contrastive"]
    assert few.losses(batch)["contrastive"] < everything  # fewer negatives
