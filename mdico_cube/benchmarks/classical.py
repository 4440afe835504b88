"""Gap-filled series of some sensors in, the probabilities of a random forest or of gradient boosting out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

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
    model = CLASSICAL[name](seed, len(train)).fit(train, target)
    found = np.zeros((len(test), classes))
    found[:, model.classes_] = model.predict_proba(test)
    return found
