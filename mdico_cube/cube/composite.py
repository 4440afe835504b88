"""Observations of one time step in, one value per pixel out: pure kernels on arrays, missing values never counted."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np

from mdico_cube.recipe import Reducer
from mdico_cube.spec import Array, Bools

Wanted = Literal["both", "min", "max"]
"""Results of a comparator that somebody looks at."""
_STRIP = 1 << 15  # values per strip of a band: small enough for a strip of every scene to stay in the cache


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
    rows = max(1, _STRIP // max(1, w) // 2)
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
    """Median over N scenes, each (C, h, w), where their (h, w) are True; nothing that means anything elsewhere.

    An even count gives the mean of the two middle values, rounded half up for counts.

    What is missing at a pixel is replaced by the largest value and the smallest by turns. So the middle of all N is the
    middle of what was observed, and a network of whole-array minima and maxima finds it without a look at any pixel.
    """
    (c, h, w), dtype = work[0].shape, work[0].dtype
    out = np.empty((c, h, w), dtype=dtype)
    rows = max(1, _STRIP // max(1, w))
    for start in range(0, h, rows):
        part = slice(start, start + rows)
        there = [i for i, mask in enumerate(observed) if mask[part].any()]
        if not there:
            out[:, part] = 0
            continue
        fill = _Fill([observed[i][part] for i in there], dtype)
        lanes = [np.empty(fill.even.shape, dtype) for _ in range(len(there) + 1)]
        for band in range(c):
            for place, i in enumerate(there):
                fill.put(work[i][band, part], place, lanes[place])
            _middle(lanes, fill.even, out[band, part])
    return out, np.asarray(np.logical_or.reduce(observed))


class _Fill:
    """What stands for the missing values of N scenes over a strip: the largest value first, then by turns."""

    def __init__(self, observed: list[Bools], dtype: np.dtype[Any]) -> None:
        self._bits = np.dtype(f"u{dtype.itemsize}")
        known = np.iinfo(dtype) if dtype.kind in "iu" else None
        low, top = (-np.inf, np.inf) if known is None else (known.min, known.max)
        lowest, largest, every = (
            np.array([value], kind).view(self._bits)[0]
            for value, kind in ((low, dtype), (top, dtype), (np.iinfo(self._bits).max, self._bits))
        )
        odd = np.zeros_like(observed[0])
        self._keep: list[Array] = []
        self._set: list[Array] = []
        for mask in observed:
            up, down = ~(mask | odd), odd & ~mask
            odd = odd ^ ~mask
            self._keep.append(mask * every)
            self._set.append(up * largest | down * lowest)
        self.even: Bools = odd if len(observed) % 2 else ~odd
        """True where an even number was observed."""

    def put(self, values: Array, scene: int, out: Array) -> None:
        """The values of one scene with its missing ones replaced: bits kept or not and set, faster than choosing."""
        bits = out.view(self._bits)
        np.bitwise_and(values.view(self._bits), self._keep[scene], out=bits)
        np.bitwise_or(bits, self._set[scene], out=bits)


def _middle(lanes: list[Array], even: Bools, out: Array) -> None:
    """The middle of all lanes but the last, which is room to work in: of two where `even`, of one elsewhere."""
    n = len(lanes) - 1
    if n == 1:
        np.copyto(out, lanes[0])
        return
    for i, j, wanted in _to_the_middle(n):
        if wanted == "min":
            np.minimum(lanes[i], lanes[j], out=lanes[i])
        elif wanted == "max":
            np.maximum(lanes[i], lanes[j], out=lanes[j])
        else:
            np.minimum(lanes[i], lanes[j], out=lanes[-1])
            np.maximum(lanes[i], lanes[j], out=lanes[j])
            lanes[i], lanes[-1] = lanes[-1], lanes[i]
    low, high = lanes[n // 2 - 1], lanes[n // 2]
    if out.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # nothing observed: infinities of both signs
            np.copyto(out, low / 2 + high / 2)
        np.copyto(out, high if n % 2 else low, where=~even)
        return
    step = high - low  # never leaves the type of counts
    step *= even
    half = step >> 1
    if n % 2:
        np.subtract(high, half, out=out)
    else:
        step &= 1
        half += step
        np.add(low, half, out=out)


@lru_cache
def _to_the_middle(n: int) -> tuple[tuple[int, int, Wanted], ...]:
    """The comparators that lanes n // 2 - 1 and n // 2 depend on, and which of their two results they depend on."""
    needed = {n // 2 - 1, n // 2}
    kept: list[tuple[int, int, Wanted]] = []
    for i, j in reversed(_network(n)):
        if i in needed or j in needed:
            kept.append((i, j, "both" if {i, j} <= needed else "min" if i in needed else "max"))
            needed |= {i, j}
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
