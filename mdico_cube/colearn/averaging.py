"""Weights after every step in, their exponential moving average out: what is validated, kept and exported."""

from __future__ import annotations

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Average of the weights over the steps, w <- w + (1 - d) (w_now - w), with d = min(decay, (1 + n) / (10 + n)).

    n counts the steps so far: the average of a short run then forgets its start. Batch norm's running figures are
    averaged too. Checkpoints hold the average, and what is needed to go on exactly.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=lambda average, current, count: moved(average, current, count, decay))


def moved(average: Tensor, current: Tensor, count: Tensor | int, decay: float) -> Tensor:
    """One step of the average of one tensor after `count` steps."""
    steps = int(count)
    kept = min(decay, (1 + steps) / (10 + steps))
    return average + (current - average) * (1 - kept) if average.is_floating_point() else current
