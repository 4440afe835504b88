"""A sensor's model and windows in, its embeddings by space out; embeddings of all sensors in, what they tell out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from mdico_cube.colearn.mdico import Spaces
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Floats

FOLDS = 5
WHOLE = "embedding"
"""Name of the one space of a method that does not part them."""


def embed_centres(path: nn.Module, images: Tensor, valid: Tensor) -> dict[str, Floats]:
    """Space -> (B, d) embeddings of the windows' centre pixels.

    Args:
        path: one sensor's model.
        images: (B, T, C, H, W) in physical units.
        valid: (B, T, H, W), True = observed.

    Raises:
        MdicoError: a model that gives no embedding.
    """
    embed = getattr(path, "embed", None)
    if not callable(embed):
        raise MdicoError(f"{type(path).__name__} gives no embedding to look at. Analyse another method.")
    with torch.inference_mode():
        found = embed(images, valid)
    spaces = found._asdict() if isinstance(found, Spaces) else {WHOLE: found}
    row, column = images.shape[-2] // 2, images.shape[-1] // 2
    return {name: z[:, :, row, column].float().numpy() for name, z in spaces.items()}


@dataclass(frozen=True)
class SpaceScores:
    """What one space holds, told by linear probes on rows they have not seen."""

    modality: float
    """Balanced accuracy of telling which sensor an embedding came from; 1 / M where the space does not say."""
    label: float
    """Balanced accuracy of telling the class, one probe for all sensors; 1 / K where the space does not say."""
    agreement: float
    """Mean cosine of two sensors at the same place minus that at different places; 0 where they have nothing shared."""


def score_space(vectors: dict[str, Floats], labels: npt.NDArray[np.int64], seed: int = 0) -> SpaceScores:
    """Probe one space.

    A place is on the same side of every split in all its sensors, so that no probe knows a place from another sensor.

    Args:
        vectors: modality -> (N, d), the same places in the same order.
        labels: (N,) class index.
        seed: of the splits.

    Raises:
        MdicoError: fewer than two modalities, or places too few to split.
    """
    count = len(labels)
    if len(vectors) < 2 or count < 2 * FOLDS or len(np.unique(labels)) < 2:
        raise MdicoError(
            f"spaces are compared over two or more sensors, {2 * FOLDS} places and two classes; came {len(vectors)} "
            f"sensors, {count} places and {len(np.unique(labels))} classes."
        )
    stacked = np.concatenate(list(vectors.values()))  # (M * N, d)
    sensor = np.repeat(np.arange(len(vectors)), count)
    fold = np.random.default_rng(seed).permutation(count) % FOLDS
    folds = np.tile(fold, len(vectors))
    return SpaceScores(
        _probe(stacked, sensor, folds), _probe(stacked, np.tile(labels, len(vectors)), folds), _agreement(vectors)
    )


def _probe(vectors: Floats, target: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]) -> float:
    guess = np.empty_like(target)
    for fold in range(FOLDS):
        test = folds == fold
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        guess[test] = probe.fit(vectors[~test], target[~test]).predict(vectors[test])
    return float(balanced_accuracy_score(target, guess))


def _agreement(vectors: dict[str, Floats]) -> float:
    """Mean over pairs of sensors."""
    unit = [z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-9) for z in vectors.values()]
    gaps = []
    for i, first in enumerate(unit):
        for second in unit[i + 1 :]:
            cosine = first @ second.T  # (N, N)
            same, n = float(np.trace(cosine)) / len(first), len(first)
            gaps.append(same - (float(cosine.sum()) - same * n) / (n * (n - 1)))
    return float(np.mean(gaps))
