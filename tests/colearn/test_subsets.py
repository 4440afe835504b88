"""Presence, random absence and masked means against plain loops."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mdico_cube.colearn.losses import squared_cosine
from mdico_cube.colearn.subsets import every_subset, masked_mean, presence, random_subset
from mdico_cube.colearn.tasks import follow, opinion
from mdico_cube.recipe import TaskSection


def test_presence_is_any_observed_step_and_everything_where_nothing_is() -> None:
    radar = torch.tensor([[1, 0], [0, 0], [0, 0]], dtype=torch.bool).view(3, 2, 1, 1)
    optical = torch.tensor([[0], [1], [0]], dtype=torch.bool).view(3, 1, 1, 1)
    here = presence({"radar": radar, "optical": optical}, ("radar", "optical"))
    assert here.flatten(1).tolist() == [[True, False, True], [False, True, True]]


def test_masked_mean_leaves_out_what_is_not_there_even_nan() -> None:
    parts = [torch.full((2, 1, 1, 1), 1.0), torch.full((2, 1, 1, 1), 3.0)]
    parts[1][1] = torch.nan
    here = torch.tensor([[True, True], [True, False]]).view(2, 2, 1, 1)
    assert masked_mean(parts, here).flatten().tolist() == [2.0, 1.0]


@pytest.mark.parametrize("together", [False, True])
def test_random_subsets_are_evenly_drawn_never_empty_and_of_what_is_there(together: bool) -> None:
    torch.manual_seed(0)
    here = torch.ones(3, 700, 2, 2, dtype=torch.bool)
    if not together:
        here[0, :100] = False
    found: Counter[tuple[bool, ...]] = Counter()
    for _ in range(700 if together else 1):
        kept = random_subset(here[:, :2] if together else here, training=True, together=together)
        assert kept.any(dim=0).all()
        assert not (kept & ~(here[:, :2] if together else here)).any()
        assert (kept == kept[:, :, :1, :1]).all(), "one draw for all pixels of a sample"
        if together:
            assert (kept == kept[:, :1]).all()
        columns = kept[:, :1, 0, 0] if together else kept[:, 100:, 0, 0]
        found.update(tuple(row) for row in columns.T.tolist())
    total = found.total()
    assert len(found) == 7
    assert all(0.5 / 7 < count / total < 1.7 / 7 for count in found.values())


def test_a_pixel_whose_modalities_would_be_left_out_keeps_them() -> None:
    here = torch.zeros(2, 50, 1, 2, dtype=torch.bool)
    here[0, :, :, 0] = here[1, :, :, 1] = True
    torch.manual_seed(0)
    assert torch.equal(random_subset(here, training=True), here)


def test_outside_training_the_draw_is_always_the_same_and_moves_no_generator() -> None:
    here = torch.ones(2, 40, 1, 1, dtype=torch.bool)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(random_subset(here, training=False), random_subset(here, training=False))
    assert torch.equal(torch.rand(2), expected)


def test_every_subset_once() -> None:
    assert list(every_subset(3)) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert len(set(every_subset(5))) == 31


def softmax(values: list[float]) -> list[float]:
    total = sum(torch.tensor(values, dtype=torch.float64).exp().tolist())
    return [float(torch.tensor(v, dtype=torch.float64).exp()) / total for v in values]


def test_distillation_in_plain_loops_teaches_the_student_only() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 2, 2, generator=draw).requires_grad_()
    where = torch.rand(3, 2, 2, generator=draw) < 0.6
    expected, count = 0.0, 0
    for b in range(3):
        for y in range(2):
            for x in range(2):
                if where[b, y, x]:
                    p = softmax([v / 0.5 for v in teacher[b, :, y, x].tolist()])
                    q = softmax([v / 0.5 for v in student[b, :, y, x].tolist()])
                    log = [float(torch.tensor(a / c).log()) for a, c in zip(p, q, strict=True)]
                    expected += 0.25 * sum(a * v for a, v in zip(p, log, strict=True))
                    count += 1
    loss = follow(TaskSection(), student, opinion(TaskSection(), teacher, 0.5), 0.5, where)
    assert loss.item() == pytest.approx(expected / count, rel=1e-4)
    assert torch.autograd.grad(loss, teacher, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(loss, student)[0].any()
    assert (
        follow(TaskSection(), student, opinion(TaskSection(), teacher, 0.5), 0.5, torch.zeros_like(where)).item() == 0.0
    )


def test_squared_cosine_is_zero_for_orthogonal_and_one_for_parallel() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 1.0], [5.0, 5.0]]).view(3, 2, 1, 1)
    second = torch.tensor([[0.0, 2.0], [-3.0, -3.0], [9.0, 0.0]]).view(3, 2, 1, 1)
    where = torch.tensor([True, True, False]).view(3, 1, 1)
    assert squared_cosine(first, second, where).item() == pytest.approx(0.5)
