"""Normalise: z-score and linear interpolation in time against a plain loop; hidden values never leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colearn_toys import make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.colearn.inputs import Normalise
from mdico_cube.errors import MdicoError
from mdico_cube.period import first_days

STEPS = ("2021-01-01", "2021-02-01", "2021-03-01", "2021-05-01", "2021-05-11")


def oracle(images: np.ndarray, valid: np.ndarray, mean: float, std: float, days: list[int]) -> np.ndarray:
    """np.interp for every pixel and band: nearest beyond the ends, 0 where nothing was observed."""
    out = np.zeros_like(images)
    for b, y, x in np.ndindex(images.shape[0], *images.shape[3:]):
        seen = valid[b, :, y, x]
        for c in range(images.shape[2]):
            z = (images[b, :, c, y, x] - mean) / std
            if seen.any():
                out[b, :, c, y, x] = np.interp(days, np.array(days)[seen], z[seen])
    return out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_equals_interpolation_in_plain_loops(seed: int, share: float) -> None:
    spec = make_spec("radar", 3, STEPS)
    draw = np.random.default_rng(seed)
    images = draw.normal(5, 2, (2, 5, 3, 2, 3)).astype(np.float32)
    valid = draw.random((2, 5, 2, 3)) < share
    got = Normalise(spec)(torch.from_numpy(images), torch.from_numpy(valid)).numpy()
    np.testing.assert_allclose(got, oracle(images, valid, 5.0, 2.0, first_days(STEPS)), atol=2e-6)


@pytest.mark.parametrize("steps", [STEPS, ("",)])
@pytest.mark.parametrize("hidden", [float("nan"), float("inf"), 1e30, -7.0])
def test_hidden_values_have_no_influence(steps: tuple[str, ...], hidden: float) -> None:
    layer = Normalise(make_spec("terrain" if steps == ("",) else "radar", 2, steps))
    images = torch.randn(6, len(steps), 2, 3, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(6, len(steps), 3, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    other = torch.where(valid.unsqueeze(2), images, hidden)
    assert torch.equal(layer(images, valid), layer(other, valid))


def test_observed_steps_are_kept_bit_for_bit() -> None:
    layer = Normalise(make_spec("radar", 2, STEPS))
    images = torch.randn(6, 5, 2, 3, 3)
    valid = torch.rand(6, 5, 3, 3) < 0.5
    kept = valid.unsqueeze(2).expand_as(images)
    assert torch.equal(layer(images, valid)[kept], layer(images, torch.ones_like(valid))[kept])


def test_interpolates_in_days_not_in_steps() -> None:
    layer = Normalise(make_spec("radar", 1, ("2021-01-01", "2021-01-11", "2021-02-10"), mean=0.0, std=1.0))
    images = torch.tensor([0.0, 99.0, 40.0]).view(1, 3, 1, 1, 1)
    got = layer(images, torch.tensor([True, False, True]).view(1, 3, 1, 1))
    assert got.flatten().tolist() == [0.0, 10.0, 40.0]


def test_other_shape_is_named() -> None:
    with pytest.raises(MdicoError, match=r"radar: the model takes 6 steps x 2 bands, came 6 x 3"):
        Normalise(make_spec("radar", 2))(torch.zeros(1, 6, 3, 1, 1), torch.ones(1, 6, 1, 1, dtype=torch.bool))
