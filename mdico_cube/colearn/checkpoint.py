"""A training folder in, the state of the run in it out: what to go on from, and the best weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.tasks import Scale
from mdico_cube.colearn.trained import Row, check_finite
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ColearnSection, TrainSection
from mdico_cube.spec import InputSpec, LabelClass

LAST = "last.ckpt"
"""File of a run's folder that it can go on from."""


def identity_of(
    method: str,
    inputs: dict[str, InputSpec],
    legend: Sequence[LabelClass],
    section: ColearnSection,
    class_counts: Sequence[int],
    samples: int,
    seed: int,
    scale: Scale,
) -> str:
    """A digest of everything a resumed run must have in common with the one it goes on with."""
    facts = {
        "method": method,
        "inputs": {m: asdict(spec) for m, spec in inputs.items()},
        "legend": [asdict(c) for c in legend],
        "section": section.model_dump(mode="json", exclude={"methods": True, "seeds": True, "train": {"loggers"}}),
        "class_counts": [int(count) for count in class_counts],
        "samples": samples,
        "seed": seed,
        "scale": asdict(scale),
        "weights": _digest(section.encoder.weights),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _digest(path: Path | None) -> str:
    """SHA-256 of a pretrained encoder's file; empty where there is none to read."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(folder: Path, identity: str, resume: bool) -> dict[str, Any] | None:
    """A folder ready to train in, and the checkpoint to go on from if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    card, last = folder / "run.json", folder / LAST
    if resume and card.exists() and last.exists():
        if json.loads(card.read_text(encoding="utf-8")).get("identity") == identity:
            return load(last)
        say(f"{folder}: inputs, samples or options have changed, so training starts anew")
    for name in ("best.ckpt", LAST, "history.csv", "mlflow.db"):
        (folder / name).unlink(missing_ok=True)
    for name in ("logs", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    card.write_text(json.dumps({"identity": identity}), encoding="utf-8")
    return None


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; nothing in it is executed."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file makes torch raise
        raise MdicoError(f"{path}: is no readable checkpoint. Delete it and train again without resume.") from error
    return checkpoint


def finished(checkpoint: dict[str, Any], section: TrainSection) -> bool:
    """Whether the run that wrote this checkpoint had come to its end."""
    stopped = [state.get("stopped_epoch", 0) for state in checkpoint["callbacks"].values()]
    return len(checkpoint["rows"]) >= section.epochs or any(stopped)


def restore(model: CoLearner, history: list[Row], folder: Path, keep: str) -> int:
    """Put the "best" or "last" epoch's weights into the model and give its number."""
    check_finite(history[0])
    state: dict[str, Any] = load(folder / f"{keep}.ckpt")
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)})
    model.cpu().eval()
    return int(state["epoch"])
