"""A bundle and a samples store in, what bf16, fp16 or int8 costs out: how far validation pixels' answers change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from mdico_cube.colearn.bundle import Bundle, add_scores, change_config, load_bundle
from mdico_cube.colearn.bundle_config import Quantisation
from mdico_cube.colearn.encoders.registry import halo_of
from mdico_cube.colearn.fast import fast_form, folded
from mdico_cube.colearn.int8 import observe
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.block import PIXELS
from mdico_cube.maps.forms import ImageForm
from mdico_cube.patches.dataset import WindowDataset
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import TRAIN, VALIDATION
from mdico_cube.recipe import Precision

_AT_ONCE = 16  # windows of a model that looks at neighbours

LIMIT = 0.005
"""Largest share of validation pixels that may get another class, or of labels, in 8-bit integers."""
VALUE_LIMIT = 0.05
"""Largest root of the mean squared change of a value, in standard deviations of the training values."""
CALIBRATED = 1 << 15
"""Training pixels that are enough to calibrate with."""
CHANGES = {"classes": "changed_classes", "multilabel": "changed_labels", "regression": "rms_change"}
"""Task -> what a shorter arithmetic changes, as scores name it behind the arithmetic."""


def change_name(precision: Precision, task: str) -> str:
    """Score of a bundle: what a shorter arithmetic changes in the answers of validation pixels."""
    return f"{precision}_{CHANGES[task]}"


def record_low_loss(bundle: Path, samples: Path, cube: Location | None = None, precision: Precision = "bf16") -> float:
    """Measure what a shorter arithmetic changes for one bundle and write it into the bundle's scores and card.

    A bundle that carries the figure already is left alone; training a bundle again removes it.

    Args:
        bundle: folder of the bundle.
        samples: the samples store it was trained with.
        cube: where the pixels are read if the store holds none.
        precision: bf16 or fp16.

    Returns:
        Of the validation windows' observed pixels the share whose class is not the one in float32 (of several labels,
        the share of their answers), or of a value the root of its mean squared change, in standard deviations.
    """
    config = load_bundle(bundle).config
    name, scores = change_name(precision, config.task.kind), config.scores
    if name not in scores:
        changed, pixels = low_loss(bundle, samples, cube, precision)
        scores = add_scores(bundle, {name: changed, f"{precision}_pixels": float(pixels)}).scores
    return float(scores[name])


def low_loss(
    bundle: Path, samples: Path, cube: Location | None = None, precision: Precision = "bf16"
) -> tuple[float, int]:
    """(change, observed pixels it was counted on) over the validation windows; see `record_low_loss`."""
    loaded = load_bundle(bundle)
    model, task = loaded.model, loaded.config.task.kind
    if halo_of(model):
        forms = ImageForm(model), ImageForm(model, precision)
        return _changed(*forms, _windows(bundle, samples, cube, VALIDATION), task)
    return _changed(fast_form(model), fast_form(model, precision), _pixels(bundle, samples, cube, VALIDATION), task)


def record_int8(bundle: Path, samples: Path, cube: Location | None = None, force: bool = False) -> Quantisation:
    """Calibrate a bundle for 8-bit integers and write what that needs and costs into it.

    The ranges of the values inside the model are measured on the training windows, what changes is counted on the
    validation windows. A bundle that is calibrated already is left alone, unless it is forced.

    Args:
        bundle: folder of the bundle.
        samples: the samples store it was trained with.
        cube: where the pixels are read if the store holds none.
        force: keep the calibration even where more than LIMIT of the classes change.

    Raises:
        MdicoError: a model that has no 8-bit form, no pixels to calibrate with, or too much changes.
    """
    loaded = load_bundle(bundle)
    if loaded.config.int8 is not None and not force:
        return loaded.config.int8
    found = int8_loss(loaded, samples, cube)
    value = loaded.config.task.kind == "regression"
    if found.changed > (VALUE_LIMIT if value else LIMIT) and not force:
        pixels = f"of {found.counted} validation pixels"
        classes = f"{found.changed:.2%} {pixels} get another class in int8, at most {LIMIT:.1%} may"
        values = f"values {pixels} change by {found.changed:.3f} standard deviations in int8, at most {VALUE_LIMIT} may"
        raise MdicoError(
            f"bundle {bundle}: {values if value else classes}. Use bf16, or force it with `mdico quantize --force`."
        )
    change_config(bundle, int8=found)
    return found


def int8_loss(loaded: Bundle, samples: Path, cube: Location | None = None) -> Quantisation:
    """What 8-bit integers need and cost, without writing it anywhere.

    Raises:
        MdicoError: a model that has no 8-bit form, or no observed pixels in the training or validation windows.
    """
    branched = folded(loaded.model)
    if branched is None:
        raise MdicoError(
            f"bundle {loaded.folder}: precision int8 is for models of convolutions and dense layers (encoders tempcnn "
            "and mlp). Use bf16."
        )
    chain, branches = branched
    rows, count = [], 0
    for values, valid in _pixels(loaded.folder, samples, cube, TRAIN):
        rows.append(chain.inputs.rows(values, valid))
        count += len(rows[-1])
        if count >= CALIBRATED:
            break
    if not count:
        raise MdicoError(f"bundle {loaded.folder}: no training window of {samples} was observed. Draw samples again.")
    ranges = observe(branches, torch.cat(rows))
    exact, rough = fast_form(loaded.model), fast_form(loaded.model, "int8", ranges=ranges)
    pixels, task = _pixels(loaded.folder, samples, cube, VALIDATION), loaded.config.task.kind
    changed, counted = _changed(exact, rough, pixels, task)
    return Quantisation(ranges=ranges, pixels=count, changed=changed, counted=counted)


def _changed(
    exact: nn.Module, rough: nn.Module, given: Iterable[tuple[Tensor, Tensor]], task: str
) -> tuple[float, int]:
    """(what `record_low_loss` says of two forms, observed pixels)."""
    changed, count = 0.0, 0
    for values, valid in given:
        with torch.inference_mode():
            first, second = (_rows(form(values, valid), valid) for form in (exact, rough))
        if task == "regression":
            changed += float(((first - second) ** 2).sum())
        elif task == "multilabel":
            changed += float(((first > 0) != (second > 0)).float().mean(dim=1).sum())
        else:
            changed += int((first.argmax(dim=1) != second.argmax(dim=1)).sum())
        count += len(first)
    mean = changed / max(count, 1)
    return sqrt(mean) if task == "regression" else mean, count


def _rows(outputs: Tensor, valid: Tensor) -> Tensor:
    """(N, K) of pixels; of images (B, K, H, W) those that were observed (B, T, H, W)."""
    return outputs if outputs.dim() == 2 else outputs.movedim(1, -1)[valid.any(dim=1)]


def _windows(bundle: Path, samples: Path, cube: Location | None, fold: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A fold's windows, a few at a time: (B, T, C, H, W) physical and (B, T, H, W) observed."""
    name, store = load_bundle(bundle).config.modality, open_samples(samples)
    windows = WindowDataset(window_source(store, (fold,), (name,), None if store.pixels else cube))
    for start in range(0, len(windows), _AT_ONCE):
        batch = windows.__getitems__(list(range(start, min(start + _AT_ONCE, len(windows)))))
        yield batch.images[name], batch.valid[name]


def _pixels(bundle: Path, samples: Path, cube: Location | None, fold: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Observed pixels of a fold's windows, batch by batch: (T, C, N) physical and (T, N) observed."""
    name = load_bundle(bundle).config.modality
    store = open_samples(samples)
    windows = WindowDataset(window_source(store, (fold,), (name,), None if store.pixels else cube))
    for start in range(0, len(windows), PIXELS):
        batch = windows.__getitems__(list(range(start, min(start + PIXELS, len(windows)))))
        values = batch.images[name].permute(1, 2, 0, 3, 4).flatten(2)  # (T, C, N)
        valid = batch.valid[name].transpose(0, 1).flatten(1)  # (T, N)
        seen = valid.any(dim=0)
        if seen.any():
            yield values[..., seen], valid[:, seen]
