"""Training: repeatable, exactly resumable, silent, and clear about what it cannot do."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colearn_toys import LEGEND, counts, make_batch, make_inputs, make_loader, make_section
from torch.utils.data import DataLoader

from mdico_cube.batch import Batch
from mdico_cube.colearn.loop import EpochLoader, Loop
from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.trainer import TrainedModel, fit
from mdico_cube.colearn.watch import Bar, watchers
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console

INPUTS = make_inputs()
TRAIN, VALIDATION = make_batch(INPUTS, 48, seed=1), make_batch(INPUTS, 20, seed=2)


def train(folder: Path, method: str = "mdico", seed: int = 0, resume: bool = False, **changes: Any) -> TrainedModel:
    section = make_section(**changes)
    loaders = make_loader(TRAIN), make_loader(VALIDATION, shuffle=False)
    return fit(method, INPUTS, LEGEND, section, *loaders, counts(TRAIN), folder, seed, resume)


def same(a: TrainedModel, b: TrainedModel) -> bool:
    first, second = a.model.state_dict(), b.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def figures(trained: TrainedModel) -> list[dict[str, float]]:
    """The history without clocks."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "data_wait")} for row in trained.history]


class KilledError(Exception):
    """Stands for a kill: raised in the middle of training."""


@pytest.mark.parametrize("method", METHODS)
def test_learns_and_leaves_its_traces(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    trained = train(tmp_path / "run", method, train={"epochs": 12, "loggers": ("csv",), "learning_rate": 5e-3})
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    with torch.no_grad():
        fused = trained.model.fused(VALIDATION.images, VALIDATION.valid).argmax(1)
    assert (fused == VALIDATION.target).float().mean() > 0.8
    if not method.startswith("fusion"):  # these teach no modality alone
        assert trained.history[trained.best_epoch]["val_f1"] > 0.8
    best = min(trained.history, key=lambda row: row["val_loss"])
    assert trained.best_epoch == best["epoch"]
    assert not trained.model.training
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == trained.history
    losses = set(trained.model.losses(TRAIN))
    names = {f"train_{k}" for k in losses} | {"epoch", "train_loss", "val_loss", "val_f1", "seconds", "data_wait"}
    assert names | {f"val_f1_{o}" for o in trained.model.outputs} | {"learning_rate"} == set(rows[0])
    assert rows[0]["train_loss"] == pytest.approx(sum(rows[0][f"train_{k}"] for k in losses))
    assert (tmp_path / "run" / "logs").is_dir()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_best_weights_are_those_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    """Validation labels that are wrong on purpose: the longer the training, the worse."""
    assert VALIDATION.target is not None
    wrong = replace(VALIDATION, target=(VALIDATION.target + 1) % len(LEGEND))
    section = make_section(train={"epochs": 10, "learning_rate": 2e-2}, mdico={"contrastive": 0})
    loaders = make_loader(TRAIN), make_loader(wrong, shuffle=False)
    trained = fit("mdico", INPUTS, LEGEND, section, *loaders, counts(TRAIN), tmp_path, 0)
    assert trained.best_epoch < 9
    with torch.no_grad():
        losses = [(trained.model.losses(batch), len(batch)) for batch in loaders[1]]
    mean = sum(float(sum(terms.values())) * n for terms, n in losses) / len(wrong)
    assert mean == pytest.approx(trained.history[trained.best_epoch]["val_loss"], rel=1e-5)
    assert mean < trained.history[-1]["val_loss"]


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights(method: str, tmp_path: Path) -> None:
    short = {"train": {"epochs": 2}}
    first = train(tmp_path / "a", method, seed=3, **short)
    torch.rand(7)
    assert same(first, train(tmp_path / "b", method, seed=3, **short))
    assert not same(first, train(tmp_path / "c", method, seed=4, **short))


def test_leaves_the_random_generators_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(tmp_path, train={"epochs": 1})
    assert torch.equal(torch.rand(3), expected)


def test_a_loader_with_its_own_generator_is_repeatable_too(tmp_path: Path) -> None:
    windows = make_loader(TRAIN).dataset
    loader: DataLoader[Batch] = DataLoader(
        windows, 16, shuffle=True, collate_fn=windows.collate, generator=torch.Generator().manual_seed(5)
    )
    orders = []
    for epoch in (0, 1, 0):
        wrapped = EpochLoader(loader, seed=1)
        wrapped.epoch = epoch
        orders.append([batch.images["radar"] for batch in wrapped])
    assert all(torch.equal(a, b) for a, b in zip(orders[0], orders[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(orders[0], orders[1], strict=True))


def test_a_sampler_that_counts_epochs_is_told(tmp_path: Path) -> None:
    class Sampler(torch.utils.data.Sampler[int]):
        told: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return len(TRAIN)

        def __iter__(self) -> Iterator[int]:
            return iter(range(len(TRAIN)))

        def set_epoch(self, epoch: int) -> None:
            self.told.append(epoch)

    windows = make_loader(TRAIN).dataset
    loader: DataLoader[Batch] = DataLoader(windows, 16, sampler=Sampler(), collate_fn=windows.collate)
    validation = make_loader(VALIDATION, shuffle=False)
    fit("mdico", INPUTS, LEGEND, make_section(), loader, validation, counts(TRAIN), tmp_path, 0)
    assert Sampler.told == [0, 1, 2, 3]


@pytest.mark.parametrize(("schedule", "average"), [("constant", 0.0), ("onecycle", 0.0), ("onecycle", 0.9)])
@pytest.mark.parametrize(("hook", "skip"), [("on_train_epoch_start", 2), ("training_step", 7), ("validation_step", 5)])
def test_resumed_run_equals_an_undisturbed_one(
    hook: str, skip: int, schedule: str, average: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between epochs, in the middle of the third (3 steps each), or in the third validation (2 steps each)."""
    changes = {"train": {"epochs": 5, "schedule": schedule, "learning_rate": 5e-3, "average": average}}
    whole = train(tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        original, calls = getattr(Loop, hook), []

        def break_off(self: Loop, *arguments: Any) -> Any:
            calls.append(1)
            if len(calls) > skip:
                raise KilledError
            return original(self, *arguments)

        patch.setattr(Loop, hook, break_off)
        with pytest.raises(KilledError):
            train(tmp_path / "cut", **changes)
    resumed = train(tmp_path / "cut", resume=True, **changes)
    assert same(whole, resumed)
    assert figures(whole) == figures(resumed)
    assert whole.best_epoch == resumed.best_epoch


def test_the_average_of_the_weights_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same average taken by hand over the weights after every step."""
    steps: list[dict[str, torch.Tensor]] = []
    original = Loop.on_train_batch_end

    def note(self: Loop, *arguments: Any) -> None:
        steps.append({k: v.detach().clone() for k, v in self.model.state_dict().items()})
        original(self, *arguments)

    monkeypatch.setattr(Loop, "on_train_batch_end", note)
    changes = {"train": {"epochs": 3, "keep": "last", "average": 0.8}}
    kept = train(tmp_path, **changes).model.state_dict()
    expected = steps[0]
    for n, now in enumerate(steps[1:], start=1):
        share = min(0.8, (1 + n) / (10 + n))
        expected = {k: share * expected[k] + (1 - share) * v if v.is_floating_point() else v for k, v in now.items()}
    assert len(steps) == 9
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value)
    assert any(not torch.equal(kept[k], steps[-1][k]) for k in kept)


def test_keeping_the_last_epoch_runs_all_of_them(tmp_path: Path) -> None:
    """Validation labels that are wrong on purpose: the last epoch is not the best one."""
    assert VALIDATION.target is not None
    wrong = replace(VALIDATION, target=(VALIDATION.target + 1) % len(LEGEND))
    loaders = make_loader(TRAIN), make_loader(wrong, shuffle=False)
    results = {}
    for keep in ("best", "last"):
        section = make_section(train={"epochs": 8, "learning_rate": 2e-2, "patience": 2, "keep": keep})
        results[keep] = fit("independent", INPUTS, LEGEND, section, *loaders, counts(TRAIN), tmp_path / keep, 0)
    assert len(results["best"].history) < 8
    assert len(results["last"].history) == 8
    assert results["last"].best_epoch == 7
    with torch.no_grad():
        losses = [(float(results["last"].model.losses(b)["main"]), len(b)) for b in loaders[1]]
    mean = sum(loss * n for loss, n in losses) / len(wrong)
    assert mean == pytest.approx(results["last"].history[-1]["val_loss"], rel=1e-5)


def test_resuming_a_finished_run_trains_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path)

    def fail(*_: Any) -> None:
        raise KilledError

    monkeypatch.setattr(Loop, "training_step", fail)
    again = train(tmp_path, resume=True)
    assert same(first, again)
    assert again.history == first.history


def test_stops_early_and_a_stopped_run_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"train": {"epochs": 50, "patience": 2, "min_delta": 100.0}}
    first = train(tmp_path, **changes)
    assert len(first.history) == 3
    monkeypatch.setattr(Loop, "training_step", None)
    assert same(first, train(tmp_path, resume=True, **changes))


def test_two_processes_never_train_in_one_folder(tmp_path: Path) -> None:
    """The one that comes second is refused and changes nothing; once the first is gone, however it went, it may."""
    script = (
        "import sys, time; from pathlib import Path; from mdico_cube.alone import alone\n"
        f"with alone(Path({str(tmp_path / 'run')!r}), 'trains'): print('holds', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds\n"
        with pytest.raises(MdicoError, match="another process trains there"):
            train(tmp_path / "run", train={"epochs": 1})
        assert not (tmp_path / "run").exists()
        train(tmp_path / "elsewhere", train={"epochs": 1})
        other.kill()
    train(tmp_path / "run", train={"epochs": 1})


def test_resume_does_not_go_on_with_another_run(tmp_path: Path) -> None:
    train(tmp_path / "a", seed=0)
    assert same(train(tmp_path / "a", seed=1, resume=True), train(tmp_path / "b", seed=1))


def test_torn_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path)
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(MdicoError, match=r"last.ckpt: is no readable checkpoint"):
        train(tmp_path, resume=True)


def test_checkpoints_hold_tensors_and_plain_values_only(tmp_path: Path) -> None:
    train(tmp_path, train={"schedule": "onecycle"})
    for name in ("best.ckpt", "last.ckpt"):
        assert torch.load(tmp_path / name, weights_only=True)["state_dict"]
    assert set(json.loads((tmp_path / "run.json").read_text())) == {"identity"}


def test_a_last_batch_of_one_pixel_is_skipped(tmp_path: Path) -> None:
    odd = make_batch(INPUTS, 33, seed=1)
    loaders = make_loader(odd), make_loader(VALIDATION, shuffle=False)
    trained = fit("mdico", INPUTS, LEGEND, make_section(train={"epochs": 1}), *loaders, counts(odd), tmp_path, 0)
    assert trained.samples == 33


def test_says_little_and_warns_never(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "quiet", False)
    train(tmp_path, train={"epochs": 20, "loggers": ("csv", "tensorboard")})
    out, err = capsys.readouterr()
    assert out == ""
    assert "Tip" not in err
    assert len([line for line in err.splitlines() if "waiting for data" in line]) == 20
    assert len(err.strip().splitlines()) <= 22
    assert "best epoch" in err
    assert not recwarn.list
    assert (tmp_path / "tensorboard").is_dir()


def test_shows_a_bar_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(console, "_force_terminal", True)
    assert [type(w) for w in watchers("mdico", 3)] == [Bar]
    train(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "val_f1" in err


def test_tensorboard_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.colearn.trainer.find_spec", lambda _: None)
    with pytest.raises(
        MdicoError, match=r"tensorboard, which is not installed: pip install 'mdico-cube\[tensorboard\]'"
    ):
        train(tmp_path, train={"loggers": ("tensorboard",)})


def test_devices_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MdicoError, match="no GPU was found"):
        train(tmp_path, train={"accelerator": "gpu"})
    with pytest.raises(MdicoError, match="16-mixed needs a GPU"):
        train(tmp_path, train={"precision": "16-mixed"})


def test_bfloat16_trains(tmp_path: Path) -> None:
    assert train(tmp_path, train={"precision": "bf16-mixed", "epochs": 2}).history[-1]["val_loss"] < 100


def test_diverged_training_is_named(tmp_path: Path) -> None:
    bad = Batch({m: i * torch.inf for m, i in TRAIN.images.items()}, TRAIN.valid, TRAIN.target)
    loaders = make_loader(bad), make_loader(VALIDATION, shuffle=False)
    with pytest.raises(MdicoError, match="training diverged: the validation loss of epoch 1 is nan"):
        fit("mdico", INPUTS, LEGEND, make_section(), *loaders, counts(TRAIN), tmp_path, 0)


def test_training_that_diverges_later_stops_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = Loop.on_validation_epoch_end

    def diverge(loop: Loop) -> None:
        close(loop)
        loop._validation["val_loss"] = math.nan if loop.current_epoch == 1 else 1.0

    monkeypatch.setattr(Loop, "on_validation_epoch_end", diverge)
    with pytest.raises(MdicoError, match="training diverged: the validation loss of epoch 2 is nan"):
        train(tmp_path, train={"epochs": 5, "keep": "last"})
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2, "a head and the first epoch"
    assert len(train(tmp_path / "best", train={"epochs": 3, "keep": "best"}).history) > 1, "the best one is of use"


def test_empty_sets_and_absent_classes_are_named(tmp_path: Path) -> None:
    empty = Batch(
        {m: i[:0] for m, i in TRAIN.images.items()}, {m: v[:0] for m, v in TRAIN.valid.items()}, torch.zeros(0)
    )
    full = make_loader(TRAIN)
    with pytest.raises(MdicoError, match="the validation set is empty"):
        fit("mdico", INPUTS, LEGEND, make_section(), full, make_loader(empty, shuffle=False), [9, 9, 9], tmp_path, 0)
    with pytest.raises(MdicoError, match="no training sample of class winter rape & turnip"):
        fit("mdico", INPUTS, LEGEND, make_section(), full, full, [9, 0, 9], tmp_path, 0)


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MdicoError, match="cannot be written"):
        train(tmp_path / "file")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_the_step_size_follows_its_schedule(schedule: str, tmp_path: Path) -> None:
    changes = {"epochs": 8, "schedule": schedule, "warmup": 2, "keep": "last", "learning_rate": 1e-3}
    rates = [row["learning_rate"] for row in train(tmp_path, train=changes).history]
    expected = []
    for epoch in range(1, 9):  # the rate of the step after each epoch of 3 steps
        step = 3 * epoch
        grown = min(1.0, (step + 1) / 6)
        done = min(1.0, step / 24)
        shape = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2}
        expected.append(
            1e-3 * grown * shape.get(schedule, 0.1 if 0.5 <= done < 0.75 else 0.01 if done >= 0.75 else 1.0)
        )
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_a_schedule_with_warmup_resumes_exactly(schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"train": {"epochs": 4, "schedule": schedule, "warmup": 1, "learning_rate": 5e-3}}
    whole = train(tmp_path / "whole", "independent", **changes)
    with monkeypatch.context() as patch:
        original, calls = Loop.training_step, []

        def break_off(self: Loop, *arguments: Any) -> Any:
            calls.append(1)
            if len(calls) > 7:
                raise KilledError
            return original(self, *arguments)

        patch.setattr(Loop, "training_step", break_off)
        with pytest.raises(KilledError):
            train(tmp_path / "cut", "independent", **changes)
    assert same(whole, train(tmp_path / "cut", "independent", resume=True, **changes))


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL, not an exception: nothing is tidied up."""
    code = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import torch;"
        "torch.set_num_threads(1); import test_trainer as t; n = [0]; step = t.Loop.training_step\n"
        "def killed(self, *a):\n    n[0] += 1\n    os.kill(os.getpid(), signal.SIGKILL) if n[0] == 8 else None\n"
        "    return step(self, *a)\n"
        "t.Loop.training_step = killed\nt.train(Path(sys.argv[1]), 'independent', train={'epochs': 4})"
    )
    cut = tmp_path / "cut"
    found = subprocess.run([sys.executable, "-c", code, str(cut), str(Path(__file__).parent)], check=False)
    assert found.returncode == -signal.SIGKILL
    assert not (cut / "history.csv").exists() or len((cut / "history.csv").read_text().splitlines()) < 5
    resumed = train(cut, "independent", resume=True, train={"epochs": 4})
    assert same(resumed, train(tmp_path / "whole", "independent", train={"epochs": 4}))


def test_every_device_has_its_own_batches() -> None:
    loader = EpochLoader(make_loader(TRAIN, 5), seed=0)  # 10 batches, the last of 3
    seen = []
    for rank in range(3):
        loader.share = (rank, 3)
        seen.append([batch.images["radar"] for batch in loader])
        assert len(loader) == 3
    loader.share = (0, 1)
    every = [batch.images["radar"] for batch in loader]
    assert len(every) == 10
    for rank in range(3):
        assert all(torch.equal(a, b) for a, b in zip(seen[rank], every[rank:9:3], strict=True))


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    trained = train(tmp_path, "independent", train={"epochs": 6, "devices": 2, "learning_rate": 1e-2})
    assert len(trained.history) == 6
    assert trained.history[-1]["val_f1"] > 0.8
    with torch.no_grad():
        loss = trained.model.losses(VALIDATION)["main"]
    best = min(row["val_loss"] for row in trained.history)
    assert float(loss) == pytest.approx(best, rel=0.05), "the weights are those that were validated"


@pytest.mark.slow
def test_two_processes_give_the_same_weights_again_also_when_cut_off(tmp_path: Path) -> None:
    """Each in the precision that this machine has; the second half of a run is that of a run in one piece."""
    options = {"devices": 2, "strategy": "ddp", "precision": "bf16-mixed", "epochs": 4, "keep": "last"}
    whole, again = (train(tmp_path / name, "mdico", train=options) for name in ("whole", "again"))
    assert same(whole, again)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "on_train_epoch_start", _stop_at(2, Loop.on_train_epoch_start))
        with pytest.raises(Exception, match="cut off"):
            train(tmp_path / "cut", "mdico", train=options)
    resumed = train(tmp_path / "cut", "mdico", resume=True, train=options)
    assert [row["epoch"] for row in resumed.history] == [0, 1, 2, 3]
    for key, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[key], msg=key)


def _stop_at(epoch: int, before: Any) -> Any:
    def start(loop: Loop) -> None:
        if loop.current_epoch == epoch:
            raise RuntimeError("cut off")
        before(loop)

    return start


def test_strategies_that_cannot_share_the_windows_are_named(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match=r"train.strategy fsdp would start the whole command again"):
        train(tmp_path, train={"devices": 2, "strategy": "fsdp"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_gpu_trains_what_a_processor_trains(precision: str, tmp_path: Path) -> None:
    options = {"epochs": 6, "precision": precision, "learning_rate": 1e-2}
    trained = train(tmp_path / "gpu", "mdico", train={**options, "accelerator": "gpu"})
    assert trained.history[-1]["val_f1"] > 0.8
    assert all(value.device.type == "cpu" for value in trained.model.state_dict().values())
    if torch.cuda.device_count() > 1:
        both = train(tmp_path / "both", "mdico", train={**options, "accelerator": "gpu", "devices": 2})
        assert both.history[-1]["val_f1"] > 0.8


def test_loggers_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.colearn.trainer.find_spec", lambda _: None)
    with pytest.raises(MdicoError, match="mlflow, which is not installed: pip install mlflow-skinny"):
        train(tmp_path, train={"loggers": ("mlflow",)})


def test_a_logger_that_is_there_and_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("Module not found: 'mlflow'")

    monkeypatch.setattr("mdico_cube.colearn.trainer.find_spec", lambda _: True)
    monkeypatch.setattr("mdico_cube.colearn.trainer.MLFlowLogger", broken)
    with pytest.raises(MdicoError, match=r"train\.loggers: one of mlflow cannot be loaded .* Install it again"):
        train(tmp_path, train={"loggers": ("mlflow",)})


def test_a_sensor_that_was_never_observed_is_named(tmp_path: Path) -> None:
    blind = replace(INPUTS["optical"], stats=replace(INPUTS["optical"].stats, count=0))
    loaders = make_loader(TRAIN), make_loader(VALIDATION, shuffle=False)
    with pytest.raises(MdicoError, match=r"mdico: optical was observed at no training pixel"):
        fit("mdico", {**INPUTS, "optical": blind}, LEGEND, make_section(), *loaders, counts(TRAIN), tmp_path, 0)


def test_a_single_sample_is_too_few(tmp_path: Path) -> None:
    loaders = make_loader(TRAIN.rows(0, 1)), make_loader(VALIDATION, shuffle=False)
    with pytest.raises(MdicoError, match="one training sample is too few"):
        fit("independent", INPUTS, LEGEND, make_section(), *loaders, [1, 1, 1], tmp_path, 0)


def test_ctrl_c_while_training_is_what_it_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Loop, "training_step", stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", train={"epochs": 1})
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, handler)
