"""A trained model in, one sensor's model as a folder out, and back: safetensors and JSON, nothing that executes."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mdico_cube import __version__
from mdico_cube.colearn.applicability import Reference
from mdico_cube.colearn.bundle_config import Applicability, BundleConfig, Training, check_fit, read_config
from mdico_cube.colearn.calibrate import cooled
from mdico_cube.colearn.card import model_card, notebook_card
from mdico_cube.colearn.disk import disk_faults
from mdico_cube.colearn.mlm import model_item
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import FIGURE, answer
from mdico_cube.colearn.trained import Row, TrainedModel
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection

__all__ = ["Bundle", "BundleConfig", "add_scores", "check_fit", "load_bundle", "save_bundle"]

WEIGHTS, CONFIG, ITEM, CARD = "weights.safetensors", "bundle.json", "item.json", "README.md"
REACH = "applicability.safetensors"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Bundle:
    """One sensor's model, ready to predict."""

    config: BundleConfig
    model: nn.Module
    """In eval mode: images (B, T, C, H, W) in physical units and valid (B, T, H, W) to logits (B, K, H, W)."""
    folder: Path
    reference: Reference | None = None
    """What its training data look like to it."""

    def answer(self, images: Tensor, valid: Tensor) -> Tensor:
        """Physical values (B, T, C, H, W) and observed (B, T, H, W) to what they mean, (B, K, H, W).

        Class shares, the share of each label, or values in their unit.
        """
        with torch.inference_mode():
            return answer(self.config.task, self.model(images, valid), self.config.scale)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook_card(self.config, str(self.folder)).html()


def save_bundle(
    folder: Path,
    trained: TrainedModel,
    modality: str,
    name: str | None = None,
    bbox: Box | None = None,
    scores: dict[str, Any] | None = None,
    overwrite: bool = False,
    temperature: float = 1.0,
    reference: Reference | None = None,
) -> Path:
    """Export one sensor's model: weights.safetensors, bundle.json, item.json (STAC, MLM extension) and README.md.

    The folder appears whole or not at all. The law: `load_bundle(folder).model(x) == trained.model.single(m)(x) / T`
    with T = 1 unless a temperature is given.

    Args:
        folder: of the bundle; must not exist unless `overwrite`.
        trained: what `fit` gave.
        modality: the sensor the model is to map with.
        name: letters, digits, dot, dash and underscore; default method-modality-seedN.
        bbox: west, south, east, north in degrees of the training region.
        scores: figures to write into config and card.
        overwrite: replace what stands there.
        temperature: T of the calibration (`mdico_cube.colearn.calibrate`); it goes into the weights of the last map.
        reference: what the training data look like to the model (`mdico_cube.colearn.applicability`).

    Returns:
        The folder.

    Raises:
        MdicoError: an unknown modality, a folder that exists, or a disk that cannot be written.
    """
    if folder.exists() and not overwrite:
        raise MdicoError(f"bundle {folder}: exists already. Name another folder or allow overwriting.")
    single = trained.model.single(modality)
    state = {key: value.detach().cpu().contiguous() for key, value in single.state_dict().items()}
    state = state if temperature == 1.0 else cooled(single, state, temperature)
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    config = _config(trained, modality, single, weights, name, bbox, scores or {}, temperature)
    reach = None if reference is None else reference.pack()
    if reference is not None and reach is not None:
        facts = Applicability(
            centres=len(reference.centres), threshold=reference.threshold, sha256=hashlib.sha256(reach).hexdigest()
        )
        config = config.model_copy(update={"applicability": facts})
    with disk_faults(folder), replacing(folder) as part:
        (part / WEIGHTS).write_bytes(weights)
        if reach is not None:
            (part / REACH).write_bytes(reach)
        for file, text in _texts(config, len(weights)).items():
            (part / file).write_text(text, encoding="utf-8")
    return folder


def load_bundle(folder: Path) -> Bundle:
    """A bundle from its folder. Only JSON and safetensors are read; nothing in them is executed.

    Raises:
        MdicoError: a missing or damaged file, another version of the layout, or weights that do not fit the config.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    state = read_weights(folder, config.weights_sha256)
    with torch.device("meta"):
        model = get_method(config.method).build_single(config.spec, len(config.classes), config.colearn)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise MdicoError(
            f"bundle {folder}: the weights do not fit the config ({detail}). Export it again with this version."
        ) from error
    reach = config.applicability
    reference = None if reach is None else Reference.unpack(_checked(folder, REACH, reach.sha256))
    return Bundle(config, model.eval().requires_grad_(False), folder, reference)


def add_scores(folder: Path, scores: dict[str, Any]) -> BundleConfig:
    """Add figures to a bundle's config and card; a score of the same name is replaced. Each file changes at once.

    Raises:
        MdicoError: no such bundle, or a disk that cannot be written.
    """
    return change_config(folder, scores={**read_config(Path(folder) / CONFIG).scores, **scores})


def change_config(folder: Path, **fields: Any) -> BundleConfig:
    """Replace fields of a bundle's config that do not decide what it predicts; its texts follow.

    Raises:
        MdicoError: no such bundle, or a disk that cannot be written.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG).model_copy(update=fields)
    with disk_faults(folder):
        texts = _texts(config, (folder / WEIGHTS).stat().st_size)
        for file, text in texts.items():
            (folder / f"{file}.part").write_text(text, encoding="utf-8")
        for file in texts:
            (folder / f"{file}.part").replace(folder / file)
    return config


def _config(
    trained: TrainedModel,
    modality: str,
    single: nn.Module,
    weights: bytes,
    name: str | None,
    bbox: Box | None,
    scores: dict[str, Any],
    temperature: float,
) -> BundleConfig:
    spec = trained.inputs[modality]
    best = next(row for row in trained.history if row["epoch"] == trained.best_epoch)
    return BundleConfig(
        name=name or f"{trained.method}-{modality}-seed{trained.seed}",
        method=trained.method,
        modality=modality,
        title=spec.modality.title,
        variable=spec.modality.variable,
        temporal=spec.modality.temporal,
        bands=spec.modality.band_names,
        units=spec.modality.units,
        storage=spec.modality.storage,
        steps=spec.steps,
        stats=spec.stats,
        classes=trained.legend,
        colearn=portable(trained.section),
        scale=trained.scale,
        seed=trained.seed,
        training=Training(
            samples=trained.samples,
            class_counts=trained.class_counts,
            epochs=len(trained.history),
            best_epoch=trained.best_epoch,
            val_loss=best["val_loss"],
            **_figure(trained, best, modality),
            seconds=trained.seconds,
        ),
        parameters=sum(p.numel() for p in single.parameters()),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        bbox=bbox,
        temperature=temperature,
        scores=scores,
        versions={
            "mdico_cube": __version__,
            "torch": str(torch.__version__),
            "lightning": version("lightning"),
            "python": platform.python_version(),
        },
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _figure(trained: TrainedModel, row: Row, modality: str) -> dict[str, float | None]:
    """val_f1 or val_r2 of one modality; JSON has no NaN."""
    name = f"val_{FIGURE[trained.section.task.kind][0]}"
    value = row[f"{name}_{modality}"]
    return {name: value if isfinite(value) else None}


def _texts(config: BundleConfig, weights_bytes: int) -> dict[str, str]:
    """The bundle's text files by name."""
    return {
        CONFIG: config.model_dump_json(indent=2) + "\n",
        ITEM: json.dumps(model_item(config, weights_bytes), indent=2, allow_nan=False) + "\n",
        CARD: model_card(config) + "\n",
    }


def portable(section: ColearnSection) -> ColearnSection:
    """Options as a bundle keeps them: of a pretrained encoder's file only the name, as the bundle holds its weights."""
    path = section.encoder.weights
    if path is None:
        return section
    return section.model_copy(update={"encoder": section.encoder.model_copy(update={"weights": Path(path.name)})})


def read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    """The weights of a bundle.

    Raises:
        MdicoError: missing, damaged, or another file than was exported.
    """
    data = _checked(folder, WEIGHTS, sha256)
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise MdicoError(f"bundle {folder}: {WEIGHTS} is damaged ({error}). Export the bundle again.") from error


def _checked(folder: Path, name: str, sha256: str) -> bytes:
    """A file of a bundle, held against its checksum."""
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise MdicoError(
            f"bundle {folder}: {name} cannot be read ({error.strerror}). Export the bundle again."
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise MdicoError(
            f"bundle {folder}: {name} is not the file that was exported (its checksum differs). "
            "Copy the bundle again or export it again."
        )
    return data


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one to write into; takes its place when all went well, else vanishes."""
    part = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            old = folder.with_name(f"{part.name}.old")
            folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old)
        else:
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
