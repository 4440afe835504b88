"""Masks of what was observed in, the modalities that count at each pixel out: real and random absence, masked means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

_SEED = 20251121  # of the draws outside training, which are the same every time


def observed(valid: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """(M, B, H, W) bool: modality m was observed at this pixel in at least one of its (B, T, H, W) steps."""
    return torch.stack([valid[m].any(dim=1) for m in names])


def presence(valid: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """(M, B, H, W) bool: the modalities that count at each pixel.

    Those observed at least once; where none was, all of them, so that no pixel is left without a prediction.
    """
    here = observed(valid, names)
    return here | ~here.any(dim=0)


def masked_mean(parts: Sequence[Tensor], here: Tensor) -> Tensor:
    """Mean over the modalities that count.

    Args:
        parts: M tensors (B, D, H, W); what stands where a modality does not count has no influence, not even NaN.
        here: (M, B, H, W) bool, at least one True per pixel.

    Returns:
        (B, D, H, W).
    """
    kept = [torch.where(mask.unsqueeze(1), part, 0.0) for part, mask in zip(parts, here, strict=True)]
    return torch.stack(kept).sum(dim=0) / here.sum(dim=0).unsqueeze(1)


def random_subset(here: Tensor, training: bool, together: bool = False) -> Tensor:
    """Leave modalities out at random: each is kept with probability 1/2, given that one at least is.

    The draw is per sample, the same for all its pixels; a pixel whose modalities would all be left out keeps them.
    Outside training the draw is the same every time, so that validation losses compare.

    Args:
        here: (M, B, H, W) bool, the modalities that count.
        training: draw from the global generator.
        together: one draw for the whole batch.

    Returns:
        (M, B, H, W) bool, never empty and within `here`.
    """
    generator = None if training else torch.Generator().manual_seed(_SEED)
    modalities, samples = here.shape[:2]
    able = here.flatten(2).any(dim=2).cpu()  # (M, B)
    able = able.any(dim=1, keepdim=True) if together else able
    keep = torch.zeros_like(able)
    while (empty := ~keep.any(dim=0) & able.any(dim=0)).any():
        draw = torch.rand(able.shape, generator=generator) < 0.5
        keep = torch.where(empty, draw & able, keep)
    kept = keep.expand(modalities, samples).to(here.device)[:, :, None, None] & here
    return torch.where(kept.any(dim=0), kept, here)


def every_subset(modalities: int) -> Iterator[tuple[int, ...]]:
    """The 2^M - 1 non-empty subsets of 0..M-1, the smallest first."""
    for size in range(1, modalities + 1):
        yield from combinations(range(modalities), size)
