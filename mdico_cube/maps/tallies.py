"""Blocks of a map and what is true there in, sums that add up over blocks out, and from them the figures of the map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mdico_cube.spec import Bools, Floats

Array = npt.NDArray[Any]
BINS = 40
"""Bins along each axis of the counts of values."""


@dataclass
class ValueTally:
    """Sums over the pixels of a map of a value whose true value is known."""

    low: float
    """Of the bins in which values are counted."""
    high: float
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))
    """Number; truth, its square, error, its square and its size, counted from `low` in units of the bins' span."""
    unpredicted: int = 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((BINS, BINS), np.int64))
    """[bin of the prediction, bin of the truth]; what lies beyond falls into the outermost."""

    def add(self, truth: Floats, predicted: Floats) -> None:
        """Add pixels (N,): true values, and predicted ones, NaN = none."""
        there = ~np.isnan(predicted)
        self.unpredicted += int((~there).sum())
        span = self.high - self.low or 1.0
        y, p = ((each[there].astype(np.float64) - self.low) / span for each in (truth, predicted))
        error = p - y
        self.sums += [len(y), y.sum(), (y**2).sum(), error.sum(), (error**2).sum(), np.abs(error).sum()]
        rows, columns = (np.clip((each * BINS).astype(np.int64), 0, BINS - 1) for each in (p, y))
        np.add.at(self.counts, (rows, columns), 1)

    @property
    def pixels(self) -> int:
        """Whose true value is known."""
        return int(self.sums[0]) + self.unpredicted

    @property
    def figures(self) -> dict[str, float]:
        """R2 = 1 - SSE / SST, RMSE, rRMSE = RMSE / mean of the truth, MAE, bias = mean of prediction less truth.

        Over the pixels that have a prediction; those without are told beside it. All but R2 and rRMSE in the unit.
        """
        n, y, squares, error, errors, sizes = self.sums
        if not n:
            return dict.fromkeys(("r2", "rmse", "rrmse", "mae", "bias"), float("nan"))
        span, mean = self.high - self.low or 1.0, float(y / n)
        total = float(squares - n * mean**2)
        rmse, true_mean = float(np.sqrt(errors / n)) * span, self.low + mean * span
        return {
            "r2": 1 - float(errors) / total if total > 0 else float("nan"),
            "rmse": rmse,
            "rrmse": rmse / abs(true_mean) if true_mean else float("nan"),
            "mae": float(sizes / n) * span,
            "bias": float(error / n) * span,
        }


@dataclass
class LabelTally:
    """Counts over the pixels of a map of labels side by side whose true labels are known."""

    counts: npt.NDArray[np.int64]
    """(K, 4) per label: rightly there, wrongly there, wrongly absent, rightly absent."""
    exact: int = 0
    """Pixels with every label right."""
    pixels: int = 0
    unpredicted: int = 0
    """Pixels without a prediction: all their labels count as absent, and none of them as exact."""

    @classmethod
    def of(cls, labels: int) -> LabelTally:
        """Nothing counted yet."""
        return cls(np.zeros((labels, 4), np.int64))

    def add(self, truth: Bools, predicted: Bools, there: Bools) -> None:
        """Add pixels: (N, K) true and predicted labels, (N,) True = there is a prediction."""
        said = predicted & there[:, None]
        for place, both in enumerate((truth & said, ~truth & said, truth & ~said, ~truth & ~said)):
            self.counts[:, place] += both.sum(axis=0)
        self.exact += int(((truth == said).all(axis=1) & there).sum())
        self.pixels += len(truth)
        self.unpredicted += int((~there).sum())

    @property
    def each(self) -> list[dict[str, float]]:
        """F1, precision, recall and support of each label."""
        found = []
        for right, wrong, missed, _ in self.counts:
            precision, recall = _share(right, right + wrong), _share(right, right + missed)
            f1 = _share(2 * right, 2 * right + wrong + missed)
            found.append({"f1": f1, "precision": precision, "recall": recall, "support": int(right + missed)})
        return found

    @property
    def figures(self) -> dict[str, float]:
        """Macro F1 over the labels that occur, micro F1, share of right decisions, share of pixels all right."""
        right, wrong, missed, absent = self.counts.sum(axis=0)
        present = [one["f1"] for one in self.each if one["support"]]
        return {
            "f1_macro": float(np.mean(present)) if present else 0.0,
            "f1_micro": _share(2 * right, 2 * right + wrong + missed),
            "accuracy": _share(right + absent, right + wrong + missed + absent),
            "exact": _share(self.exact, self.pixels),
        }


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def labels_around(label: npt.NDArray[np.int16], classes: int, share: float | None, patch: int) -> tuple[Bools, Bools]:
    """The labels of each pixel, as `goal_of` says them of a patch whose centre it is.

    Args:
        label: (h, w) class index, -1 = unlabelled.
        classes: K.
        share: a class is there where more than this share of the patch's labelled pixels carry it; None = the labels
            of a pixel are its own class.
        patch: side of the patch; its centre is pixel patch // 2.

    Returns:
        (h, w, K) True = there, (h, w) True = known.
    """
    own = np.stack([label == k for k in range(classes)], axis=-1)
    if share is None:
        return own, label >= 0
    counts = np.stack([_summed(own[..., k], patch) for k in range(classes)], axis=-1)
    known = counts.sum(axis=-1)
    return counts > share * known[..., None], known > 0


def _summed(there: Bools, side: int) -> npt.NDArray[np.int64]:
    """Count over the square of this side around each pixel, (side // 2) before it and the rest from it on."""
    found = there.astype(np.int64)
    for axis in (0, 1):
        found = ndimage.correlate1d(found, np.ones(side, np.int64), axis=axis, mode="constant", origin=0)
    return found
