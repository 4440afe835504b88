"""Observations of one time step in, one value per pixel out: pure kernels on arrays, missing values never counted."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from mdico_cube.recipe import Reducer
from mdico_cube.spec import Array, Bools

_STRIP = 1 << 16  # values per strip of the median: small enough to stay in the processor's cache


def mosaic(work: list[Array], observed: list[Bools]) -> tuple[Array, Bools]:
    """Scenes of one overpass, each (C, h, w) with (h, w), to one: the first scene that observed a pixel gives it."""
    if len(work) == 1:
        return work[0], observed[0]
    values, seen = work[0].copy(), observed[0].copy()
    for scene, mask in zip(work[1:], observed[1:], strict=True):
        new = mask & ~seen
        np.copyto(values, scene, where=new)
        seen |= new
    return values, seen


def reduce_step(work: list[Array], observed: list[Bools], reducer: Reducer) -> tuple[Array, Bools]:
    """Overpasses of one step, each (C, h, w) with (h, w), to one composite (C, h, w) and (h, w) where any was seen.

    "count" gives the number of overpasses that saw a pixel instead, as (1, h, w).
    """
    if reducer == "count":
        count: Array = np.stack(observed).sum(axis=0, dtype=np.uint16)
        return count[None], np.asarray(count > 0)
    if len(work) == 1 or reducer == "first":
        return mosaic(work, observed)
    if reducer == "mean":
        return _mean(work, observed)
    if reducer == "medoid":
        return _medoid(work, observed)
    return _median(work, observed)


def _mean(work: list[Array], observed: list[Bools]) -> tuple[Array, Bools]:
    total = np.zeros(work[0].shape, dtype=np.float64)
    count = np.zeros(observed[0].shape, dtype=np.int32)
    for scene, mask in zip(work, observed, strict=True):
        np.add(total, scene, out=total, where=mask)
        count += mask
    mean = total / np.maximum(count, 1)
    integer = np.issubdtype(work[0].dtype, np.integer)
    return (np.rint(mean) if integer else mean).astype(work[0].dtype), count > 0


def _medoid(work: list[Array], observed: list[Bools]) -> tuple[Array, Bools]:
    """The overpass nearest to all others: smallest sum of Euclidean distances over the bands; of equals the first.

    All bands of a pixel come from one overpass, so that their ratios are ones that were seen.
    """
    n, (_, h, w) = len(work), work[0].shape
    out = np.zeros_like(work[0])
    rows = max(1, _STRIP // max(1, w) // 4)
    for start in range(0, h, rows):
        part = slice(start, start + rows)
        seen = [mask[part] for mask in observed]
        total = np.zeros((n, *seen[0].shape), dtype=np.float32)
        for i, j in combinations(range(n), 2):
            distance = _distance(work[i][:, part], work[j][:, part])
            distance *= seen[i] & seen[j]
            total[i] += distance
            total[j] += distance
        for i in range(n):
            np.copyto(total[i], np.inf, where=~seen[i])
        nearest = total.argmin(axis=0)
        for i in range(n):
            np.copyto(out[:, part], work[i][:, part], where=seen[i] & (nearest == i))
    return out, np.asarray(np.stack(observed).any(axis=0))


def _distance(one: Array, other: Array) -> Array:
    """Euclidean distance over the first axis of (C, r, w), as float32."""
    total = np.zeros(one.shape[1:], dtype=np.float32)
    for a, b in zip(one, other, strict=True):
        step = np.subtract(a, b, dtype=np.float32)
        step *= step
        total += step
    return np.sqrt(total, out=total)


def _median(work: list[Array], observed: list[Bools]) -> tuple[Array, Bools]:
    """Median over N scenes, each (C, h, w), where their (h, w) are True.

    Missing values are replaced by the largest one, a sorting network of whole-array minima and maxima puts them last,
    and the middle of what was observed is picked per pixel. An even count gives the mean of the two middle values,
    rounded half up for counts.
    """
    n, (c, h, w), dtype = len(work), work[0].shape, work[0].dtype
    integer = np.issubdtype(dtype, np.integer)
    top = dtype.type(np.iinfo(dtype).max if integer else np.inf)
    count = np.zeros((h, w), dtype=np.int16)
    for mask in observed:
        count += mask
    out = np.empty((c, h, w), dtype=dtype)
    rows = max(1, _STRIP // max(1, w))
    for start in range(0, h, rows):
        part = slice(start, start + rows)
        hidden = [~mask[part] for mask in observed]
        if dtype == np.uint16:
            hidden = [mask * top for mask in hidden]  # or-ing these in hides faster than choosing does
        ranks = [[rank == k for k in range(1, n // 2 + 1)] for rank in ((count[part] - 1) // 2, count[part] // 2)]
        for band in range(c):
            lanes = [_hide(work[i][band, part], hidden[i], top) for i in range(n)]
            _sort_lanes(lanes)
            low, high = (_pick(lanes, rank) for rank in ranks)
            if integer:
                out[band, part] = _halfway(low, high)
            else:
                out[band, part] = low / 2 + high / 2
    seen_any = count > 0
    np.copyto(out, 0, where=~seen_any)
    return out, seen_any


def _hide(values: Array, hidden: Array, top: Any) -> Array:
    lane: Array = values | hidden if hidden.dtype == values.dtype else np.where(hidden, top, values)
    return lane


def _halfway(low: Array, high: Array) -> Array:
    """Mean of two counts, low <= high, rounded half up, without leaving their type."""
    step = high - low
    middle: Array = low + (step >> 1) + (step & 1)
    return middle


def _pick(lanes: list[Array], ranks: list[Bools]) -> Array:
    """Lane k + 1 where the k-th mask is True, else the first."""
    chosen = lanes[0].copy()
    for lane, here in zip(lanes[1:], ranks, strict=False):
        np.copyto(chosen, lane, where=here)
    return chosen


def _sort_lanes(lanes: list[Array]) -> None:
    spare = np.empty_like(lanes[0])
    for i, j in _lower_half(len(lanes)):
        np.minimum(lanes[i], lanes[j], out=spare)
        np.maximum(lanes[i], lanes[j], out=lanes[j])
        lanes[i], spare = spare, lanes[i]


@lru_cache
def _lower_half(n: int) -> tuple[tuple[int, int], ...]:
    """The comparators that the lanes up to the middle depend on: a median needs no others."""
    needed, kept = set(range(n // 2 + 1)), []
    for i, j in reversed(_network(n)):
        if i in needed or j in needed:
            needed |= {i, j}
            kept.append((i, j))
    return tuple(reversed(kept))


@lru_cache
def _network(n: int) -> tuple[tuple[int, int], ...]:
    """Comparators of an odd-even merge sort for n lanes (K. E. Batcher, 1968)."""
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return tuple(pairs)
