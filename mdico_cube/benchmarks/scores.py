"""What is true and what was predicted in, the figures of a task out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, r2_score, recall_score

from mdico_cube.spec import Array

METRICS = {
    "classes": {
        **{"f1_macro": "Macro F1", "accuracy": "Overall accuracy", "f1_weighted": "Weighted F1"},
        **{"recall_macro": "Macro recall", "kappa": "Cohen's kappa"},
    },
    "multilabel": {"f1_macro": "Macro F1", "f1_weighted": "Weighted F1", "f1_micro": "Micro F1"},
    "regression": {"r2": "R2", "rmse": "RMSE", "rrmse": "RMSE / mean", "mae": "MAE", "bias": "Bias"},
}
"""Kind of task -> figure -> what a table calls it, the most telling one first."""


def figures_of(kind: str, truth: Array, guess: Array, classes: int) -> dict[str, float]:
    """Every figure of a task; of a macro mean, over the classes or labels that stand in the truth.

    Args:
        kind: of task.
        truth: (n,) class index, labels as bits of an integer, or value.
        guess: (n,) the same.
        classes: K.
    """
    if kind == "regression":
        return _value_figures(truth.astype(np.float64), guess.astype(np.float64))
    if kind == "multilabel":
        true, said = ((each[:, None] >> np.arange(classes)) & 1 for each in (truth, guess))
        known = np.flatnonzero(true.any(axis=0))
        return {f"f1_{way}": _f1(true, said, known, way) for way in ("macro", "weighted", "micro")}
    known = np.unique(truth)
    return {
        "f1_macro": _f1(truth, guess, known, "macro"),
        "accuracy": float(accuracy_score(truth, guess)),
        "f1_weighted": _f1(truth, guess, known, "weighted"),
        "recall_macro": float(recall_score(truth, guess, labels=known, average="macro", zero_division=0)),
        "kappa": 1.0 if len({*truth, *guess}) == 1 else float(cohen_kappa_score(truth, guess)),
    }


def _f1(truth: Array, guess: Array, known: Sequence[int] | Array, way: str) -> float:
    return float(f1_score(truth, guess, labels=known, average=way, zero_division=0))


def _value_figures(truth: Array, guess: Array) -> dict[str, float]:
    error = guess - truth
    rmse = float(np.sqrt((error**2).mean()))
    return {
        "r2": float(r2_score(truth, guess)),
        "rmse": rmse,
        "rrmse": rmse / float(np.abs(truth.mean())),
        "mae": float(np.abs(error).mean()),
        "bias": float(error.mean()),
    }
