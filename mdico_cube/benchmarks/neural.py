"""Training and test pixels in, a co-learning method's predictions for every subset of sensors out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mdico_cube.batch import Batch, hide
from mdico_cube.benchmarks.classical import fit_classical, fit_labels, fit_values
from mdico_cube.benchmarks.feed import SeriesLoader
from mdico_cube.benchmarks.folds import Rows
from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import as_bits, scale_of
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.colearn.trainer import fit
from mdico_cube.patches.stats import RunningStats
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import Array, Band, Floats, InputSpec, LabelClass, Modality, Storage

_WATCHED = 64  # training pixels whose loss is shown where nothing is held out


def make_inputs(series: PixelSeries, rows: Rows) -> dict[str, InputSpec]:
    """What a model takes of each modality, with the statistics of these rows."""
    inputs = {}
    for name, values in series.values.items():
        bands = tuple(Band(f"{name}{i}", "1") for i in range(values.shape[2]))
        steps = series.steps[name]
        modality = Modality(name, name, bands, Storage("float32", 1.0, float("nan")), steps != ("",))
        stats = RunningStats(len(bands))
        stats.add(_window(values[rows], 5), _window(series.valid[name][rows], 4))
        inputs[name] = InputSpec(modality, steps, stats.result())
    return inputs


def make_batch(series: PixelSeries, rows: Rows) -> Batch:
    """These rows as windows of one pixel, or as patches that carry their label at the centre."""
    images = {m: torch.from_numpy(_window(v[rows], 5)) for m, v in series.values.items()}
    valid = {m: torch.from_numpy(_window(v[rows], 4)) for m, v in series.valid.items()}
    label, side = torch.from_numpy(series.target[rows]), series.side
    target = hide(label[:, None, None].repeat(1, side, side), torch.ones(len(rows), side, side, dtype=torch.bool))
    target[:, side // 2, side // 2] = label
    return Batch(images, valid, target)


def _window(array: Array, axes: int) -> Array:
    """(N, T, ...) with two more axes where it has no window of its own."""
    return array if array.ndim == axes else array[..., None, None]


def filled_features(series: PixelSeries, rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
    """Modality -> (N, T * C) of all rows, scaled and gap-filled as the networks see them; `rows` give the scale.

    Of a patch the mean of its pixels.
    """
    batch = make_batch(series, np.arange(len(series.target)))
    inputs = make_inputs(series, rows)
    filled = {m: Normalise(spec)(batch.images[m], batch.valid[m]) for m, spec in inputs.items()}  # (N, T, C, h, w)
    return {m: series.mean(dim=(3, 4)).flatten(1).numpy() for m, series in filled.items()}


def classical_probabilities(
    series: PixelSeries, name: str, seed: int, train: Rows, test: Rows
) -> dict[str, npt.NDArray[np.float64]]:
    """Subset -> probabilities (n, K) of the test rows: one model per sensor and one of all of them side by side."""
    classes, target = len(series.classes), series.target[train]
    merged = _side_by_side(series, train)
    return {t: fit_classical(name, seed, x[train], target, x[test], classes) for t, x in merged.items()}


def predict_classical(series: PixelSeries, name: str, seed: int, train: Rows, test: Rows) -> dict[str, Array]:
    """Subset -> class index, labels as bits, or value of each test row."""
    if series.task == "classes":
        return {t: p.argmax(axis=1) for t, p in classical_probabilities(series, name, seed, train, test).items()}
    merged, target = _side_by_side(series, train), series.target[train]
    if series.task == "regression":
        return {t: fit_values(name, seed, x[train], target, x[test]) for t, x in merged.items()}
    labels = len(series.classes)
    return {t: fit_labels(name, seed, x[train], target, x[test], labels) for t, x in merged.items()}


def _side_by_side(series: PixelSeries, train: Rows) -> dict[str, Floats]:
    """Subset -> features (N, F): each sensor alone, and all of them."""
    features = filled_features(series, train)
    wanted = {t: n for t, n in subsets(tuple(features)).items() if len(n) in (1, len(features))}
    return {title: np.concatenate([features[m] for m in names], axis=1) for title, names in wanted.items()}


def predict_method(
    method: str, series: PixelSeries, section: ColearnSection, seed: int, train: Rows, test: Rows
) -> dict[str, Array]:
    """Train on some pixels and predict others, with every subset of sensors the method can.

    Under the protocol "honest" no test row is seen in any way: the last epoch's weights are kept and every training
    pixel trains. Under "paper" training stops early on the test rows, as the published figures did.

    Returns:
        Subset ("only S1", "all but S1", "all") -> class index, labels as bits, or value of each test row.
    """
    watched = test if section.protocol == "paper" else train[:_WATCHED]
    trained = train_method(method, series, section, seed, train, watched)
    found = predict_logits(trained.model, series, test)
    return {title: _decided(trained, torch.from_numpy(logits)) for title, logits in found.items()}


def _decided(trained: TrainedModel, logits: Tensor) -> Array:
    """(n, K) logits to class index, labels as bits, or value (n,)."""
    told = trained.answer(logits)
    kind = trained.section.task.kind
    if kind == "regression":
        return told[:, 0].numpy()
    return (told.argmax(dim=1) if kind == "classes" else as_bits(told > 0.5)).numpy()


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
            _counts(series, train),
            Path(folder),
            seed,
            scale=scale_of(series.target[train]) if series.task == "regression" else None,
        )


def _counts(series: PixelSeries, rows: Rows) -> list[int]:
    """Training rows of each class or label; of a value, all of them."""
    target, classes = series.target[rows], len(series.classes)
    if series.task == "regression":
        return [len(rows)]
    if series.task == "multilabel":
        return [int(((target >> k) & 1).sum()) for k in range(classes)]
    return [int(count) for count in np.bincount(target, minlength=classes)]


def predict_logits(model: CoLearner, series: PixelSeries, rows: Rows) -> dict[str, Floats]:
    """Subset -> logits (n, K) of these rows, for every subset of sensors the method can."""
    batch = make_batch(series, rows)
    logits: dict[str, Floats] = {}
    with torch.inference_mode():
        for title, names in subsets(tuple(series.values)).items():
            if model.any_subset or len(names) == len(series.values):
                found = model.fused({m: batch.images[m] for m in names}, batch.valid)  # (N, K, h, w)
                logits[title] = found[:, :, series.side // 2, series.side // 2].numpy()
    return logits


def subsets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Title -> modalities: each alone, all but each (from three on), and all."""
    table: dict[str, tuple[str, ...]] = {f"only {m}": (m,) for m in modalities}
    if len(modalities) > 2:
        table |= {f"all but {m}": tuple(n for n in modalities if n != m) for m in modalities}
    return {**table, "all": tuple(modalities)}
