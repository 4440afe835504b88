"""A batch of several resolutions on one grid; dates and masks go where the windows go."""

from __future__ import annotations

import pytest
import torch

from mdico_cube.batch import Batch
from mdico_cube.errors import MdicoError


def make(sides: dict[str, int], target: int | None = 4) -> Batch:
    draw = torch.Generator().manual_seed(0)
    images = {name: torch.rand(3, 2, 2, side, side, generator=draw) for name, side in sides.items()}
    valid = {name: torch.rand(3, 2, side, side, generator=draw) < 0.5 for name, side in sides.items()}
    classes = None if target is None else torch.arange(3 * target * target).view(3, target, target)
    return Batch(images, valid, classes, {next(iter(sides)): torch.arange(6.0).view(3, 2)})


def test_coarser_pixels_are_repeated() -> None:
    batch = make({"fine": 4, "half": 2, "one": 1})
    even = batch.on_one_grid()
    assert even.target is batch.target
    for y in range(4):
        for x in range(4):
            for name, factor in (("fine", 1), ("half", 2), ("one", 4)):
                for one, two in ((batch.images, even.images), (batch.valid, even.valid)):
                    assert torch.equal(two[name][..., y, x], one[name][..., y // factor, x // factor])


def test_one_grid_stays_as_it_is() -> None:
    batch = make({"a": 4, "b": 4})
    assert batch.on_one_grid() is batch


def test_the_target_can_be_finer_or_absent() -> None:
    assert make({"a": 2, "b": 1}).on_one_grid().images["b"].shape[-2:] == (4, 4)
    assert make({"a": 2, "b": 1}, None).on_one_grid().images["b"].shape[-2:] == (2, 2)


def test_sides_must_divide() -> None:
    with pytest.raises(MdicoError, match="b: 3 pixels do not divide the 4"):
        make({"a": 4, "b": 3}).on_one_grid()


def test_everything_goes_along() -> None:
    batch = make({"a": 4, "b": 1})
    part = batch.rows(1, 3)
    assert len(part) == 2
    assert torch.equal(part.images["b"], batch.images["b"][1:])
    assert part.dates is not None
    assert part.dates["a"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    there = batch.to("meta")
    assert there.dates is not None
    assert {t.device.type for t in (*there.images.values(), *there.valid.values(), there.dates["a"])} == {"meta"}
