"""What a training leaves behind, as one frozen object."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.tasks import Scale, answer
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import InputSpec, LabelClass

Row = dict[str, float]
"""One epoch: epoch (from 0), train_<loss name>, train_loss, val_loss, val_f1 (mean over outputs) and val_f1_<output>,
or val_r2 and val_r2_<output> of a regression, learning_rate, seconds, data_wait (share of the training steps' time
spent waiting for batches)."""
UNSCALED = Scale()


def check_finite(row: Row) -> None:
    """Raise MdicoError where an epoch's validation loss is not a number: its weights are of no use."""
    if not isfinite(row["val_loss"]):
        raise MdicoError(
            f"training diverged: the validation loss of epoch {row['epoch'] + 1:.0f} is {row['val_loss']}. Lower "
            "train.learning_rate, and check the inputs for values far outside their range."
        )


@dataclass(frozen=True)
class TrainedModel:
    """A model of every modality and how it came about."""

    model: CoLearner
    """With the weights of the epoch that was kept, in eval mode, on the CPU."""
    method: str
    inputs: dict[str, InputSpec]
    legend: tuple[LabelClass, ...]
    section: ColearnSection
    history: list[Row]
    """One row per epoch."""
    best_epoch: int
    """Epoch (from 0) that was kept: the one with the lowest validation loss, or the last one."""
    samples: int
    """Training windows."""
    class_counts: tuple[int, ...]
    """Training samples of each class of the legend."""
    seconds: float
    """Wall time of all epochs."""
    seed: int
    scale: Scale = UNSCALED
    """Of the training values, in a regression."""

    def answer(self, outputs: Tensor) -> Tensor:
        """What outputs (B, K, ...) mean: class shares, the share of each label, or values in their unit."""
        return answer(self.section.task, outputs, self.scale)
