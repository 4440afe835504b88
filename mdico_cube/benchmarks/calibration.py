"""Probabilities and the truth in, how far confidence and accuracy lie apart out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mdico_cube.benchmarks.folds import Rows

BINS = 15


def calibration_error(probabilities: npt.NDArray[np.floating], truth: Rows, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al., ICML 2017): mean |accuracy - confidence| over equal bins of confidence.

    Args:
        probabilities: (N, K), rows that sum to 1.
        truth: (N,) class index.
        bins: of equal width over 0..1; each counts by its share of the rows.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, right - confidence, minlength=bins)  # sum over the bin of (right - confidence)
    return float(np.abs(gap).sum() / len(truth))
