"""A CoLearner and a loader in, one row of figures per epoch out: what Lightning runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from mdico_cube.batch import Batch, Batches
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.tasks import FIGURE
from mdico_cube.colearn.trained import Row, check_finite
from mdico_cube.colearn.watched import Watched
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import TrainSection


class EpochLoader:
    """A loader whose order and augmentation in epoch e depend only on (seed, e), so that a resumed run is exact.

    When the epoch's first batch is asked for, every random generator, also one of the loader's own, is seeded, and a
    sampler that has `set_epoch` is told the epoch.
    """

    epoch: int = 0
    wait: float = 0.0
    """Seconds this epoch spent waiting for batches."""
    span: float = 0.0
    """Seconds of this epoch's training steps, waiting included; validation is not counted."""

    @property
    def waited(self) -> float:
        """Share of the training steps' time spent waiting for batches."""
        return self.wait / self.span if self.span else 0.0

    share: tuple[int, int] = (0, 1)
    """Which of how many devices this one is: every so many-th batch is its own, what does not go round is left out."""

    def __init__(self, loader: Batches, seed: int) -> None:
        self.loader = loader
        self.seed = seed

    def __len__(self) -> int:
        return len(self.loader) // self.share[1]

    def begin(self) -> None:
        """Tell a loader that reads ahead that the first epoch will be asked for."""
        if callable(begin := getattr(self.loader, "begin", None)):
            begin(self.epoch)

    def __deepcopy__(self, memo: object) -> EpochLoader:
        """A copy of the loop, as the weights' average makes one, shares the data."""
        return self

    def __iter__(self) -> Iterator[Batch]:
        self._reseed()
        self.wait = self.span = 0.0
        begin = start = time.perf_counter()
        rank, world = self.share
        for number, batch in enumerate(self.loader):
            if number % world != rank or number >= len(self) * world:
                continue
            self.wait += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
            self.span = start - begin

    def _reseed(self) -> None:
        state = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        pl.seed_everything(state, workers=True, verbose=False)
        for owner in (self.loader, *(getattr(self.loader, name, None) for name in ("sampler", "batch_sampler"))):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(state)
            if callable(set_epoch := getattr(owner, "set_epoch", None)):
                set_epoch(self.epoch)


def step_factor(schedule: str, step: int, steps: int, warm: int) -> float:
    """Share of the step size at a step of a run: see train.schedule and train.warmup."""
    grown = min(1.0, (step + 1) / warm) if warm else 1.0
    done = min(1.0, step / steps)
    if schedule == "cosine":
        return grown * (1 + math.cos(math.pi * done)) / 2
    return grown * (0.1 ** ((done >= 0.5) + (done >= 0.75)) if schedule == "step" else 1.0)


class Loop(pl.LightningModule):
    """Minimises the sum of a CoLearner's losses with Adam; the validation loss is that same sum.

    Figures are summed on the device and read once per epoch.
    """

    def __init__(self, model: CoLearner, classes: int, section: TrainSection, loader: EpochLoader) -> None:
        super().__init__()
        self.model = model
        self.section = section
        self.loader = loader
        self.rows: list[Row] = []
        task = model.section.task
        self.figure = FIGURE[task.kind][0]
        self._scores = {m: Watched(task, classes) for m in model.outputs}
        self._restart_sums()

    def _restart_sums(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._validation: Row = {}
        self._start = time.perf_counter()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and the schedule of its step size that the recipe asks for."""
        section = self.section
        adam = torch.optim.Adam(
            self.model.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay, fused=True
        )
        if section.schedule == "constant" and not section.warmup:
            return adam
        steps = max(2, len(self.loader) * section.epochs)
        schedule: torch.optim.lr_scheduler.LRScheduler
        if section.schedule == "onecycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=section.learning_rate, total_steps=steps)
        else:
            warm = section.warmup * len(self.loader)
            schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: step_factor(section.schedule, n, steps, warm))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Tell the loader whose share of the batches to give."""
        self.loader.share = (self.global_rank, self.trainer.world_size)
        if not len(self.loader):
            raise MdicoError(
                f"{len(self.loader.loader)} batches cannot be shared among {self.trainer.world_size} devices. "
                "Lower train.batch or train.devices."
            )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the model's device."""
        return batch if device.type == "cpu" else batch.to(device)

    def on_train_epoch_start(self) -> None:
        """Tell the loader which epoch's order to draw."""
        self.loader.epoch = self.current_epoch
        self._restart_sums()

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """The sum of the losses; None skips a batch of a single pixel, which batch normalisation cannot take."""
        assert batch.target is not None
        if batch.target.numel() < 2:
            if self.trainer.world_size > 1:
                raise MdicoError("a batch of a single pixel came while several devices train. Make the batch even.")
            return None
        losses = self.model.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach() * len(batch)
        self._samples += len(batch)
        return total

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._validation_sum = torch.zeros((), device=self.device)
        self._validation_samples = 0
        for score in self._scores.values():
            score.reset(self.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count one batch."""
        with self.model.prepared(batch) as ready:
            losses, logits = self.model.learn(ready)
        self._validation_sum += torch.stack(list(losses.values())).sum() * len(batch)
        self._validation_samples += len(batch)
        for m, score in self._scores.items():
            score.update(logits[m], self.model.target(ready, m))

    def on_validation_epoch_end(self) -> None:
        """Log what early stopping, checkpoints and bars read."""
        mean = f"val_{self.figure}"
        scores = {f"{mean}_{m}": score.compute() for m, score in self._scores.items()}
        total, samples = self._over_devices(self._validation_sum, self._validation_samples)
        loss = total / max(1, samples)
        self._validation = {"val_loss": loss, mean: sum(scores.values()) / len(scores), **scores}
        shown = {name: self._validation[name] for name in ("val_loss", mean)}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=1, sync_dist=self.trainer.world_size > 1)

    def on_train_epoch_end(self) -> None:
        """Close the epoch's row."""
        if self.rows and self.rows[-1]["epoch"] == self.current_epoch:
            return  # Lightning replays the end of the epoch it resumes from
        losses = {f"train_{name}": float(total) / max(1, self._samples) for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._start
        row = {
            "epoch": self.current_epoch,
            **losses,
            "train_loss": sum(losses.values()),
            **self._validation,
            "learning_rate": self._learning_rate(),
            "seconds": round(seconds, 4),
            "data_wait": round(self.loader.waited, 4),
        }
        if self.section.keep == "last":
            check_finite(row)
        self.rows.append(row)
        several = self.trainer.world_size > 1
        self.log("data_wait", row["data_wait"], prog_bar=True, logger=False, batch_size=1, sync_dist=several)
        for logger in self.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "epoch"}, step=self.current_epoch)

    def _over_devices(self, total: Tensor, samples: int) -> tuple[float, float]:
        """Sums over every device that trains."""
        if self.trainer.world_size == 1:
            return float(total), samples
        both = torch.stack([total.float(), torch.tensor(float(samples), device=total.device)])
        summed = self.trainer.strategy.reduce(both, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return float(summed[0]), float(summed[1])

    def _learning_rate(self) -> float:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        return float(optimizer.param_groups[0]["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The rows so far belong to the checkpoint."""
        checkpoint["rows"] = self.rows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the rows of the run that was cut off."""
        self.rows = list(checkpoint["rows"])
