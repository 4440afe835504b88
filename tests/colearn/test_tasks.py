"""Tasks beside classes: losses in plain loops, every method learns them, bundles say what their outputs mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from colearn_toys import LEGEND, MONTHS, make_batch, make_inputs, make_loader, make_section

from mdico_cube.batch import Batch, hide, labelled
from mdico_cube.colearn.bundle import load_bundle, save_bundle
from mdico_cube.colearn.encoders.registry import ENCODERS, halo_of, make_encoder
from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.tasks import (
    Scale,
    answer,
    as_bits,
    bits_of,
    follow,
    goal_of,
    make_weights,
    opinion,
    supervised_loss,
)
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.colearn.trainer import fit
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection, TaskSection
from mdico_cube.spec import LabelClass

CLASSES, MULTI, VALUE = (TaskSection(kind=kind) for kind in ("classes", "multilabel", "regression"))
LABELS = tuple(LabelClass(name, k + 1, "#888888") for k, name in enumerate(("oak", "beech", "pine")))
WATER = (LabelClass("water content", 1, "#888888"),)
SCALE = Scale(120.0, 40.0)


def batch_for(task: TaskSection, samples: int = 40, seed: int = 0, size: int = 1) -> Batch:
    """The toy's three levels as labels side by side (the higher the more of them) or as a value with its unit."""
    batch = make_batch(make_inputs(), samples, size, seed=seed, noise=0.3)
    assert batch.target is not None
    if task.kind == "regression":
        return batch.replace(target=SCALE.mean + SCALE.std * (batch.target.float() - 1))
    if task.kind == "multilabel":
        return batch.replace(target=torch.tensor([0b000, 0b010, 0b110])[batch.target])
    return batch


def legend_for(task: TaskSection) -> tuple[LabelClass, ...]:
    return {"classes": LEGEND, "multilabel": LABELS, "regression": WATER}[task.kind]


def test_bits_stand_for_labels() -> None:
    target = torch.tensor([0b101, 0b010, 0])
    assert bits_of(target, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    labels = torch.rand(5, 62, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.equal(bits_of(as_bits(labels), 62).bool(), labels)
    assert (as_bits(labels) >= 0).all(), "no set of labels is -1"


def test_unlabelled_is_minus_one_or_not_a_number() -> None:
    where = torch.tensor([True, False])
    assert labelled(hide(torch.tensor([3, 4]), where)).tolist() == [False, True]
    assert labelled(hide(torch.tensor([3.0, -1.0]), where)).tolist() == [False, True]


def test_multilabel_loss_in_plain_steps() -> None:
    logits = torch.randn(4, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[[1, 6]], [[-1, 0]], [[7, 2]], [[-1, -1]]])
    weights, smoothing = torch.tensor([2.0, 1.0, 0.5]), 0.1
    costs = []
    for b in range(4):
        for x in range(2):
            if (bits := int(target[b, 0, x])) >= 0:
                terms = []
                for k in range(3):
                    goal = ((bits >> k) & 1) * (1 - smoothing) + smoothing / 2
                    p = 1 / (1 + math.exp(-float(logits[b, k, 0, x])))
                    terms.append(-float(weights[k]) * goal * math.log(p) - (1 - goal) * math.log(1 - p))
                costs.append(sum(terms) / 3)
    section = TaskSection(kind="multilabel", smoothing=smoothing)
    assert supervised_loss(section, logits, target, weights).item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_regression_loss_leaves_out_what_is_not_known() -> None:
    outputs = torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1).requires_grad_()
    target = torch.tensor([0.0, torch.nan, 3.0]).view(3, 1, 1)
    loss = supervised_loss(VALUE, outputs, target)
    assert loss.item() == pytest.approx((1 + 4) / 2)
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.flatten().tolist() == pytest.approx([1.0, 0.0, 2.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_cross_entropy_is_torch_s(smoothing: float) -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target, weights = torch.tensor([0, 1, 2, 0, -1, 1]), torch.tensor([1.0, 2.0, 0.5])
    got = supervised_loss(TaskSection(smoothing=smoothing), logits, target, weights)
    expected = F.cross_entropy(logits, target, weights, ignore_index=-1, label_smoothing=smoothing)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("task", [CLASSES, MULTI, VALUE], ids=lambda task: task.kind)
def test_who_agrees_with_the_teacher_pays_nothing(task: TaskSection) -> None:
    outputs = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    other = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    everywhere = torch.ones(5, 2, 2, dtype=torch.bool)
    assert follow(task, outputs, opinion(task, outputs, 2.0), 2.0, everywhere).item() == pytest.approx(0, abs=1e-5)
    assert follow(task, outputs, opinion(task, other, 2.0), 2.0, everywhere).item() > 0.01
    assert follow(task, outputs, opinion(task, other, 2.0), 2.0, ~everywhere).item() == 0
    assert not opinion(task, outputs.requires_grad_(), 2.0).requires_grad


def test_following_labels_is_the_binary_divergence() -> None:
    outputs, teacher, t = torch.tensor([0.3, -1.0]), torch.tensor([1.2, 0.4]), 0.5
    terms = []
    for z, q in zip((outputs / t).sigmoid().tolist(), (teacher / t).sigmoid().tolist(), strict=True):
        terms.append(q * math.log(q / z) + (1 - q) * math.log((1 - q) / (1 - z)))
    shape = (1, 2, 1, 1)
    got = follow(MULTI, outputs.view(shape), opinion(MULTI, teacher.view(shape), t), t, torch.ones(1, 1, 1).bool())
    assert got.item() == pytest.approx(t**2 * sum(terms) / 2, rel=1e-4)


def test_weights_follow_the_task() -> None:
    names = ["a", "b"]
    balanced = make_weights(CLASSES, [30, 10], names, 40)
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([40 / 60, 2.0])
    assert make_weights(TaskSection(weights="none"), [30, 10], names, 40) is None
    assert make_weights(MULTI, [30, 10], names, 40) is None
    rare = make_weights(TaskSection(kind="multilabel", weights="balanced"), [30, 1], names, 40)
    assert rare is not None
    assert rare.tolist() == pytest.approx([10 / 30, 10.0])
    root = make_weights(TaskSection(weights="sqrt"), [30, 10], names, 40)
    assert root is not None
    assert root.tolist() == pytest.approx([(40 / 60) ** 0.5, 2.0**0.5])
    root = make_weights(TaskSection(kind="multilabel", weights="sqrt"), [30, 1], names, 40)
    assert root is not None
    assert root.tolist() == pytest.approx([(10 / 30) ** 0.5, 10.0**0.5])
    assert make_weights(VALUE, [40], ["v"], 40) is None
    with pytest.raises(MdicoError, match=r"no training sample has a value: every target is NaN"):
        make_weights(VALUE, [0], ["v"], 40)
    with pytest.raises(MdicoError, match="no training sample of label b"):
        make_weights(MULTI, [30, 0], names, 40)
    with pytest.raises(MdicoError, match="63 labels side by side are too many"):
        make_weights(MULTI, [1] * 63, [str(i) for i in range(63)], 40)
    with pytest.raises(MdicoError, match="labels side by side are at least two, came wheat alone"):
        make_weights(MULTI, [30], ["wheat"], 40)
    with pytest.raises(MdicoError, match="no training sample of class b"):
        make_weights(TaskSection(weights="none"), [30, 0], names, 40)


def test_a_regression_has_no_class_weights() -> None:
    with pytest.raises(ValueError, match="neither class weights nor label smoothing"):
        TaskSection(kind="regression", smoothing=0.1)
    with pytest.raises(ValueError, match="neither class weights nor label smoothing"):
        TaskSection(kind="regression", weights="sqrt")


def run(task: TaskSection, folder: Path, method: str = "mdico", epochs: int = 9, **changes: Any) -> TrainedModel:
    train, watched = batch_for(task, 64, seed=1), batch_for(task, 32, seed=2)
    section = make_section(task=task.model_dump(), train={"epochs": epochs, "learning_rate": 2e-2}, **changes)
    each = [20, 20, 20] if task.kind == "classes" else [40] * len(legend_for(task))
    loaders = make_loader(train), make_loader(watched, shuffle=False)
    scale = SCALE if task.kind == "regression" else None
    return fit(method, make_inputs(), legend_for(task), section, *loaders, each, folder, 0, scale=scale)


SOME = ("independent", "mdico", "comiss", "dsensd-plus", "mdico-plus")


@pytest.mark.parametrize(("task", "method"), [*((VALUE, m) for m in METHODS), *((MULTI, m) for m in SOME)])
def test_every_method_learns_every_task(task: TaskSection, method: str, tmp_path: Path) -> None:
    trained = run(task, tmp_path, method)
    test = batch_for(task, 60, seed=3)
    assert test.target is not None
    with torch.no_grad():
        got = trained.answer(trained.model.fused(test.images, test.valid))
    if task.kind == "regression":
        residual = ((got[:, 0] - test.target) ** 2).sum() / ((test.target - test.target.mean()) ** 2).sum()
        assert 1 - residual > 0.7
        assert "val_r2" in trained.history[-1]
    else:
        assert ((got > 0.5) == bits_of(test.target, 3).bool()).float().mean() > 0.9
        assert "val_f1" in trained.history[-1]


@pytest.mark.parametrize("task", [CLASSES, MULTI, VALUE], ids=lambda task: task.kind)
def test_a_bundle_knows_what_its_outputs_mean(task: TaskSection, tmp_path: Path) -> None:
    trained, test = run(task, tmp_path / "run", epochs=2), batch_for(task, 20, seed=3)
    folder = save_bundle(tmp_path / "bundle", trained, "optical")
    bundle = load_bundle(folder)
    images, valid = test.images["optical"], test.valid["optical"]
    with torch.no_grad():
        outputs = trained.model.single("optical")(images, valid)
    torch.testing.assert_close(bundle.answer(images, valid), answer(task, outputs, trained.scale))
    assert bundle.config.task == task
    assert bundle.config.scale == (SCALE if task.kind == "regression" else Scale())
    assert (bundle.config.training.val_r2 is not None) is (task.kind == "regression")
    card = (folder / "README.md").read_text()
    assert {"classes": "3 classes", "multilabel": "3 labels side by side", "regression": "value water content"}[
        task.kind
    ] in card
    if task.kind == "regression":
        assert 60 < bundle.answer(images, valid).mean() < 180


def test_targets_that_are_not_a_number_teach_nothing(tmp_path: Path) -> None:
    model = METHODS["independent"](make_inputs(), 1, make_section(task={"kind": "regression"}), None).eval()
    model.scale = SCALE
    batch = batch_for(VALUE, 8)
    assert batch.target is not None
    holes = batch.target.clone()
    holes[4:] = torch.nan
    loss = model.losses(batch.replace(target=holes))["main"]
    torch.testing.assert_close(loss, model.losses(batch.rows(0, 4))["main"])
    nothing = model.losses(batch.replace(target=torch.full_like(holes, torch.nan)))["main"]
    assert nothing.item() == 0


def test_the_validation_figure_is_the_metric_of_all_batches(tmp_path: Path) -> None:
    trained, watched = run(VALUE, tmp_path, "independent", epochs=1), batch_for(VALUE, 32, seed=2)
    assert watched.target is not None
    with torch.no_grad():
        got = trained.answer(trained.model.single("radar")(watched.images["radar"], watched.valid["radar"]))
    residual = ((got[:, 0] - watched.target) ** 2).sum() / ((watched.target - watched.target.mean()) ** 2).sum()
    assert trained.history[0]["val_r2_radar"] == pytest.approx(1 - residual.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["mlp", "resnet"])
@pytest.mark.parametrize("side", [4, 5])
@torch.no_grad()
def test_the_centre_of_a_patch_averages_all_of_it(name: str, side: int) -> None:
    assert name in ENCODERS
    torch.manual_seed(0)
    section = EncoderSection(name=name, width=16, hidden=8, dense=24, heads=2, layers=1, pool=side)
    encoder = make_encoder(3, MONTHS, section).eval()
    images, valid = torch.randn(2, 6, 3, side, side), torch.rand(2, 6, side, side) < 0.9
    valid[0, :, 0, 1] = False
    valid[1] = False
    pixels = encoder.encoder(images, valid)  # type: ignore[union-attr, operator]
    seen = valid.any(dim=1)
    got = encoder(images, valid)[..., side // 2, side // 2]
    torch.testing.assert_close(got[0], pixels[0][:, seen[0]].mean(dim=1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[1], pixels[1].flatten(1).mean(dim=1), atol=1e-5, rtol=1e-4)
    assert halo_of(encoder) == side // 2 + halo_of(encoder.encoder)  # type: ignore[arg-type]


@torch.no_grad()
def test_a_map_says_at_each_pixel_what_its_patch_says() -> None:
    torch.manual_seed(0)
    section = EncoderSection(name="gru", width=16, hidden=8, dense=24, pool=3)
    encoder = make_encoder(3, MONTHS, section).eval()
    images, valid = torch.randn(1, 6, 3, 9, 9), torch.rand(1, 6, 9, 9) < 0.8
    whole = encoder(images, valid)
    for y, x in ((4, 4), (2, 6), (7, 1)):
        window = (..., slice(y - 1, y + 2), slice(x - 1, x + 2))
        patch = encoder(images[window], valid[window])
        torch.testing.assert_close(patch[..., 1, 1], whole[..., y, x], atol=1e-5, rtol=1e-4)


def test_the_classes_of_a_patch_become_its_labels() -> None:
    target = torch.full((2, 4, 4), -1)
    target[0, :2] = 0
    target[0, 2, :3] = 2
    target[0, 3, 0] = 1
    got = goal_of(TaskSection(kind="multilabel", share=0.1), target, 3, Scale())
    assert got[0, 2, 2] == 0b101, "1 of 12 labelled pixels is not more than a tenth"
    assert (got != -1).sum() == 1, "a patch without any label stays so"
