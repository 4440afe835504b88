"""Embeddings of training and held-out pixels in, how far a new pixel lies from what was learned out.

The idea is the area of applicability of Meyer and Pebesma (Methods in Ecology and Evolution, 2021,
doi:10.1111/2041-210X.13650): a prediction is trusted where the distance to the nearest training point is no larger than
the distances that cross-validation met. Ours differs in three ways: the distance is taken in the embedding the model
classifies with, standardised, instead of in predictors weighted by importance; the training points are stood for by
centres found by k-means, so that a bundle stays small; and the threshold comes from the held-out validation windows
instead of from cross-validation folds. The threshold itself is theirs: the largest distance that is no outlier, Q75 +
1.5 IQR.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from sklearn.cluster import KMeans
from torch import Tensor, nn

from mdico_cube.batch import Batch, labelled
from mdico_cube.errors import MdicoError

MOST = 20_000
"""Pixels of each sensor that are looked at."""
_PER_CLASS = 16
_MOST_CENTRES = 256
_TINY = 1e-6
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What the training data look like in the embedding of one sensor's model."""

    mean: Tensor
    """(d,)"""
    std: Tensor
    """(d,), never zero."""
    centres: Tensor
    """(k, d) standardised."""
    threshold: float
    """Distance that held-out pixels of the training region still have."""

    def distance(self, embeddings: Tensor) -> Tensor:
        """(N, d) to (N,): distance to the nearest centre in units of the threshold; above 1 = unlike the training data.

        Each row is taken by itself: its result does not depend on the others.
        """
        rows = (embeddings.float() - self.mean) / self.std
        nearest = torch.cdist(rows, self.centres, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        return nearest / self.threshold

    def to(self, device: torch.device) -> Reference:
        """The same on another device."""
        return Reference(self.mean.to(device), self.std.to(device), self.centres.to(device), self.threshold)

    def pack(self) -> bytes:
        """As safetensors."""
        parts = {"mean": self.mean, "std": self.std, "centres": self.centres}
        return safetensors.torch.save({**parts, "threshold": torch.tensor([self.threshold], dtype=torch.float64)})

    @classmethod
    def unpack(cls, data: bytes) -> Reference:
        """The inverse of pack.

        Raises:
            MdicoError: the bytes are damaged.
        """
        try:
            parts = safetensors.torch.load(data)
            return cls(parts["mean"], parts["std"], parts["centres"], float(parts["threshold"][0]))
        except (SafetensorError, KeyError) as error:
            raise MdicoError(f"bundle: its reference of training data is damaged ({error}). Train it again.") from error


def measure(train: _Floats, held_out: _Floats, classes: int, seed: int = 0) -> Reference:
    """The reference of training embeddings (N, d), its threshold from held-out ones (M, d).

    Args:
        train: of training pixels, N at least 2.
        held_out: of pixels that were not trained on, M at least 1.
        classes: sets the number of centres: 16 each, at most 256 and no more than a tenth of N.
        seed: of the k-means.
    """
    mean, std = train.mean(axis=0), np.maximum(train.std(axis=0), _TINY)
    count = max(1, min(_PER_CLASS * classes, _MOST_CENTRES, len(train) // 10))
    centres = KMeans(count, n_init=1, random_state=seed).fit((train - mean) / std).cluster_centers_
    first, second, third = (torch.from_numpy(np.array(part, dtype=np.float32)) for part in (mean, std, centres))
    plain = Reference(first, second, third, 1.0)
    distances = plain.distance(torch.from_numpy(held_out)).numpy().astype(np.float64)
    low, high = np.quantile(distances, [0.25, 0.75])
    usual = distances[distances <= high + 1.5 * (high - low)]
    return Reference(plain.mean, plain.std, plain.centres, max(float(usual.max()), _TINY))


def beheaded(model: nn.Module) -> nn.Module | None:
    """A copy of a sensor's model that gives the embedding its head reads, (B, d, H, W); None where it has no head."""
    name = head_name(model)
    if name is None:
        return None
    copy = deepcopy(model)
    copy.set_submodule(name, nn.Identity())
    return copy.eval().requires_grad_(False)


def head_name(model: nn.Module) -> str | None:
    """Name of the module that turns a model's embedding into its outputs."""
    return next((name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] == "head"), None)


def references(
    models: Mapping[str, nn.Module], train: Iterable[Batch], held_out: Iterable[Batch], classes: int, seed: int = 0
) -> dict[str, Reference]:
    """The reference of every sensor's model that has an embedding per pixel, from labelled pixels it observed.

    Args:
        models: sensor -> model of images and valid to logits.
        train: batches it was trained on, shuffled, without augmentation.
        held_out: batches it was not trained on.
        classes: of the legend, or parts of a value's range.
        seed: of the k-means.
    """
    bodies = {name: body for name, model in models.items() if (body := beheaded(model)) is not None}
    known, new = (_embeddings(bodies, batches) for batches in (train, held_out))
    able = [name for name in bodies if len(known[name]) > 1 and len(new[name])]
    return {name: measure(known[name], new[name], classes, seed) for name in able}


def _embeddings(bodies: Mapping[str, nn.Module], batches: Iterable[Batch]) -> dict[str, _Floats]:
    """Sensor -> (N, d) of labelled and observed pixels, at most MOST of each."""
    found: dict[str, list[_Floats]] = {name: [] for name in bodies}
    counts = dict.fromkeys(bodies, 0)
    for batch in batches:
        ready = batch.on_one_grid()
        for name, body in bodies.items():
            if counts[name] < MOST and ready.target is not None:
                with torch.inference_mode():
                    embedding = body(ready.images[name], ready.valid[name])  # (B, d, H, W)
                if embedding.shape[-2:] != ready.target.shape[-2:]:
                    continue
                chosen = labelled(ready.target) & ready.valid[name].any(dim=1)
                rows = embedding.movedim(1, -1)[chosen].float().numpy()
                found[name].append(rows[: MOST - counts[name]])
                counts[name] += len(found[name][-1])
        if all(count >= MOST for count in counts.values()):
            break
    return {name: np.concatenate(rows) if rows else np.zeros((0, 1), np.float32) for name, rows in found.items()}
