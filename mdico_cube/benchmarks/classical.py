"""Gap-filled series of some sensors in, the predictions of a random forest or of gradient boosting out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

CLASSICAL: dict[str, Callable[[int], Any]] = {
    "random-forest": lambda seed: RandomForestClassifier(300, class_weight="balanced", random_state=seed),
    "gradient-boosting": lambda seed: HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, max_bins=32, class_weight="balanced", early_stopping=False, random_state=seed
    ),
}
"""Name -> an unfitted classifier of scikit-learn, from a seed; the boosting is sized for hundreds of pixels."""


def predict_classical(
    name: str,
    seed: int,
    train: npt.NDArray[np.float32],
    target: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
) -> npt.NDArray[np.int64]:
    """Class index of each test row, from features (n, F) and class indices (n,) of the training rows."""
    guess: npt.NDArray[np.int64] = CLASSICAL[name](seed).fit(train, target).predict(test)
    return guess
