"""A running trainer in, what a person sees out: a bar on a terminal, one line per epoch in a log, no chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar

from mdico_cube.colearn.loop import Loop
from mdico_cube.colearn.trained import Row
from mdico_cube.progress import console, say

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
_CHATTER = (
    r".*does not have many workers.*",
    r".*srun.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*dirpath has changed.*",
    r".*`training_step` returned `None`.*",
    r".*Found \d+ module\(s\) in eval mode.*",
    r".*Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
    r".*GPU available but not used.*",
    r".*isinstance\(treespec, LeafSpec\).* is deprecated.*",
)


class Bar(RichProgressBar):
    """Lightning's bar on standard error, without the version number of the run."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, console_kwargs={"stderr": True})

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Validation loss, F1 and the share of time spent waiting for data."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class Lines(Callback):
    """One line per epoch."""

    def __init__(self, title: str, epochs: int) -> None:
        self.title = title
        self.epochs = epochs
        self.told = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the epoch before went."""
        self._tell(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the last epoch went."""
        self._tell(pl_module)

    def _tell(self, loop: pl.LightningModule) -> None:
        assert isinstance(loop, Loop)
        if len(loop.rows) > self.told:
            self.told = len(loop.rows)
            say(f"{self.title}: {sentence(loop.rows[-1], self.epochs)}")


def sentence(row: Row, epochs: int) -> str:
    """One epoch as text."""
    figure = f"macro F1 {row['val_f1']:.3f}" if "val_f1" in row else f"R2 {row['val_r2']:.3f}"
    return (
        f"epoch {int(row['epoch']) + 1}/{epochs}, loss {row['train_loss']:.3f}, validation {row['val_loss']:.3f}, "
        f"{figure} ({row['seconds']:.1f} s, {row['data_wait']:.1%} waiting for data)"
    )


def watchers(title: str, epochs: int) -> list[Callback]:
    """The callbacks that show progress on this console."""
    if console.quiet:
        return []
    return [Bar()] if console.is_terminal or console.is_jupyter else [Lines(title, epochs)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's tips, device summaries and warnings about matters that are settled here."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for message in _CHATTER:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
