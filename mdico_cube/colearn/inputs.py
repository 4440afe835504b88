"""Raw physical values and what was observed in, z-scored series without gaps out: the first layer of every model."""

from __future__ import annotations

from datetime import date

import torch
from torch import Tensor, nn

from mdico_cube.errors import MdicoError
from mdico_cube.spec import InputSpec


class Normalise(nn.Module):
    """Z-score each band, then fill what was not observed by linear interpolation in time.

    z = (x - mean) / std with the statistics of the training windows. A missing step of a pixel takes the value on the
    straight line between its nearest observed steps (weighted by days), the nearest one before the first and after the
    last; a pixel that was never observed becomes 0, the mean. What stands in `images` where `valid` is False has no
    influence on the output, not even NaN.
    """

    mean: Tensor
    """(C,) physical units."""
    std: Tensor
    """(C,) physical units."""
    days: Tensor
    """(T,) days since the first step."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.name = spec.modality.name
        self.register_buffer("mean", torch.tensor(spec.stats.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.stats.std, dtype=torch.float32))
        self.register_buffer("days", torch.tensor(days_since_first(spec.steps), dtype=torch.float32))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) True = observed to (B, T, C, H, W) normalised.

        Raises:
            MdicoError: another number of steps or bands than the statistics are for.
        """
        takes = (self.days.numel(), self.mean.numel())
        if tuple(images.shape[1:3]) != takes:
            raise MdicoError(
                f"{self.name}: the model takes {takes[0]} steps x {takes[1]} bands, came "
                f"{images.shape[1]} x {images.shape[2]}. Hand over the bands and steps it was trained with."
            )
        observed = valid.unsqueeze(2)  # (B, T, 1, H, W)
        scaled = (images - self.mean[:, None, None]) / self.std[:, None, None]
        known = torch.where(observed, scaled, scaled.new_zeros(()))  # (B, T, C, H, W)
        return known if takes[0] == 1 else fill_gaps(known, valid, self.days)


def fill_gaps(known: Tensor, valid: Tensor, days: Tensor) -> Tensor:
    """Linear interpolation in time over the steps that were not observed.

    Args:
        known: (B, T, C, H, W), 0 where not observed.
        valid: (B, T, H, W), True = observed.
        days: (T,) increasing.

    Returns:
        (B, T, C, H, W): observed steps unchanged; pixels never observed stay 0.
    """
    before, after = neighbours(valid)  # (B, T, H, W) each
    span = (days[after] - days[before]).clamp(min=1.0)
    weight = (days[:, None, None] - days[before]) / span  # (B, T, H, W), 0 at observed steps and beyond the ends
    weight = torch.where(before == after, 0.0, weight).to(known.dtype).unsqueeze(2)
    shape = (-1, -1, known.shape[2], -1, -1)
    left = known.gather(1, before.unsqueeze(2).expand(shape))  # (B, T, C, H, W)
    right = known.gather(1, after.unsqueeze(2).expand(shape))
    return left + weight * (right - left)


def neighbours(valid: Tensor) -> tuple[Tensor, Tensor]:
    """For every step the nearest observed step before (or at) and after (or at) it.

    Beyond the first or last observation both point to that observation; for a pixel never observed they point to any
    step.

    Args:
        valid: (B, T, H, W), True = observed.

    Returns:
        Two (B, T, H, W) int64 step indices.
    """
    steps = valid.shape[1]
    index = torch.arange(steps, device=valid.device)[:, None, None]
    before = torch.where(valid, index, -1).cummax(dim=1).values
    after = torch.where(valid, index, steps).flip(1).cummin(dim=1).values.flip(1)
    first = torch.where(before < 0, after, before)
    last = torch.where(after == steps, before, after)
    return first.clamp(0, steps - 1), last.clamp(0, steps - 1)


def days_since_first(steps: tuple[str, ...]) -> list[int]:
    """Days of each step's first day since the first step; [0] for a modality without time."""
    if steps == ("",):
        return [0]
    first = date.fromisoformat(steps[0])
    return [(date.fromisoformat(step) - first).days for step in steps]
