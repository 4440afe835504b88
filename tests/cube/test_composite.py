"""Compositing kernels against numpy oracles."""

from __future__ import annotations

import warnings
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mdico_cube.cube.composite import _network, mosaic, reduce_step
from mdico_cube.recipe import Reducer

SHAPE = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


@st.composite
def stacks(draw, dtype):  # type: ignore[no-untyped-def]
    n, c, h, w = draw(SHAPE)
    limits = st.integers(0, 60000) if dtype == np.uint16 else st.floats(-30, 30, width=32)
    work = draw(arrays(dtype, (n, c, h, w), elements=limits))
    observed = draw(arrays(bool, (n, h, w)))
    return work, observed


@settings(max_examples=60, deadline=None)
@given(stacks(np.uint16))
def test_median_of_counts_is_numpys_rounded_half_up(case) -> None:  # type: ignore[no-untyped-def]
    work, observed = case
    got, seen = reduce_step(list(work), list(observed), "median")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = np.nanmedian(np.where(observed[:, None], work, np.nan), axis=0)
    assert (seen == observed.any(axis=0)).all()
    assert (got[:, seen] == np.floor(exact + 0.5)[:, seen]).all()


@settings(max_examples=60, deadline=None)
@given(stacks(np.float32))
def test_median_and_mean_of_floats(case) -> None:  # type: ignore[no-untyped-def]
    work, observed = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masked = np.where(observed[:, None], work, np.nan).astype(np.float64)
        wanted = {"median": np.nanmedian(masked, axis=0), "mean": np.nanmean(masked, axis=0)}
    for reducer, exact in wanted.items():
        got, seen = reduce_step(list(work), list(observed), reducer)  # type: ignore[arg-type]
        np.testing.assert_allclose(got[:, seen], exact[:, seen], rtol=1e-5, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.one_of(stacks(np.uint16), stacks(np.float32)))
def test_reducers_against_a_loop_over_pixels(case) -> None:  # type: ignore[no-untyped-def]
    """First, count and medoid as one would write them down; the medoid is as near to all others as any."""
    work, observed = case
    first, seen = reduce_step(list(work), list(observed), "first")
    count, counted = reduce_step(list(work), list(observed), "count")
    medoid, known = reduce_step(list(work), list(observed), "medoid")
    n, _, h, w = work.shape
    for y, x in np.ndindex(h, w):
        there = [i for i in range(n) if observed[i, y, x]]
        assert seen[y, x] == counted[y, x] == known[y, x] == bool(there)
        assert count[0, y, x] == len(there)
        if not there:
            continue
        assert (first[:, y, x] == work[there[0], :, y, x]).all()
        vectors = {i: work[i, :, y, x].astype(np.float64) for i in there}
        far = {i: sum(np.linalg.norm(vectors[i] - vectors[j]) for j in there) for i in there}
        chosen = [i for i in there if (work[i, :, y, x] == medoid[:, y, x]).all()]
        assert chosen
        assert min(far[i] for i in chosen) <= min(far.values()) * (1 + 1e-5) + 1e-6


def test_of_equally_near_observations_the_medoid_is_the_first() -> None:
    work = [np.full((2, 1, 1), value, np.uint16) for value in (30, 10, 20, 20)]
    observed = [np.ones((1, 1), bool)] * 4
    assert reduce_step(work[:2], observed[:2], "medoid")[0][0, 0, 0] == 30
    assert reduce_step(work, observed, "medoid")[0][0, 0, 0] == 20


@settings(max_examples=30, deadline=None)
@given(stacks(np.uint16), st.sampled_from(get_args(Reducer)))
def test_what_was_never_seen_is_not_observed_and_clouds_do_not_matter(case, reducer) -> None:  # type: ignore[no-untyped-def]
    work, observed = case
    got, seen = reduce_step(list(work), list(observed), reducer)
    assert (seen == observed.any(axis=0)).all()
    other = np.where(observed[:, None], work, 12345).astype(work.dtype)
    again, _ = reduce_step(list(other), list(observed), reducer)
    assert (got[:, seen] == again[:, seen]).all()


@settings(max_examples=40, deadline=None)
@given(stacks(np.uint16), st.randoms())
def test_the_order_of_scenes_does_not_matter_to_a_median(case, random) -> None:  # type: ignore[no-untyped-def]
    work, observed = case
    order = list(range(len(work)))
    random.shuffle(order)
    first, _ = reduce_step(list(work), list(observed), "median")
    second, _ = reduce_step([work[i] for i in order], [observed[i] for i in order], "median")
    seen = observed.any(axis=0)
    assert (first[:, seen] == second[:, seen]).all()


def test_mosaic_takes_the_first_observation() -> None:
    scenes = [np.full((1, 1, 3), value) for value in (1, 2, 3)]
    masks = [np.array([[True, False, False]]), np.array([[True, True, False]]), np.array([[True, True, False]])]
    values, seen = mosaic(scenes, masks)
    assert values[0, 0, :2].tolist() == [1, 2]
    assert seen.tolist() == [[True, True, False]]
    assert scenes[0][0, 0].tolist() == [1, 1, 1], "the input is left alone"


@pytest.mark.parametrize("n", range(1, 14))
def test_the_network_sorts_every_order_of_zeros_and_ones(n: int) -> None:
    """A comparator network that sorts all 0/1 inputs sorts everything (Knuth's 0-1 principle)."""
    cases = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    for i, j in _network(n):
        low, high = np.minimum(cases[:, i], cases[:, j]), np.maximum(cases[:, i], cases[:, j])
        cases[:, i], cases[:, j] = low, high
    assert (np.diff(cases, axis=1) >= 0).all()
