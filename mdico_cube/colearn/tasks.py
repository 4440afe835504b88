"""Outputs of a model and targets in, what they cost and what they mean out: classes, labels side by side, or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mdico_cube.batch import UNLABELLED, labelled
from mdico_cube.colearn.losses import balanced_cross_entropy, balanced_weights, mean_where, soft_targets
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import TaskSection

FIGURE = {"classes": ("f1", "macro F1"), "multilabel": ("f1", "macro F1"), "regression": ("r2", "R2")}
"""Kind of task -> the figure that is watched: its name in a history, and in a sentence."""
MOST_LABELS = 62
"""Labels side by side that one target can carry."""
_RAREST = 10.0  # a label weighs at most so many times what its absence weighs


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of a value among the training labels; a model gives the z-score."""

    mean: float = 0.0
    std: float = 1.0


def scale_of(values: Sequence[float] | npt.NDArray[np.float32]) -> Scale:
    """Mean and standard deviation of the values that are known.

    Raises:
        MdicoError: none is known, or all are the same.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        raise MdicoError("no training sample has a value: every target is NaN. Check the column of the values.")
    if known.std() == 0:
        raise MdicoError(f"every training sample has the same value, {known[0]:g}: there is nothing to learn.")
    return Scale(float(known.mean()), float(known.std()))


def make_weights(section: TaskSection, counts: Sequence[int], names: Sequence[str], samples: int) -> Tensor | None:
    """Weights of the supervised loss from the training fold, or None for equal ones.

    Args:
        section: the task.
        counts: training samples of each class or label.
        names: of the classes or labels.
        samples: training samples in all.

    Returns:
        (K,): of each class as `balanced_weights` says; of each label's presence (absence weighs 1) the share of absence
        to presence, at most 10; the square roots of these where the section asks for them.

    Raises:
        MdicoError: fewer than two classes or labels, or a class, label or value without a training sample.
    """
    if section.kind == "regression":
        if sum(counts) < 1:
            raise MdicoError("no training sample has a value: every target is NaN. Check the column of the values.")
        return None
    if section.kind == "multilabel":
        if len(names) > MOST_LABELS:
            raise MdicoError(f"{len(names)} labels side by side are too many: name at most {MOST_LABELS}.")
        if len(names) < 2:
            raise MdicoError(
                f"labels side by side are at least two, came {', '.join(names)} alone. Make it a task of two classes."
            )
        absent = [name for name, count in zip(names, counts, strict=True) if count < 1]
        if absent:
            raise MdicoError(
                f"no training sample of label {', '.join(absent)}: leave it out, or widen the training set."
            )
        if section.weights in ("auto", "none"):
            return None
        present = torch.tensor(counts, dtype=torch.float32)
        weights = ((samples - present) / present).clamp(min=1 / _RAREST, max=_RAREST)
    else:
        weights = balanced_weights(counts, names)  # also where they are not wanted: an absent class is refused
        if section.weights == "none":
            return None
    return weights.sqrt() if section.weights == "sqrt" else weights


def supervised_loss(section: TaskSection, outputs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """What a prediction costs where there is a label.

    Classes: weighted cross-entropy with the smoothing epsilon; labels side by side: the mean over labels of the binary
    cross-entropy, with targets 1 - epsilon / 2 and epsilon / 2; values: squared error of the z-score.

    Args:
        section: the task.
        outputs: (B, K, ...).
        target: (B, ...) class index, labels as bits of an integer (-1 = unlabelled), or z-scored value (NaN).
        weights: (K,) as `make_weights` gives them.

    Returns:
        Scalar; 0, with zero gradients, when nothing is labelled.
    """
    if section.kind == "classes":
        return balanced_cross_entropy(outputs, target, weights, section.smoothing)
    known = labelled(target)
    if section.kind == "regression":
        goal = torch.where(known, target, 0.0).to(outputs.dtype)
        return mean_where((outputs[:, 0] - goal) ** 2, known)
    goal = bits_of(target.clamp(min=0), outputs.shape[1]).to(outputs.dtype)
    goal = goal * (1 - section.smoothing) + section.smoothing / 2
    shape = (-1, *(1,) * (outputs.dim() - 2))
    costs = F.binary_cross_entropy_with_logits(
        outputs, goal, reduction="none", pos_weight=None if weights is None else weights.view(shape)
    )
    return mean_where(costs.mean(dim=1), known)


def goal_of(section: TaskSection, target: Tensor, classes: int, scale: Scale) -> Tensor:
    """A target as the loss takes it: values z-scored; with `share`, maps of classes as the labels of a patch.

    Args:
        section: the task.
        target: (B, H, W) as a Batch has it.
        classes: K.
        scale: of the values.

    Returns:
        (B, H, W); labels of a patch stand at its centre pixel (H // 2, W // 2), all else is unlabelled.
    """
    if section.kind == "regression":
        return (target - scale.mean) / scale.std
    if section.kind == "classes" or section.share is None:
        return target
    counts = F.one_hot(target.clamp(min=0), classes).where(labelled(target).unsqueeze(-1), 0).sum(dim=(1, 2))  # (B, K)
    known = counts.sum(dim=1, keepdim=True)
    there = as_bits(counts > section.share * known).masked_fill(known[:, 0] == 0, UNLABELLED)
    out = torch.full_like(target, UNLABELLED)
    out[:, target.shape[1] // 2, target.shape[2] // 2] = there
    return out


def opinion(section: TaskSection, outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """What a teacher says, without gradient: class shares, the share of each label, or the z-score; (B, K, ...)."""
    told = outputs.detach()
    if section.kind == "regression":
        return told
    return (told / temperature).softmax(dim=1) if section.kind == "classes" else (told / temperature).sigmoid()


def follow(section: TaskSection, outputs: Tensor, goal: Tensor, temperature: float, where: Tensor) -> Tensor:
    """What it costs to differ from a teacher's `opinion`.

    Classes: T^2 KL(goal || softmax(outputs / T)); labels side by side: T^2 times the mean binary KL; values: squared
    error [the last two our inference].

    Args:
        section: the task.
        outputs: (B, K, H, W).
        goal: (B, K, H, W) of `opinion`, or a mean of several.
        temperature: T.
        where: (B, H, W) bool, the pixels that count.

    Returns:
        Scalar; 0, with zero gradients, when no pixel counts.
    """
    if section.kind == "classes":
        return soft_targets(outputs, goal, temperature, where)
    if section.kind == "regression":
        return mean_where(((outputs - goal) ** 2).mean(dim=1), where)
    both = torch.stack([outputs, -outputs], dim=1).flatten(0, 1) / temperature  # presence and absence of each label
    shares = torch.stack([goal, 1 - goal], dim=1).flatten(0, 1)
    costs = torch.special.xlogy(shares, shares) - shares * F.logsigmoid(both)
    pixels = costs.unflatten(0, (-1, 2)).sum(dim=1).mean(dim=1)  # (B, H, W)
    return temperature**2 * mean_where(pixels, where)


def answer(section: TaskSection, outputs: Tensor, scale: Scale) -> Tensor:
    """What a prediction means: class shares, the share of each label, or values in their unit; (B, K, ...)."""
    return outputs * scale.std + scale.mean if section.kind == "regression" else opinion(section, outputs)


def bits_of(target: Tensor, labels: int) -> Tensor:
    """(B, ...) labels as bits of an integer to (B, K, ...) 0 or 1."""
    place = torch.arange(labels, device=target.device).view(-1, *(1,) * (target.dim() - 1))
    return (target.unsqueeze(1) >> place) & 1


def as_bits(labels: Tensor) -> Tensor:
    """(B, K, ...) bool, True = the label is there, to labels as bits of an integer (B, ...)."""
    place = torch.arange(labels.shape[1], device=labels.device).view(-1, *(1,) * (labels.dim() - 2))
    return (labels.long() << place).sum(dim=1)
