"""The order of an epoch: every window once, and the same whoever reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.patches.order import epoch_pools

groups = st.lists(st.integers(0, 9), max_size=120).map(lambda found: np.array(found, dtype=np.int64))


@given(
    groups,
    st.integers(2, 40),
    st.integers(1, 90),
    st.none() | st.integers(0, 5),
    st.integers(0, 3),
    st.none() | st.integers(1, 12),
)
def test_every_window_comes_exactly_once(
    group: np.ndarray, batch: int, buffer: int, seed: int | None, epoch: int, chunks: int | None
) -> None:
    pools = epoch_pools(group, batch, buffer, seed, epoch, chunks)
    index = np.concatenate([pool.index for pool in pools]) if pools else np.zeros(0, int)
    assert sorted(index.tolist()) == list(range(len(group)))
    sizes = [stop - start for pool in pools for start, stop in zip(pool.cuts[:-1], pool.cuts[1:], strict=True)]
    assert len(sizes) == -(-len(group) // batch)
    assert all(0 < size <= batch for size in sizes)
    assert all(len(pool.index) == pool.cuts[-1] <= max(buffer, batch) for pool in pools)
    if seed is None:
        assert index.tolist() == list(range(len(group)))
    elif sizes:
        assert max(sizes) - min(sizes) <= 1
        assert len({pool.seed for pool in pools}) == len(pools)


@given(groups, st.integers(0, 5), st.integers(0, 3))
def test_a_chunk_is_read_by_one_pool_or_by_two_neighbours(group: np.ndarray, seed: int, epoch: int) -> None:
    pools = epoch_pools(group, 8, 32, seed, epoch)
    for chunk in np.unique(group):
        readers = [number for number, pool in enumerate(pools) if (group[pool.index] == chunk).any()]
        assert readers == list(range(readers[0], readers[-1] + 1))
        assert len(readers) <= 2 + (group == chunk).sum() // 24


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 1}])
def test_the_order_depends_on_seed_and_epoch_alone(change: dict[str, int]) -> None:
    group = np.arange(300) // 10

    def order(seed: int = 3, epoch: int = 0) -> list[int]:
        return np.concatenate([pool.index for pool in epoch_pools(group, 16, 64, seed, epoch)]).tolist()

    assert order() == order()
    assert order(**change) != order()


@pytest.mark.parametrize("per_chunk", [1, 4, 32])
@pytest.mark.parametrize("chunks", [3, 10, 64])
def test_no_more_chunks_are_decoded_for_a_pool_than_was_said(per_chunk: int, chunks: int) -> None:
    """But for those of one batch, and one that is shared with the pool before."""
    group, batch = np.arange(6400) // per_chunk, 20
    pools = epoch_pools(group, batch, 6400, seed=0, chunks=chunks)
    most = max(len(np.unique(group[pool.index])) for pool in pools)
    assert most <= max(chunks, -(-batch // per_chunk)) + 1
    assert len(pools) < 6400 // batch or chunks < 2 * batch / per_chunk, "pools are as large as that allows"


def test_windows_of_a_batch_come_from_many_chunks() -> None:
    """The buffer is what mixes: with eight chunks in it, a batch holds windows of most of them."""
    group = np.arange(6400) // 100
    pools = epoch_pools(group, 100, 800, seed=0)
    kinds = [
        len(np.unique(group[pool.index[start:stop]]))
        for pool in pools
        for start, stop in zip(pool.cuts[:-1], pool.cuts[1:], strict=True)
    ]
    assert min(kinds) >= 6
