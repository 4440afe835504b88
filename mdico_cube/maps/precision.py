"""A bundle and a samples store in, what bf16 costs out: the share of validation pixels that get another class."""

from __future__ import annotations

from pathlib import Path

import torch

from mdico_cube.colearn.bundle import add_scores, load_bundle
from mdico_cube.colearn.fast import fast_form
from mdico_cube.cube.target import Location
from mdico_cube.maps.predict import CHANGED, PIXELS
from mdico_cube.patches.dataset import WindowDataset
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import VALIDATION

COUNTED = "bf16_pixels"
"""Score of a bundle: validation pixels that CHANGED was measured on."""


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
    loaded = load_bundle(bundle)
    name = loaded.config.modality
    store = open_samples(samples)
    windows = WindowDataset(window_source(store, (VALIDATION,), (name,), None if store.pixels else cube))
    exact, rough = fast_form(loaded.model), fast_form(loaded.model, "bf16")
    changed = pixels = 0
    for start in range(0, len(windows), PIXELS):
        batch = windows.__getitems__(list(range(start, min(start + PIXELS, len(windows)))))
        values = batch.images[name].permute(1, 2, 0, 3, 4).flatten(2)  # (T, C, N)
        valid = batch.valid[name].transpose(0, 1).flatten(1)  # (T, N)
        seen = valid.any(dim=0)
        with torch.inference_mode():
            classes = [form(values[..., seen], valid[:, seen]).argmax(dim=1) for form in (exact, rough)]
        changed += int((classes[0] != classes[1]).sum())
        pixels += int(seen.sum())
    return changed / max(pixels, 1), pixels
