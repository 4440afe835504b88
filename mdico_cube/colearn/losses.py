"""Logits, embeddings and targets in, scalar losses out: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mdico_cube.batch import UNLABELLED
from mdico_cube.errors import MdicoError


def balanced_weights(counts: Sequence[int], names: Sequence[str]) -> Tensor:
    """Class weights w_k = n / (K n_k) from the training fold, so that every class weighs the same in total.

    Args:
        counts: training samples of each class, n_k.
        names: the classes' names, for the message.

    Returns:
        (K,) float32.

    Raises:
        MdicoError: fewer than two classes, or a class without a training sample.
    """
    if len(counts) != len(names):
        raise MdicoError(f"{len(counts)} class counts came for {len(names)} classes: count every class of the legend.")
    if len(names) < 2:
        raise MdicoError(
            f"training needs at least two classes, came {', '.join(names) or 'none'}: add classes to labels.classes."
        )
    absent = [name for name, count in zip(names, counts, strict=True) if count < 1]
    if absent:
        raise MdicoError(
            f"no training sample of class {', '.join(absent)}: drop the class from labels.classes, "
            "or widen the area or the training share of the split."
        )
    n_k = torch.tensor(counts, dtype=torch.float64)
    return (n_k.sum() / (len(counts) * n_k)).float()


def balanced_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Weighted mean cross-entropy over the labelled pixels: sum_i w[y_i] CE_i / sum_i w[y_i].

    Args:
        logits: (B, K, ...).
        target: (B, ...) int64, -1 = leave out.
        weights: (K,) class weights; None weighs all the same.
        smoothing: epsilon: 1 - epsilon of the target is the class, epsilon / K every class (Szegedy et al., 2016).

    Returns:
        Scalar; 0, with zero gradients, when no pixel is labelled.
    """
    total = F.cross_entropy(
        logits, target, weights, ignore_index=UNLABELLED, reduction="sum", label_smoothing=smoothing
    )
    labelled = target != UNLABELLED
    mass = labelled.sum() if weights is None else (weights[target.clamp(min=0)] * labelled).sum()
    return total / mass.clamp(min=torch.finfo(torch.float32).tiny)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR: Chen et al., ICML 2020) between two views.

    With z = [first; second], s(i, j) = cos(z_i, z_j) / tau and p(i) the same sample in the other view:
    L = mean over the 2N anchors i of -log( exp s(i, p(i)) / sum_{j != i} exp s(i, j) ).
    Negatives include the other samples of the anchor's own view. One similarity matrix, in float32 also under autocast.

    Args:
        first: (N, d) embeddings.
        second: (N, d) embeddings of the same samples in the same order.
        temperature: tau.

    Returns:
        Scalar; 0, with zero gradients, for N = 0.
    """
    n = first.shape[0]
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat([first, second]).float(), dim=1)  # (2N, d)
        if n == 0:
            return z.sum()
        similarity = (z @ z.T) / temperature  # (2N, 2N)
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        partner = torch.arange(2 * n, device=z.device).roll(n)
        return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)


def soft_targets(student: Tensor, goal: Tensor, temperature: float, where: Tensor) -> Tensor:
    """Mean over pixels of T^2 KL( goal || softmax(student / T) ) (Hinton et al., 2015).

    Args:
        student: (B, K, H, W) logits.
        goal: (B, K, H, W) probabilities.
        temperature: T.
        where: (B, H, W) bool, the pixels that count.

    Returns:
        Scalar; 0, with zero gradients, when no pixel counts.
    """
    got = F.log_softmax(student / temperature, dim=1)
    pixels = (torch.special.xlogy(goal, goal) - goal * got).sum(dim=1)  # (B, H, W)
    return temperature**2 * mean_where(pixels, where)


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values (B, ...) that a mask picks; 0, with zero gradients, where it picks none."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)


def squared_cosine(first: Tensor, second: Tensor, where: Tensor) -> Tensor:
    """Mean over pixels of cos^2 between two embeddings: 0 where they are orthogonal.

    Args:
        first: (B, D, H, W).
        second: (B, D, H, W).
        where: (B, H, W) bool, the pixels that count.

    Returns:
        Scalar; 0, with zero gradients, when no pixel counts.
    """
    cosine = F.cosine_similarity(first, second, dim=1, eps=1e-6)  # (B, H, W)
    return mean_where(cosine**2, where)


def spread(eligible: Tensor, most: int) -> Tensor:
    """Indices of at most `most` True entries, spread evenly over all of them; the same for the same input.

    Args:
        eligible: (N,) bool.
        most: how many to keep.

    Returns:
        (n,) int64 indices in increasing order, n <= most.
    """
    index = eligible.nonzero().squeeze(1)
    n = index.numel()
    return index if n <= most else index[torch.arange(most, device=index.device) * n // most]
