"""Scores of two methods over the same folds and seeds in, their mean difference and how far chance goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mdico_cube.errors import MdicoError


@dataclass(frozen=True)
class Difference:
    """First minus second, paired."""

    mean: float
    error: float
    """Standard error over the pairs as if they were independent: std / sqrt(n)."""
    p: float
    """Two-sided, paired t-test."""
    p_corrected: float
    """Two-sided, corrected resampled t-test: training sets of folds overlap, so the pairs are no independent draws."""
    wins: int
    count: int

    @property
    def errors_away(self) -> float:
        """Mean in standard errors; 0 where nothing differs."""
        return _ratio(self.mean, self.error)


def paired(first: Sequence[float], second: Sequence[float], test_share: float) -> Difference:
    """Compare two methods over the same folds and seeds.

    The corrected test (Nadeau and Bengio, Machine Learning 52, 2003) widens the variance of the mean from s^2 / n to
    s^2 (1 / n + n_test / n_train).

    Args:
        first: (n,) scores, n >= 2.
        second: (n,) scores of the same folds and seeds, in the same order.
        test_share: n_test / n_train, of one fold.

    Raises:
        MdicoError: scores of different number, or fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise MdicoError(f"a paired test needs two or more equal pairs, came {len(first)} and {len(second)} scores.")
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    n, mean, spread = len(gaps), float(gaps.mean()), float(gaps.std(ddof=1))
    error, wide = spread / math.sqrt(n), spread * math.sqrt(1 / n + test_share)
    return Difference(mean, error, _two_sided(mean, error, n), _two_sided(mean, wide, n), int((gaps > 0).sum()), n)


def _two_sided(mean: float, error: float, n: int) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))


def _ratio(mean: float, error: float) -> float:
    if error == 0:
        return 0.0 if mean == 0 else math.copysign(math.inf, mean)
    return mean / error
