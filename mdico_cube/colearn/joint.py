"""A trained model of every sensor in, one folder that predicts from any subset of them out, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError

from mdico_cube.colearn.bundle import CONFIG, WEIGHTS, read_weights, replacing
from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.colearn.disk import disk_faults
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.errors import MdicoError

FILE = "joint.json"
"""Its presence tells such a folder from one sensor's bundle, which has bundle.json."""


class JointConfig(BaseModel):
    """A model of several sensors. What each takes stands in the config of its own bundle, which is copied here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    """Version of this file's layout."""
    method: str
    """Name in mdico_cube.colearn.registry.METHODS; one that takes any subset."""
    members: dict[str, BundleConfig]
    """Sensor -> its bundle's config, in the order of the model's inputs."""
    weights_sha256: str
    """Digest of weights.safetensors."""

    @property
    def digest(self) -> str:
        """SHA-256 of what determines predictions."""
        facts = [self.method, *(member.digest for member in self.members.values()), self.weights_sha256]
        return hashlib.sha256(" ".join(facts).encode()).hexdigest()


@dataclass(frozen=True)
class JointBundle:
    """A model of several sensors, ready to predict from those that are there."""

    config: JointConfig
    model: CoLearner
    """In eval mode; `fused(images, valid)` gives logits (B, K, H, W)."""
    folder: Path


def save_joint(
    folder: Path, trained: TrainedModel, members: Mapping[str, BundleConfig], overwrite: bool = False
) -> Path:
    """Export a model of every sensor together: weights.safetensors and joint.json, whole or not at all.

    The law: `load_joint(folder).model.fused(x, v) == trained.model.fused(x, v)`.

    Args:
        folder: of the bundle; must not exist unless `overwrite`.
        trained: what `fit` gave, by a method that takes any subset of the sensors.
        members: sensor -> config of its own bundle.
        overwrite: replace what stands there.

    Raises:
        MdicoError: the method needs every sensor, a folder that exists, or a disk that cannot be written.
    """
    if not get_method(trained.method).any_subset:
        raise MdicoError(f"{trained.method} needs every sensor at every pixel and fuses no subset. Use another method.")
    if folder.exists() and not overwrite:
        raise MdicoError(f"bundle {folder}: exists already. Name another folder or allow overwriting.")
    state = {key: value.detach().cpu().clone().contiguous() for key, value in trained.model.state_dict().items()}
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    config = JointConfig(
        method=trained.method,
        members={name: members[name] for name in trained.inputs},
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    with disk_faults(folder), replacing(folder) as part:
        (part / WEIGHTS).write_bytes(weights)
        (part / FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder


def is_joint(folder: Path) -> bool:
    """True for the folder of a model of several sensors."""
    return (folder / FILE).is_file() and not (folder / CONFIG).exists()


def load_joint(folder: Path) -> JointBundle:
    """A model of several sensors from its folder. Only JSON and safetensors are read.

    Raises:
        MdicoError: a missing or damaged file, or weights that do not fit the config.
    """
    folder = Path(folder)
    try:
        config = JointConfig.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise MdicoError(f"bundle {folder}: {FILE} is missing or damaged. Train it again.") from error
    first = next(iter(config.members.values()))
    inputs = {name: member.spec for name, member in config.members.items()}
    model = get_method(config.method)(inputs, len(first.classes), first.colearn, None)
    try:
        model.load_state_dict(read_weights(folder, config.weights_sha256))
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise MdicoError(f"bundle {folder}: the weights do not fit the config ({detail}). Train it again.") from error
    return JointBundle(config, model.eval().requires_grad_(False), folder)
