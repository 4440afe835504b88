"""A method, its inputs and two loaders in, a trained model with its history out; Lightning runs the loop."""

from __future__ import annotations

import csv
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from mdico_cube.alone import alone
from mdico_cube.batch import Batches
from mdico_cube.colearn.averaging import MovingAverage
from mdico_cube.colearn.checkpoint import LAST, finished, identity_of, load, prepare, restore
from mdico_cube.colearn.disk import disk_faults
from mdico_cube.colearn.loop import EpochLoader, Loop
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import FIGURE, Scale, make_weights
from mdico_cube.colearn.trained import Row, TrainedModel
from mdico_cube.colearn.watch import quiet, watchers
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ColearnSection, TrainSection
from mdico_cube.spec import InputSpec, LabelClass

__all__ = ["TrainedModel", "fit"]


def fit(
    method: str,
    inputs: dict[str, InputSpec],
    legend: Sequence[LabelClass],
    section: ColearnSection,
    train: Batches,
    validation: Batches,
    class_counts: Sequence[int],
    folder: Path,
    seed: int,
    resume: bool = False,
    scale: Scale | None = None,
) -> TrainedModel:
    """Train one method on every modality at once and keep the epoch with the lowest validation loss, or the last one.

    The loss of training and validation is the sum of the method's losses. Random generators are seeded from (seed,
    epoch) and put back afterwards: the same seed gives the same weights on a CPU, also when a run is resumed. `folder`
    receives best.ckpt, last.ckpt, history.csv and the logs.

    Args:
        method: name in METHODS.
        inputs: modality -> what the model takes of it; the order numbers the modalities.
        legend: classes in target order; the labels of a multi-label task, or the one value of a regression.
        section: options of encoder, method and training.
        train: labelled training batches.
        validation: labelled batches for early stopping; under protocol "paper" the test fold.
        class_counts: training samples of each class or label, in legend order; of a value, how many there are.
        folder: where checkpoints and logs go.
        seed: of weights, order and dropout.
        resume: go on from the last.ckpt of this very run where there is one; otherwise start anew and replace what is
            there.
        scale: of the training values, in a regression: the loss sees z-scores.

    Raises:
        MdicoError: unknown method, fewer than two modalities or classes, a modality that was never observed, a class
            without samples, an empty loader, diverged training, a folder in which another process trains, or an
            unusable folder, checkpoint or device.
    """
    maker = get_method(method)
    for title, loader in (("training", train), ("validation", validation)):
        if len(loader) == 0:
            raise MdicoError(f"{method}: the {title} set is empty. Widen the area or its share in the samples section.")
    for name, spec in inputs.items():
        if not spec.stats.count:
            raise MdicoError(
                f"{method}: {name} was observed at no training pixel, so it can teach nothing. Take it out of "
                "colearn.modalities, or look at its shards with `mdico inspect`."
            )
    samples = len(train.dataset)
    if samples < 2:
        raise MdicoError(f"{method}: one training sample is too few to learn from. Draw more in the samples section.")
    weights = make_weights(section.task, class_counts, [c.name for c in legend], samples)
    scale = scale or Scale()
    identity = identity_of(method, inputs, legend, section, class_counts, samples, seed, scale)
    with disk_faults(folder), _held(folder), quiet(), isolate_rng():
        checkpoint = prepare(folder, identity, resume)
        batches = EpochLoader(train, seed)
        if checkpoint is None:
            batches.begin()
        pl.seed_everything(seed, workers=True, verbose=False)
        model = maker(inputs, len(legend), section, weights)
        model.scale = scale
        loop = Loop(model, len(legend), section.train, batches)
        title = f"{method}, seed {seed}"
        if checkpoint is None or not finished(checkpoint, section.train):
            _run(loop, validation, section.train, folder, title, resumed=checkpoint is not None)
            checkpoint = load(folder / LAST)
        history: list[Row] = checkpoint["rows"]
        best = restore(model, history, folder, section.train.keep)
    seconds = sum(row["seconds"] for row in history)
    short, figure = FIGURE[section.task.kind]
    reached = f"validation loss {history[best]['val_loss']:.3f}, {figure} {history[best][f'val_{short}']:.3f}"
    say(f"{title}: {section.train.keep} epoch {best + 1} of {len(history)}, {reached}, {seconds:.0f} s")
    return TrainedModel(
        model, method, inputs, tuple(legend), section, history, best, samples, tuple(class_counts), seconds, seed, scale
    )


def _held(folder: Path) -> AbstractContextManager[None]:
    """The run's folder, for this run alone; the processes of one run share it."""
    return nullcontext() if getattr(rank_zero_only, "rank", 0) else alone(folder, "trains")


def _run(loop: Loop, validation: Batches, section: TrainSection, folder: Path, title: str, resumed: bool) -> None:
    """The one call to Lightning."""
    trainer = _trainer(section, folder, [*_callbacks(section, folder), *watchers(title, section.epochs)])
    with _ctrl_c_as_everywhere():
        trainer.fit(
            loop,
            train_dataloaders=loop.loader,
            val_dataloaders=validation,
            ckpt_path=folder / LAST if resumed else None,
            weights_only=True,
        )


@contextmanager
def _ctrl_c_as_everywhere() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt: Lightning makes it a SystemExit(1) and is deaf to the next one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)
            raise end.__context__ from None
        raise


def _trainer(section: TrainSection, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    if section.accelerator == "gpu" and not torch.cuda.is_available():
        raise MdicoError("train.accelerator is gpu, but no GPU was found. Use auto or cpu.")
    on_cpu = section.accelerator == "cpu" or not torch.cuda.is_available()
    if not on_cpu and section.devices > torch.cuda.device_count():
        raise MdicoError(
            f"train.devices is {section.devices}, but {torch.cuda.device_count()} GPUs were found. Use so many at most."
        )
    if section.precision == "16-mixed" and on_cpu:
        raise MdicoError("train.precision 16-mixed needs a GPU. Use 32-true or bf16-mixed on a CPU.")
    return pl.Trainer(
        accelerator=section.accelerator,
        devices=section.devices,
        strategy=_strategy(section),
        use_distributed_sampler=False,
        precision=section.precision,
        max_epochs=section.epochs,
        logger=_loggers(section, folder),
        callbacks=callbacks,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )


def _strategy(section: TrainSection) -> str:
    """How the devices work together: in forked processes, so that what reads the windows need not be sent to them.

    Raises:
        MdicoError: a strategy that would start the whole command again on each device.
    """
    if section.devices == 1:
        return "auto"
    if section.strategy in ("auto", "ddp"):
        return "ddp_fork_find_unused_parameters_true"
    if not section.strategy.startswith(("ddp_fork", "ddp_spawn")):
        raise MdicoError(
            f"train.strategy {section.strategy} would start the whole command again on each device. Use auto, ddp, or "
            "one of Lightning's names that begin with ddp_fork or ddp_spawn."
        )
    return section.strategy


def _callbacks(section: TrainSection, folder: Path) -> list[Callback]:
    def keep(name: str, **options: Any) -> ModelCheckpoint:
        return ModelCheckpoint(folder, name, auto_insert_metric_name=False, enable_version_counter=False, **options)

    stop = EarlyStopping(
        "val_loss", min_delta=section.min_delta, patience=section.patience, check_on_train_epoch_end=False
    )
    return [
        *([MovingAverage(section.average)] if section.average else []),
        *([stop] if section.keep == "best" else []),
        keep("best", monitor="val_loss", save_on_train_epoch_end=False),
        keep("last", save_on_train_epoch_end=True),
        _HistoryFile(folder),
    ]


class _HistoryFile(Callback):
    """Rewrites history.csv after every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(pl_module)

    def _write(self, loop: pl.LightningModule) -> None:
        assert isinstance(loop, Loop)
        if loop.rows:
            part = self.folder / "history.csv.part"
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(loop.rows[0]))
                writer.writeheader()
                writer.writerows(loop.rows)
            part.replace(self.folder / "history.csv")


def _loggers(section: TrainSection, folder: Path) -> list[Logger]:
    for name in section.loggers:
        if name != "csv" and find_spec(name) is None:
            extra = "'mdico-cube[tensorboard]'" if name == "tensorboard" else "mlflow-skinny"
            raise MdicoError(
                f"train.loggers asks for {name}, which is not installed: pip install {extra}, or take it out."
            )
    makers: dict[str, Callable[[], Logger]] = {
        "csv": lambda: CSVLogger(folder, name="logs"),
        "tensorboard": lambda: TensorBoardLogger(folder, name="tensorboard"),
        "mlflow": lambda: MLFlowLogger(
            "mdico_cube",
            str(folder),
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}",
        ),
    }
    try:
        return [makers[name]() for name in section.loggers]
    except ImportError as error:  # a package that is there and cannot be loaded
        raise MdicoError(
            f"train.loggers: one of {', '.join(section.loggers)} cannot be loaded ({error}). Install it again, or take "
            "it out."
        ) from error
