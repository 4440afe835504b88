"""A bundle and a samples store in, what bf16 or int8 costs out: the share of validation pixels of another class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from mdico_cube.colearn.bundle import Bundle, add_scores, change_config, load_bundle
from mdico_cube.colearn.bundle_config import Quantisation
from mdico_cube.colearn.fast import fast_form, folded
from mdico_cube.colearn.int8 import observe
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.predict import CHANGED, PIXELS
from mdico_cube.patches.dataset import WindowDataset
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import TRAIN, VALIDATION

COUNTED = "bf16_pixels"
"""Score of a bundle: validation pixels that CHANGED was measured on."""
LIMIT = 0.005
"""Largest share of validation pixels that may get another class in 8-bit integers."""
CALIBRATED = 1 << 15
"""Training pixels that are enough to calibrate with."""


def record_bf16_loss(bundle: Path, samples: Path, cube: Location | None = None) -> float:
    """Measure what bf16 changes for one bundle and write it into the bundle's scores and card.

    A bundle that carries the figure already is left alone; training a bundle again removes it.

    Args:
        bundle: folder of the bundle.
        samples: the samples store it was trained with.
        cube: where the pixels are read if the store holds none.

    Returns:
        Share of the validation windows' observed pixels whose class in bf16 is not the one in float32.
    """
    scores = load_bundle(bundle).config.scores
    if CHANGED not in scores:
        changed, pixels = bf16_loss(bundle, samples, cube)
        scores = add_scores(bundle, {CHANGED: changed, COUNTED: float(pixels)}).scores
    return float(scores[CHANGED])


def bf16_loss(bundle: Path, samples: Path, cube: Location | None = None) -> tuple[float, int]:
    """(share of pixels whose class changes in bf16, observed pixels it was counted on) over the validation windows."""
    model = load_bundle(bundle).model
    return _changed(fast_form(model), fast_form(model, "bf16"), _pixels(bundle, samples, cube, VALIDATION))


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
        MdicoError: a model that has no 8-bit form, no pixels to calibrate with, or too many other classes.
    """
    loaded = load_bundle(bundle)
    if loaded.config.int8 is not None and not force:
        return loaded.config.int8
    found = int8_loss(loaded, samples, cube)
    if found.changed > LIMIT and not force:
        raise MdicoError(
            f"bundle {bundle}: {found.changed:.2%} of {found.counted} validation pixels get another class in int8, at "
            f"most {LIMIT:.1%} may. Use bf16, or force it with `mdico quantize --force`."
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
    changed, counted = _changed(exact, rough, _pixels(loaded.folder, samples, cube, VALIDATION))
    return Quantisation(ranges=ranges, pixels=count, changed=changed, counted=counted)


def _changed(exact: nn.Module, rough: nn.Module, pixels: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """(share of pixels that get different classes, their number)."""
    changed = count = 0
    for values, valid in pixels:
        with torch.inference_mode():
            classes = [form(values, valid).argmax(dim=1) for form in (exact, rough)]
        changed += int((classes[0] != classes[1]).sum())
        count += values.shape[-1]
    return changed / max(count, 1), count


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
