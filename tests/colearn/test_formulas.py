"""The losses of every method against its formula, from the logits and embeddings of plain loops over modalities."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from colearn_toys import LEGEND, make_batch, make_inputs, make_section
from torch import Tensor

from mdico_cube.batch import Batch
from mdico_cube.colearn.discom import reverse_gradient
from mdico_cube.colearn.losses import nt_xent
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.subsets import random_subset
from mdico_cube.errors import MdicoError

WEIGHTS = torch.tensor([0.5, 1.0, 2.0])
INPUTS = make_inputs(three=True)
BATCH = make_batch(INPUTS, 9, gaps=0.0)
assert BATCH.target is not None
Y = BATCH.target.flatten()
ALL = torch.ones(3, 9, 1, 1, dtype=torch.bool)


def make_model(name: str, **changes: Any) -> CoLearner:
    torch.manual_seed(0)
    return METHODS[name](INPUTS, len(LEGEND), make_section(**changes), WEIGHTS).eval()


def rows(model: CoLearner) -> dict[str, Tensor]:
    """Modality -> logits (B, K) of each path on its own."""
    return {m: model.single(m)(BATCH.images[m], BATCH.valid[m]).flatten(1) for m in INPUTS}


def mean_of(parts: dict[str, Tensor], keep: Tensor) -> Tensor:
    """(B, K) mean over the kept modalities, sample by sample."""
    out = []
    for b in range(9):
        kept = [z[b] for i, z in enumerate(parts.values()) if keep[i, b]]
        out.append(sum(kept[1:], kept[0]) / len(kept))
    return torch.stack(out)


def ce(z: Tensor) -> Tensor:
    return F.cross_entropy(z, Y, WEIGHTS)


def kl(teacher: Tensor, student: Tensor, t: float = 0.5) -> Tensor:
    p, q = (teacher / t).softmax(1), (student / t).softmax(1)
    return t * t * (p * (p / q).log()).sum(1).mean()


def check(got: dict[str, Tensor], expected: dict[str, Any]) -> None:
    assert {k: v.item() for k, v in got.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-3, abs=1e-6
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["fullco", "comiss"])
def test_fullco_and_comiss(name: str) -> None:
    model = make_model(name)
    logits = rows(model)
    fused = mean_of(logits, ALL.flatten(1))
    spaces = {m: model.single(m).embed(BATCH.images[m], BATCH.valid[m]) for m in INPUTS}  # type: ignore[operator]
    pairs = [nt_xent(spaces[i].shared.flatten(1), spaces[j].shared.flatten(1), 0.1) for i, j in combinations(INPUTS, 2)]
    told = [
        F.cross_entropy(model.discriminate(spaces[m].specific).flatten(1), torch.full_like(Y, number))  # type: ignore[operator]
        for number, m in enumerate(INPUTS)
    ]
    expected = {"main": ce(fused), "contrastive": sum(pairs) / 3, "modality": sum(told) / 3}
    if name == "fullco":
        own = {
            "single": sum(ce(z) for z in logits.values()) / 3,
            "distillation": sum(kl(fused, z) for z in logits.values()) / 3,
        }
    else:
        subset = mean_of(logits, random_subset(ALL, training=False).flatten(1))
        own = {"missing": ce(subset), "distillation": kl(fused, subset)}
    check(model.losses(BATCH), expected | own)
    doubled = make_model(name, fullco={"collaboration": 2.0, "modality": 0.0, "contrastive": 0.0}).losses(BATCH)
    check(doubled, {"main": expected["main"]} | {k: 2 * v for k, v in own.items()})


@torch.no_grad()
def test_dsensd_and_its_plus() -> None:
    for name in ("dsensd", "dsensd-plus"):
        model = make_model(name)
        logits = rows(model)
        fused = mean_of(logits, ALL.flatten(1))
        missing = ce(mean_of(logits, random_subset(ALL, training=False).flatten(1)))
        plus = {
            "main": ce(fused),
            "missing": missing,
            "single": sum(ce(z) for z in logits.values()) / 3,
            "distillation": sum(kl(fused, z) for z in logits.values()) / 3,
        }
        check(model.losses(BATCH), {"main": missing} if name == "dsensd" else plus)


@torch.no_grad()
def test_dsensd_normalises_its_logits_from_three_classes_on() -> None:
    three = make_model("dsensd").single("radar")
    two = METHODS["dsensd"](INPUTS, 2, make_section(), None).single("radar")
    kinds = [[type(layer).__name__ for layer in path.head] for path in (three, two)]  # type: ignore[union-attr,arg-type]
    assert kinds[1] == ["PixelLinear", "ReLU", "BatchNorm2d", "Dropout", "PixelLinear"]
    assert kinds[0] == [*kinds[1], "PixelLayerNorm"]


@torch.no_grad()
def test_fcom_averages_every_subset() -> None:
    model = make_model("fcom-av")
    z = {m: model.single(m).embed(BATCH.images[m], BATCH.valid[m]).flatten(1) for m in INPUTS}  # type: ignore[operator]
    head = model.single("radar").head
    terms = [
        ce(sum(z[m] for m in names) / len(names) @ head.weight.T + head.bias)  # type: ignore[operator,union-attr]
        for size in (1, 2, 3)
        for names in combinations(INPUTS, size)
    ]
    assert len(terms) == 7
    check(model.losses(BATCH), {"main": sum(terms) / 7})
    for value in z.values():  # LayerNorm
        torch.testing.assert_close(value.mean(1), torch.zeros(9), atol=1e-5, rtol=0)
        torch.testing.assert_close(value.var(1, unbiased=False), torch.ones(9), atol=1e-2, rtol=0)


@torch.no_grad()
def test_timmil_reads_the_class_token_of_the_modalities_that_are_there() -> None:
    model = make_model("timmil-like")
    keep = random_subset(ALL, training=False).flatten(1)
    mixer = model.single("radar").mixer
    out = []
    for b in range(9):
        tokens = [mixer.token]  # type: ignore[union-attr]
        for i, m in enumerate(INPUTS):
            if keep[i, b]:
                path = model.single(m)
                tokens.append(path.embed(BATCH.images[m][b : b + 1], BATCH.valid[m][b : b + 1]).flatten())  # type: ignore[operator]
        mixed = mixer.layer(torch.stack(tokens)[None])[0, 0]  # type: ignore[operator,union-attr]
        out.append(mixer.head.weight @ mixed + mixer.head.bias)  # type: ignore[operator,union-attr]
    check(model.losses(BATCH), {"main": ce(torch.stack(out))})


@torch.no_grad()
def test_discom() -> None:
    model, mdico = make_model("discom-kd", discom={"adversarial": 0.5, "orthogonal": 3.0}), make_model("mdico")
    mdico.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("adversary")})
    spaces = {m: model.single(m).embed(BATCH.images[m], BATCH.valid[m]) for m in INPUTS}  # type: ignore[operator]
    adversarial = orthogonal = 0.0
    for number, z in enumerate(spaces.values()):
        spe, unu, sha = (part.flatten(1) for part in z)
        told = model.adversary(z.shared).flatten(1)  # type: ignore[operator]
        adversarial += F.cross_entropy(told, torch.full_like(Y, number)) / 3
        for other in (sha, unu):
            cosine = (spe * other).sum(1) / (spe.norm(dim=1) * other.norm(dim=1))
            orthogonal += (cosine**2).mean() / 6
    base = {k: v for k, v in mdico.losses(BATCH).items() if k != "contrastive"}
    check(model.losses(BATCH), base | {"adversarial": 0.5 * adversarial, "orthogonal": 3 * orthogonal})


def test_the_adversary_pushes_the_encoder_the_other_way() -> None:
    value = torch.randn(4, requires_grad=True)
    (reverse_gradient(value) ** 2).sum().backward()
    assert value.grad is not None
    torch.testing.assert_close(value.grad, -2 * value.detach())


@torch.no_grad()
@pytest.mark.parametrize("name", ["fusion-concat", "fusion-average", "fusion-gated", "fusion-decision"])
def test_feature_and_decision_fusion(name: str) -> None:
    model = make_model(name)
    z = {}
    for m, path in model.paths.items():
        series = path.inputs(BATCH.images[m], BATCH.valid[m])  # type: ignore[operator]
        z[m] = path.encoder(series, BATCH.valid[m]).flatten(1)  # type: ignore[operator]

    def linear(layer: Any, values: Tensor) -> Tensor:
        return values @ layer.weight.T + layer.bias

    parts = list(z.values())
    if name == "fusion-concat":
        fused = linear(model.head, torch.cat(parts, 1))
    elif name == "fusion-average":
        fused = linear(model.head, sum(parts[1:], parts[0]) / 3)
    elif name == "fusion-gated":
        scores = [linear(model.gates[m], z[m]).exp() for m in z]  # type: ignore[index]
        fused = linear(model.head, sum(s * part for s, part in zip(scores, parts, strict=True)) / sum(scores))
    else:
        fused = sum(linear(model.paths[m].head, z[m]) for m in z) / 3
    check(model.losses(BATCH), {"main": ce(fused)})


@torch.no_grad()
def test_input_fusion_stacks_bands_and_repeats_terrain() -> None:
    model = make_model("fusion-input")
    terrain = ((BATCH.images["terrain"] - 100) / 50).repeat(1, 6, 1, 1, 1)
    stacked = torch.cat(
        [(BATCH.images["radar"] + 12) / 3, (BATCH.images["optical"] - 0.2) / 0.1, terrain], dim=2
    )  # (B, 6, 2 + 4 + 3, 1, 1)
    fused = model.head(model.encoder(stacked, torch.ones(9, 6, 1, 1, dtype=torch.bool))).flatten(1)  # type: ignore[operator]
    check(model.losses(BATCH), {"main": ce(fused)})


def test_input_fusion_refuses_other_dates_and_fcom_too_many() -> None:
    other = {**make_inputs(), "weather": make_inputs()["radar"]}
    shifted = {m: (s if m != "weather" else type(s)(s.modality, s.steps[:4], s.stats)) for m, s in other.items()}
    with pytest.raises(MdicoError, match=r"needs the same time steps .* weather 4"):
        METHODS["fusion-input"](shifted, 3, make_section(), None)
    many = {f"m{i}": make_inputs()["radar"] for i in range(9)}
    with pytest.raises(MdicoError, match="at most 8 of them, came 9"):
        METHODS["fcom-av"](many, 3, make_section(), None)
    with pytest.raises(MdicoError, match=r"encoder.width .16. must be a multiple of timmil.heads .3."):
        make_model("timmil-like", timmil={"heads": 3})


@torch.no_grad()
def test_ensemble_is_the_mean_of_independent_logits() -> None:
    model = make_model("independent")
    fused = mean_of(rows(model), ALL.flatten(1))
    torch.testing.assert_close(model.fused(BATCH.images, BATCH.valid).flatten(1), fused)


@pytest.mark.parametrize("name", ["dsensd", "comiss", "timmil-like"])
def test_training_draws_anew_and_follows_the_seed(name: str) -> None:
    def draw(seed: int) -> list[float]:
        model = make_model(name, encoder={"dropout": 0.0}, timmil={"dropout": 0.0}).train()
        torch.manual_seed(seed)
        return [torch.stack(list(model.losses(_batch()).values())).sum().item() for _ in range(4)]

    def _batch() -> Batch:
        return BATCH

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) > 1


@torch.no_grad()
@pytest.mark.parametrize("fused", [0.0, 0.5])
def test_mdico_plus(fused: float) -> None:
    """Every sensor is taught by the mean of all of them, and of the fused head where there is one."""
    model = make_model("mdico-plus", plus={"fused": fused})
    logits, said = rows(model), dict(rows(model))
    expected = {"main": sum(ce(z) for z in logits.values()) / 3}
    if fused:
        together: Any = model.together
        lifted = [together.lift[m](model.paths[m].embed(BATCH.images[m], BATCH.valid[m])) for m in INPUTS]  # type: ignore[operator]
        said["fused"] = together.head(sum(lifted[1:], lifted[0]) / 3).flatten(1)
        expected["fused"] = fused * ce(said["fused"])
        assert torch.allclose(model.fused(BATCH.images, BATCH.valid).flatten(1), sum(said.values()) / 4, atol=1e-5)
    voices = [(z / 2.0).softmax(1) for z in said.values()]
    goal = sum(voices[1:], voices[0]) / len(voices)

    def told(goals: dict[str, Tensor]) -> Any:
        heard = {m: (z / 2.0).softmax(1) for m, z in logits.items()}
        return sum(4.0 * (goals[m] * (goals[m] / heard[m]).log()).sum(1).mean() for m in logits) / 3

    check(model.losses(BATCH), {**expected, "distillation": told(dict.fromkeys(logits, goal))})
    own = make_model("mdico-plus", plus={"fused": fused, "teacher": "own"})
    check(own.losses(BATCH), {**expected, "distillation": 0.0})
    check(make_model("mdico-plus", plus={"fused": fused, "distillation": 0.0}).losses(BATCH), expected)


@torch.no_grad()
def test_mdico_plus_learns_from_pixels_without_label() -> None:
    """Only the distillation counts them, and all of them; a sensor that saw nothing there is left out."""
    model = make_model("mdico-plus")
    bare = Batch(BATCH.images, BATCH.valid, torch.full_like(Y, -1)[:, None, None])
    whole, got = model.losses(BATCH), model.losses(bare)
    assert float(got["main"]) == 0.0
    torch.testing.assert_close(got["distillation"], whole["distillation"])
    first = next(iter(INPUTS))
    unseen = {**BATCH.valid, first: torch.zeros_like(BATCH.valid[first])}
    blind = model.losses(Batch(BATCH.images, unseen, bare.target))
    other = model.losses(Batch({**BATCH.images, first: BATCH.images[first] + 100}, unseen, bare.target))
    torch.testing.assert_close(blind["distillation"], other["distillation"])
    assert float(blind["distillation"]) != pytest.approx(float(got["distillation"]))
