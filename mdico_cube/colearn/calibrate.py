"""Logits and the truth of held-out pixels in, one temperature per model and how far confidence is off out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from mdico_cube.batch import Batches
from mdico_cube.colearn.method import CoLearner, PixelLinear, supervised
from mdico_cube.errors import MdicoError

BINS = 15
_BOUNDS = (0.05, 20.0)  # of a temperature: outside it the probabilities are all but certain or all but equal
_LEAST = 20  # pixels; fewer say nothing of how sure a model may be
_UNITS = 4  # blocks; fewer cannot tell what a temperature does elsewhere
_PARTS = 10  # of the blocks, each left out once
_PRIOR = 0.5  # standard deviation of log T before anything was seen: T lies between 0.4 and 2.7, most likely at 1


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to one sensor's model on held-out pixels."""

    temperature: float
    """Logits are divided by it: above 1 the model was too sure of itself; 1 where no other helped beyond doubt."""
    error: float
    """Expected calibration error as trained."""
    error_after: float
    """The same with the logits divided by the temperature."""
    pixels: int
    units: int
    """Blocks the pixels lie in."""

    @property
    def scores(self) -> dict[str, float]:
        """As a bundle keeps it."""
        return {
            "ece_as_trained": self.error,
            "ece": self.error_after,
            "pixels": float(self.pixels),
            "blocks": float(self.units),
        }


def calibration_error(probabilities: npt.NDArray[np.floating], truth: npt.NDArray[np.int64], bins: int = BINS) -> float:
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


def best_temperature(logits: Tensor, truth: Tensor, units: int | None = None) -> float:
    """The T that makes softmax(logits / T) most likely (Guo et al., ICML 2017); the classes stay what they are.

    Args:
        logits: (N, K).
        truth: (N,) class index.
        units: how many independent places the rows are from: log T is drawn towards 0 by a normal prior, the more the
            fewer they are. None takes no prior.
    """
    pull = 0.0 if units is None else 1 / (2 * _PRIOR**2 * units)

    def cost(log_t: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_t), truth)) + pull * log_t**2

    bounds = tuple(math.log(t) for t in _BOUNDS)
    return math.exp(float(minimize_scalar(cost, bounds=bounds, method="bounded").x))


def steady_temperature(logits: Tensor, truth: Tensor, units: npt.NDArray[np.int64]) -> float:
    """A temperature that holds beyond the blocks it was fitted on, or 1.

    Pixels of one block are alike, and held-out blocks are few: a temperature fitted to all of them can be off by half,
    and then makes a model that was nearly right worse elsewhere. So blocks are left out in turn, a tenth of them at a
    time, and judged with the temperature of the others. T is taken, from all blocks, only where that lowers the mean
    log-loss of the left-out blocks by more than one standard error over blocks, and their calibration error too.

    Args:
        logits: (N, K).
        truth: (N,) class index.
        units: (N,) number of the block each row lies in.
    """
    names = np.unique(units)
    if len(names) < _UNITS:
        return 1.0
    parts = np.array_split(np.random.default_rng(0).permutation(names), min(_PARTS, len(names)))
    cooled_logits, gain = logits.double().clone(), np.zeros(len(units))
    for part in parts:
        here = np.isin(units, part)
        rest = torch.from_numpy(~here)
        cooled_logits[~rest] /= best_temperature(logits[rest], truth[rest], len(names) - len(part))
    for sign, rows in ((1, logits.double()), (-1, cooled_logits)):
        gain += sign * F.cross_entropy(rows, truth, reduction="none").numpy()
    of_block = np.bincount(np.searchsorted(names, units), gain, len(names))
    labels = truth.numpy()
    before, after = (calibration_error(rows.softmax(1).numpy(), labels) for rows in (logits.double(), cooled_logits))
    if of_block.mean() <= of_block.std(ddof=1) / math.sqrt(len(names)) or after >= before:
        return 1.0
    return best_temperature(logits, truth, len(names))


def calibrate(
    model: CoLearner, batches: Batches, blocks: npt.NDArray[np.int64] | None = None
) -> dict[str, Calibration]:
    """One temperature for each modality's model, from labelled pixels that trained nothing; see `steady_temperature`.

    A modality that was seen at too few labelled pixels is left out; only classes are calibrated, not labels or values.

    Args:
        model: in eval mode.
        batches: labelled; windows of any size.
        blocks: (windows,) number of the block of each window, in the order of the batches; None = each by itself.
    """
    if model.section.task.kind != "classes":
        return {}
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {m: [] for m in model.modalities}
    first = 0
    with torch.inference_mode():
        for batch in batches:
            numbers = np.arange(first, first + len(batch))
            unit = torch.from_numpy(numbers if blocks is None else blocks[numbers])
            first += len(batch)
            with model.prepared(batch) as ready:
                for m, logits in model(ready.images, ready.valid).items():
                    target = supervised(ready, m)  # (B, H, W)
                    labelled = target >= 0
                    owner = unit[:, None, None].expand_as(target)[labelled]
                    found[m].append((logits.movedim(1, -1)[labelled], target[labelled], owner))
    joined = {m: tuple(torch.cat(part) for part in zip(*pairs, strict=True)) for m, pairs in found.items() if pairs}
    return {m: _one(*rows) for m, rows in joined.items() if len(rows[1]) >= _LEAST}


def _one(logits: Tensor, truth: Tensor, units: Tensor) -> Calibration:
    temperature, labels = steady_temperature(logits, truth, units.numpy()), truth.numpy()
    before, after = (calibration_error((logits / t).softmax(1).numpy(), labels) for t in (1.0, temperature))
    return Calibration(temperature, before, after, len(labels), len(np.unique(units.numpy())))


def cooled(path: nn.Module, state: dict[str, Any], temperature: float) -> dict[str, Any]:
    """A path's weights such that its logits come out divided by the temperature.

    The last map of every path is affine, so that its weight and bias are divided and nothing else: whatever reads the
    weights gets calibrated probabilities and needs to know nothing of it.

    Raises:
        MdicoError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise MdicoError(f"a temperature must be above 0, came {temperature}. Use 1 to leave the model as it is.")
    name = last_map(path)
    return {
        key: value / temperature if key in (f"{name}.weight", f"{name}.bias") else value for key, value in state.items()
    }


def last_map(path: nn.Module) -> str:
    """Name of the module that gives the logits of a path: the last one of its head."""
    heads = [name for name, _ in path.named_modules() if name.split(".")[-1] == "head"]
    if not heads:
        raise MdicoError(f"{type(path).__name__} has no head to calibrate. Train with calibrate: false.")
    inside = [name for name, module in path.get_submodule(heads[-1]).named_modules() if _is_affine(module)]
    return ".".join(part for part in (heads[-1], inside[-1]) if part)


def _is_affine(module: nn.Module) -> bool:
    return isinstance(module, (PixelLinear, nn.Linear, nn.LayerNorm))
