"""Gap-filled series of some sensors in, the probabilities of a random forest or of gradient boosting out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from mdico_cube.spec import Array, Floats

_MANY = 1500  # rows from which the boosting may be as large as it likes
CLASSICAL: dict[str, Callable[[int, int], Any]] = {
    "random-forest": lambda seed, rows: RandomForestClassifier(300, class_weight="balanced", random_state=seed),
    "gradient-boosting": lambda seed, rows: HistGradientBoostingClassifier(
        max_iter=40 if rows < _MANY else 150,
        max_leaf_nodes=8 if rows < _MANY else 31,
        max_bins=32 if rows < _MANY else 128,
        class_weight="balanced",
        early_stopping=False,
        random_state=seed,
    ),
}
"""Name -> an unfitted classifier of scikit-learn, from a seed and the number of training rows."""


FORESTS: dict[str, Callable[[int, int], Any]] = {
    "random-forest": lambda seed, rows: RandomForestRegressor(300, random_state=seed),
    "gradient-boosting": lambda seed, rows: HistGradientBoostingRegressor(
        max_iter=60 if rows < _MANY else 200, max_leaf_nodes=8 if rows < _MANY else 31, random_state=seed
    ),
}
"""The same for a value."""


def fit_values(name: str, seed: int, train: Floats, target: Floats, test: Floats) -> Floats:
    """Values (n,) of the test rows, from features (n, F) and values (n,) of the training rows."""
    return np.asarray(FORESTS[name](seed, len(train)).fit(train, target).predict(test), dtype=np.float32)


def fit_labels(name: str, seed: int, train: Floats, target: Array, test: Floats, labels: int) -> Array:
    """Labels (n,) as bits of the test rows, from features (n, F) and bits (n,): one model per label, at 0.5."""
    bits = np.zeros(len(test), dtype=np.int64)
    for k in range(labels):
        there = (target >> k) & 1
        bits |= (fit_classical(name, seed, train, there, test, 2)[:, 1] > 0.5).astype(np.int64) << k
    return bits


def fit_classical(
    name: str,
    seed: int,
    train: npt.NDArray[np.float32],
    target: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
    classes: int,
) -> npt.NDArray[np.float64]:
    """Probabilities (n, K) of the test rows, from features (n, F) and class indices (n,) of the training rows.

    A class that no training row has gets the probability 0.
    """
    found = np.zeros((len(test), classes))
    if len(known := np.unique(target)) == 1:  # such as a label that every row has: boosting would not learn it
        found[:, known] = 1.0
        return found
    model = CLASSICAL[name](seed, len(train)).fit(train, target)
    found[:, model.classes_] = model.predict_proba(test)
    return found
