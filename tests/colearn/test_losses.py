"""Losses against plain loops, and NT-Xent against pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mdico_cube.colearn.losses import balanced_cross_entropy, balanced_weights, nt_xent, spread
from mdico_cube.errors import MdicoError


def loop_nt_xent(first: Tensor, second: Tensor, tau: float) -> float:
    z = [v.tolist() for v in (*first, *second)]
    n = len(first)

    def cosine(a: list[float], b: list[float]) -> float:
        norm = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
        return sum(v * w for v, w in zip(a, b, strict=True)) / norm

    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        below = sum(math.exp(cosine(z[i], z[j]) / tau) for j in range(2 * n) if j != i)
        total -= math.log(math.exp(cosine(z[i], z[partner]) / tau) / below)
    return total / (2 * n)


@pytest.mark.parametrize(("n", "tau"), [(1, 0.5), (2, 0.1), (7, 0.1), (12, 1.0)])
def test_nt_xent_in_plain_loops(n: int, tau: float) -> None:
    draw = torch.Generator().manual_seed(n)
    first, second = torch.randn(2, n, 5, generator=draw, dtype=torch.float64)
    assert nt_xent(first, second, tau).item() == pytest.approx(loop_nt_xent(first, second, tau), abs=1e-5)


def test_nt_xent_equals_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    draw = torch.Generator().manual_seed(3)
    first = torch.randn(16, 8, generator=draw).relu().requires_grad_()
    second = torch.randn(16, 8, generator=draw).relu().requires_grad_()
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=0.1))(first, second)
    ours = nt_xent(first, second, 0.1)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, (first, second)), torch.autograd.grad(theirs, (first, second)), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_nt_xent_stays_in_float32_under_autocast() -> None:
    first, second = torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(first, second, 0.1)
    assert torch.equal(inside, nt_xent(first, second, 0.1))


def test_nt_xent_of_nothing_is_zero() -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = nt_xent(empty, empty, 0.1)
    loss.backward()
    assert loss.item() == 0.0


def loop_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> float:
    above = below = 0.0
    for b in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                k = int(target[b, y, x])
                if k >= 0:
                    scores = logits[b, :, y, x].tolist()
                    loss = math.log(sum(math.exp(s) for s in scores)) - scores[k]
                    above += weights[k].item() * loss
                    below += weights[k].item()
    return above / below


def test_cross_entropy_in_plain_loops_leaves_unlabelled_pixels_out() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 2, generator=draw)
    target = torch.randint(-1, 4, (3, 5, 2), generator=draw)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    expected = loop_cross_entropy(logits, target, weights)
    assert balanced_cross_entropy(logits, target, weights).item() == pytest.approx(expected, abs=1e-5)
    assert balanced_cross_entropy(logits, target).item() == pytest.approx(
        loop_cross_entropy(logits, target, torch.ones(4)), abs=1e-5
    )
    other = torch.where((target < 0).unsqueeze(1), torch.full_like(logits, 50.0), logits)
    assert torch.equal(balanced_cross_entropy(other, target, weights), balanced_cross_entropy(logits, target, weights))


def test_cross_entropy_without_labels_is_zero_with_zero_gradients() -> None:
    logits = torch.randn(2, 3, 1, 1, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.full((2, 1, 1), -1), torch.ones(3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_balanced_weights_give_every_class_the_same_mass() -> None:
    counts = [10, 30, 60]
    weights = balanced_weights(counts, ["a", "b", "c"])
    mass = weights * torch.tensor(counts)
    torch.testing.assert_close(mass, torch.full((3,), 100 / 3))


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        ([5, 0, 3], ["wheat", "maize", "water"], "no training sample of class maize"),
        ([5], ["wheat"], "at least two classes, came wheat"),
        ([5, 5], ["wheat"], "2 class counts came for 1 classes"),
    ],
)
def test_bad_classes_are_named(counts: list[int], names: list[str], message: str) -> None:
    with pytest.raises(MdicoError, match=message):
        balanced_weights(counts, names)


def test_spread_keeps_everything_or_picks_evenly() -> None:
    eligible = torch.arange(100) % 2 == 0
    assert spread(eligible, 50).tolist() == list(range(0, 100, 2))
    picked = spread(eligible, 10)
    assert picked.tolist() == list(range(0, 100, 10))
    assert torch.equal(picked, spread(eligible, 10))
