"""What is learned on a card is what is learned on a processor: no tensor of a method is left behind on either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section
from test_trainer import train

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.registry import ENCODERS
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.registry import METHODS, get_method
from mdico_cube.colearn.watched import Watched

CELLS = ("gru", "lstm")
"""A card computes them by operators that no processor has."""


def learned(method: str, batch: Batch, device: torch.device, **section: Any) -> dict[str, Any]:
    """Losses, what is scored and the figure of each output, of a method made from one seed."""
    torch.manual_seed(0)
    plan = make_section(**section)
    weights = balanced_weights([4, 5, 3], [each.name for each in LEGEND]) if plan.task.kind == "classes" else None
    outputs = 1 if plan.task.kind == "regression" else len(LEGEND)
    model = get_method(method)(make_inputs(), outputs, plan, weights).train().to(device)
    with torch.no_grad(), model.prepared(batch if device.type == "cpu" else batch.to(device)) as ready:
        torch.manual_seed(1)
        losses, logits = model.learn(ready)
        figures = {}
        for name, found in logits.items():
            score = Watched(plan.task, outputs)
            score.reset(device)
            score.update(found, model.target(ready, name))
            figures[name] = score.compute()
    assert all(each.device == device for each in (*losses.values(), *logits.values()))
    sums = {name: float(loss) for name, loss in losses.items()}
    return {**sums, **{f"mean {name}": float(each.mean()) for name, each in logits.items()}, **figures}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_a_card_as_on_a_processor(method: str, card: torch.device) -> None:
    batch = make_batch(make_inputs(), 12)
    encoder = {"dropout": 0.0}
    near, far = (learned(method, batch, device, encoder=encoder) for device in (torch.device("cpu"), card))
    assert near == pytest.approx(far, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_learns_on_a_card_as_on_a_processor(name: str, card: torch.device) -> None:
    if name in CELLS and not torch.backends.cuda.is_built():
        pytest.skip("needs a real card")
    batch = make_batch(make_inputs(), 6, size=16)
    encoder = {"name": name, "dropout": 0.0, "layers": 1, "heads": 2, "width": 16, "hidden": 16}
    near, far = (learned("mdico", batch, device, encoder=encoder) for device in (torch.device("cpu"), card))
    assert near == pytest.approx(far, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("method", METHODS)
def test_every_task_learns_on_a_card_as_on_a_processor(method: str, kind: str, card: torch.device) -> None:
    """With windows that have dates of their own."""
    batch = make_batch(make_inputs(), 12)
    assert batch.target is not None
    target = batch.target + 1 if kind == "multilabel" else batch.target.float()
    days = torch.arange(6.0) * 30 + torch.arange(12.0)[:, None]
    batch = batch.replace(target=target, dates={"radar": days, "optical": days + 2})
    options = {"task": {"kind": kind}, "encoder": {"name": "ltae", "heads": 2, "dropout": 0.0}}
    near, far = (learned(method, batch, device, **options) for device in (torch.device("cpu"), card))
    assert near == pytest.approx(far, rel=1e-3, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here: test_trainer trains on it")
def test_a_whole_training_on_a_card_is_the_processors(tmp_path: Path) -> None:
    script, one = Path(__file__).with_name("train_on_card.py"), {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, tmp_path, "32-true", "16-mixed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["devices"] for each in found.values()] == [["cpu"]] * 2
    exact, rough = (each["history"] for each in found.values())
    near = train(tmp_path / "near", "mdico", train={"epochs": 6, "learning_rate": 1e-2}).history
    for name in ("train_loss", "val_loss", "val_f1"):
        assert [row[name] for row in near] == pytest.approx([row[name] for row in exact], rel=1e-3), name
    assert rough[-1]["train_loss"] < rough[0]["train_loss"]
    assert rough[-1]["val_f1"] > rough[0]["val_f1"]
