"""Outputs and targets of the validation batches in, the one figure of an epoch out: macro F1, or R2 for a value."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric, R2Score
from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score

from mdico_cube.batch import UNLABELLED, labelled
from mdico_cube.colearn.tasks import bits_of
from mdico_cube.recipe import TaskSection


class Watched:
    """One output's figure over an epoch."""

    def __init__(self, task: TaskSection, classes: int) -> None:
        self.kind, self.classes = task.kind, classes
        self.metric: Metric
        if task.kind == "classes":
            self.metric = MulticlassF1Score(classes, ignore_index=UNLABELLED)
        elif task.kind == "multilabel":
            self.metric = MultilabelF1Score(classes)
        else:
            self.metric = R2Score()
        self.count = 0

    def reset(self, device: torch.device) -> None:
        """Start an epoch."""
        self.metric.to(device).reset()
        self.count = 0

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count one batch: (B, K, H, W) and (B, H, W) as the loss takes them."""
        if self.kind == "classes":
            self.metric.update(outputs.argmax(dim=1), target)
            return
        known = labelled(target)
        count = int(known.sum())
        self.count += count
        rows = outputs.movedim(1, -1)[known].float()  # (n, K)
        if count and self.kind == "multilabel":
            self.metric.update(rows.sigmoid(), bits_of(target[known], self.classes))
        elif count:
            self.metric.update(rows[:, 0], target[known].float())

    def compute(self) -> float:
        """The figure; R2 of fewer than two values is not a number."""
        if self.kind != "classes" and self.count < (2 if self.kind == "regression" else 1):
            return float("nan")
        return float(self.metric.compute())
