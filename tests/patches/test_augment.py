"""Augmentation by oracle: the values of a window say where and when they come from, so that every move can be read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from mdico_cube.batch import Batch
from mdico_cube.errors import MdicoError
from mdico_cube.patches.augment import make_augment
from mdico_cube.recipe import AugmentSection

MONTHS = tuple(f"2021-{month:02d}-01" for month in range(1, 7))
STEPS = {"radar": MONTHS, "optical": MONTHS, "terrain": ("",), "weather": MONTHS}
SIDES = {"radar": 4, "optical": 4, "terrain": 4, "weather": 1}
BANDS = {"radar": 2, "optical": 3, "terrain": 1, "weather": 2}


def make(count: int = 200, seed: int = 0) -> Batch:
    """Each value is 1 + step * 100 + band * 1000 + the number of its pixel in the window; a third is hidden."""
    draw = torch.Generator().manual_seed(seed)
    images, valid = {}, {}
    for name, steps in STEPS.items():
        t, c, side = len(steps), BANDS[name], SIDES[name]
        pixel = torch.arange(side * side).view(1, 1, 1, side, side)
        image = 1 + pixel + 100 * torch.arange(t).view(1, t, 1, 1, 1) + 1000 * torch.arange(c).view(1, 1, c, 1, 1)
        valid[name] = torch.rand(count, t, side, side, generator=draw) < 0.67
        images[name] = image.float() * valid[name].unsqueeze(2)
    target = torch.arange(16).view(1, 4, 4).repeat(count, 1, 1)
    return Batch(images, valid, target)


def copied(batch: Batch) -> Batch:
    return Batch(
        {n: i.clone() for n, i in batch.images.items()}, {n: v.clone() for n, v in batch.valid.items()},
        None if batch.target is None else batch.target.clone(),
    )  # fmt: skip


def augmented(options: dict[str, Any], seed: int = 1, steps: dict[str, Any] = STEPS) -> tuple[Batch, Batch]:
    before = make()
    augment = make_augment(AugmentSection(**options), steps)
    assert augment is not None
    return before, augment(copied(before), np.random.default_rng(seed))


def square(place: torch.Tensor) -> list[int]:
    return place.flatten().tolist()


@pytest.mark.parametrize(
    ("options", "ways"), [({"flip": True, "rotate": True}, 8), ({"rotate": True}, 4), ({"flip": True}, 4)]
)
def test_all_of_a_window_turns_together(options: dict[str, bool], ways: int) -> None:
    before, after = augmented(options)
    assert before.target is not None
    assert after.target is not None
    laid: Counter[tuple[int, ...]] = Counter()
    for i in range(len(before)):
        place = after.target[i]  # (4, 4) which pixel stands here now
        laid[tuple(square(place))] += 1
        for name, side in SIDES.items():
            here = place.flatten() if side == 4 else torch.zeros(1, dtype=torch.int64)
            for one, two in ((before.images, after.images), (before.valid, after.valid)):
                flat = one[name][i].flatten(-2)
                assert torch.equal(two[name][i].flatten(-2), flat[..., here])
    assert len(laid) == ways
    assert min(laid.values()) > 200 / ways / 3
    whole = torch.arange(16).view(4, 4)
    quarter = {tuple(square(torch.rot90(whole, k))) for k in range(4)}
    mirrored = {tuple(square(whole.flip(axes))) for axes in ((0,), (1,), (0, 1))}
    expected = quarter if options == {"rotate": True} else mirrored | {tuple(range(16))}
    if ways == 8:
        expected = quarter | {tuple(square(torch.rot90(whole.flip(1), k))) for k in range(4)}
    assert set(laid) == expected


def test_series_move_together_and_what_comes_from_outside_is_missing() -> None:
    before, after = augmented({"shift_steps": 2})
    moves: Counter[int] = Counter()
    for i in range(len(before)):
        found = set()
        for by in range(-2, 3):
            fits = True
            for name in ("radar", "optical", "weather"):
                for t in range(6):
                    came = t - by
                    if 0 <= came < 6:
                        fits &= torch.equal(after.valid[name][i, t], before.valid[name][i, came])
                        fits &= torch.equal(after.images[name][i, t], before.images[name][i, came])
                    else:
                        fits &= not after.valid[name][i, t].any() and not after.images[name][i, t].any()
            if fits:
                found.add(by)
        assert len(found) == 1
        moves.update(found)
    assert set(moves) == {-2, -1, 0, 1, 2}
    assert torch.equal(before.images["terrain"], after.images["terrain"])


def test_series_of_different_steps_cannot_be_shifted_together() -> None:
    with pytest.raises(MdicoError, match="different steps"):
        make_augment(AugmentSection(shift_steps=1), {"a": MONTHS, "b": MONTHS[:3]})


def test_dates_move_and_values_stay() -> None:
    before, after = augmented({"shift_days": 9})
    assert after.dates is not None
    assert set(after.dates) == {"radar", "optical", "weather"}
    moved = after.dates["radar"] - torch.tensor([0.0, 31, 59, 90, 120, 151])
    assert (moved == moved[:, :1]).all()
    assert set(moved[:, 0].tolist()) == set(range(-9, 10))
    assert torch.equal(after.dates["radar"], after.dates["optical"])
    for name in STEPS:
        assert torch.equal(before.images[name], after.images[name])


def test_hidden_steps_are_masked_in_every_pixel_and_one_is_left() -> None:
    before, after = augmented({"drop_steps": 0.7})
    for name in ("radar", "optical", "weather"):
        hidden = before.valid[name] & ~after.valid[name]
        whole = before.valid[name].flatten(2).any(2) & ~after.valid[name].flatten(2).any(2)  # (B, T)
        assert (hidden.flatten(2).any(2) == whole).all()
        assert 0.35 < whole.float().sum() / before.valid[name].flatten(2).any(2).sum() < 0.75
        had = before.valid[name].flatten(1).any(1)
        assert (after.valid[name].flatten(1).any(1) == had).all()
        assert not after.images[name][~after.valid[name].unsqueeze(2).expand_as(after.images[name])].any()
    assert torch.equal(before.valid["terrain"], after.valid["terrain"])


def test_one_sensor_is_hidden_but_never_the_last() -> None:
    before = make()
    for name in ("radar", "optical", "terrain"):
        before.valid[name][:50] = False  # only weather is left there
    before.valid["weather"][:50] = True
    augment = make_augment(AugmentSection(drop_sensor=1.0), STEPS)
    assert augment is not None
    after = augment(copied(before), np.random.default_rng(0))
    gone = torch.stack(
        [before.valid[n].flatten(1).any(1) & ~after.valid[n].flatten(1).any(1) for n in STEPS], dim=1
    ).sum(dim=1)
    left = torch.stack([after.valid[n].flatten(1).any(1) for n in STEPS], dim=1).any(dim=1)
    assert left.all()
    assert not gone[:50].any()
    assert gone[50:].max() == 1
    assert gone[50:].float().mean() > 0.9


def test_the_draw_depends_on_the_generator_alone() -> None:
    options = {"flip": True, "rotate": True, "shift_steps": 1, "drop_steps": 0.2, "drop_sensor": 0.3, "shift_days": 5}
    (_, one), (_, two), (_, other) = (augmented(options, seed) for seed in (4, 4, 5))
    torch.manual_seed(9)
    for name in STEPS:
        assert torch.equal(one.images[name], two.images[name])
    assert not torch.equal(one.images["radar"], other.images["radar"])


def test_nothing_to_do_is_nothing() -> None:
    assert make_augment(AugmentSection(), STEPS) is None
