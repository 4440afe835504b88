"""Training and test pixels in, a co-learning method's predictions for every subset of sensors out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mdico_cube.batch import Batch
from mdico_cube.benchmarks.classical import fit_classical
from mdico_cube.benchmarks.feed import SeriesLoader
from mdico_cube.benchmarks.folds import Rows
from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.colearn.trainer import fit
from mdico_cube.patches.stats import RunningStats
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import Band, Floats, InputSpec, LabelClass, Modality, Storage

_WATCHED = 64  # training pixels whose loss is shown where nothing is held out


def make_inputs(series: PixelSeries, rows: Rows) -> dict[str, InputSpec]:
    """What a model takes of each modality, with the statistics of these rows."""
    inputs = {}
    for name, values in series.values.items():
        bands = tuple(Band(f"{name}{i}", "1") for i in range(values.shape[2]))
        steps = series.steps[name]
        modality = Modality(name, name, bands, Storage("float32", 1.0, float("nan")), steps != ("",))
        stats = RunningStats(len(bands))
        stats.add(values[rows][..., None, None], series.valid[name][rows][..., None, None])
        inputs[name] = InputSpec(modality, steps, stats.result())
    return inputs


def make_batch(series: PixelSeries, rows: Rows) -> Batch:
    """These rows as windows of one pixel."""
    images = {m: torch.from_numpy(v[rows][..., None, None]) for m, v in series.values.items()}
    valid = {m: torch.from_numpy(v[rows][..., None, None]) for m, v in series.valid.items()}
    return Batch(images, valid, torch.from_numpy(series.target[rows])[:, None, None])


def filled_features(series: PixelSeries, rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
    """Modality -> (N, T * C) of all pixels, scaled and gap-filled as the networks see them; `rows` give the scale."""
    batch = make_batch(series, np.arange(len(series.target)))
    inputs = make_inputs(series, rows)
    return {m: Normalise(spec)(batch.images[m], batch.valid[m]).flatten(1).numpy() for m, spec in inputs.items()}


def classical_probabilities(
    series: PixelSeries, name: str, seed: int, train: Rows, test: Rows
) -> dict[str, npt.NDArray[np.float64]]:
    """Subset -> probabilities (n, K) of the test rows: one model per sensor and one of all of them side by side."""
    features = filled_features(series, train)
    wanted = {t: n for t, n in subsets(tuple(features)).items() if len(n) in (1, len(features))}
    merged = {title: np.concatenate([features[m] for m in names], axis=1) for title, names in wanted.items()}
    classes, target = len(series.classes), series.target[train]
    return {t: fit_classical(name, seed, x[train], target, x[test], classes) for t, x in merged.items()}


def predict_method(
    method: str, series: PixelSeries, section: ColearnSection, seed: int, train: Rows, test: Rows
) -> dict[str, Rows]:
    """Train on some pixels and predict others, with every subset of sensors the method can.

    Under the protocol "honest" no test row is seen in any way: the last epoch's weights are kept and every training
    pixel trains. Under "paper" training stops early on the test rows, as the published figures did.

    Returns:
        Subset ("only S1", "all but S1", "all") -> class index of each test row.
    """
    watched = test if section.protocol == "paper" else train[:_WATCHED]
    model = train_method(method, series, section, seed, train, watched).model
    return {title: logits.argmax(1) for title, logits in predict_logits(model, series, test).items()}


def train_method(
    method: str,
    series: PixelSeries,
    section: ColearnSection,
    seed: int,
    train: Rows,
    watched: Rows | None = None,
    pool: Rows | None = None,
) -> TrainedModel:
    """Train on some rows, from memory.

    Args:
        method: name in METHODS.
        series: all rows; those of the pool have the target -1.
        section: options.
        seed: of weights, order and dropout.
        train: labelled rows.
        watched: rows whose loss is followed; None takes some training rows.
        pool: rows without label, handed over to a method that learns from them.
    """
    legend = tuple(LabelClass(name, k + 1, "#888888") for k, name in enumerate(series.classes))
    whole, size = make_batch(series, np.arange(len(series.target))), section.train.batch
    extra = torch.from_numpy(pool) if pool is not None and get_method(method).learns_unlabelled else None
    learn = SeriesLoader(whole, torch.from_numpy(train), size, True, extra, section.plus.unlabelled)
    seen = torch.from_numpy(train[:_WATCHED] if watched is None else watched)
    with tempfile.TemporaryDirectory() as folder:
        return fit(
            method,
            make_inputs(series, train),
            legend,
            section,
            learn,
            SeriesLoader(whole, seen, 256, shuffle=False),
            np.bincount(series.target[train], minlength=len(legend)).tolist(),
            Path(folder),
            seed,
        )


def predict_logits(model: CoLearner, series: PixelSeries, rows: Rows) -> dict[str, Floats]:
    """Subset -> logits (n, K) of these rows, for every subset of sensors the method can."""
    batch = make_batch(series, rows)
    logits: dict[str, Floats] = {}
    with torch.inference_mode():
        for title, names in subsets(tuple(series.values)).items():
            if model.any_subset or len(names) == len(series.values):
                found = model.fused({m: batch.images[m] for m in names}, batch.valid)  # (N, K, 1, 1)
                logits[title] = found.flatten(1).numpy()
    return logits


def subsets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Title -> modalities: each alone, all but each (from three on), and all."""
    table: dict[str, tuple[str, ...]] = {f"only {m}": (m,) for m in modalities}
    if len(modalities) > 2:
        table |= {f"all but {m}": tuple(n for n in modalities if n != m) for m in modalities}
    return {**table, "all": tuple(modalities)}
