"""Training and test pixels in, a co-learning method's predictions for every subset of sensors out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from mdico_cube.batch import Batch
from mdico_cube.benchmarks.folds import Rows
from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.trainer import fit
from mdico_cube.patches.stats import RunningStats
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import Band, InputSpec, LabelClass, Modality, Storage

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


class Pixels(Dataset[int]):
    """Row numbers; `collate` makes a batch of them."""

    def __init__(self, series: PixelSeries, rows: Rows) -> None:
        self.series = series
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return int(self.rows[index])

    def collate(self, picked: list[int]) -> Batch:
        """One batch."""
        return make_batch(self.series, np.array(picked))


def _loader(series: PixelSeries, rows: Rows, size: int, shuffle: bool) -> DataLoader[Batch]:
    pixels = Pixels(series, rows)
    return DataLoader(pixels, size, shuffle=shuffle, collate_fn=pixels.collate)  # type: ignore[arg-type]


def filled_features(series: PixelSeries, rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
    """Modality -> (N, T * C) of all pixels, scaled and gap-filled as the networks see them; `rows` give the scale."""
    batch = make_batch(series, np.arange(len(series.target)))
    inputs = make_inputs(series, rows)
    return {m: Normalise(spec)(batch.images[m], batch.valid[m]).flatten(1).numpy() for m, spec in inputs.items()}


def predict_method(
    method: str, series: PixelSeries, section: ColearnSection, seed: int, train: Rows, test: Rows
) -> dict[str, Rows]:
    """Train on some pixels and predict others, with every subset of sensors the method can.

    Under the protocol "honest" no test row is seen in any way: the last epoch's weights are kept and every training
    pixel trains. Under "paper" training stops early on the test rows, as the published figures did.

    Returns:
        Subset ("only S1", "all but S1", "all") -> class index of each test row.
    """
    legend = tuple(LabelClass(name, k + 1, "#888888") for k, name in enumerate(series.classes))
    watched = test if section.protocol == "paper" else train[:_WATCHED]
    with tempfile.TemporaryDirectory() as folder:
        model = fit(
            method,
            make_inputs(series, train),
            legend,
            section,
            _loader(series, train, section.train.batch, shuffle=True),
            _loader(series, watched, 256, shuffle=False),
            np.bincount(series.target[train], minlength=len(legend)).tolist(),
            Path(folder),
            seed,
        ).model
    batch = make_batch(series, test)
    guesses = {}
    with torch.inference_mode():
        for title, names in subsets(tuple(series.values)).items():
            if model.any_subset or len(names) == len(series.values):
                logits = model.fused({m: batch.images[m] for m in names}, batch.valid)  # (N, K, 1, 1)
                guesses[title] = logits.argmax(1).flatten().numpy()
    return guesses


def subsets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Title -> modalities: each alone, all but each (from three on), and all."""
    table: dict[str, tuple[str, ...]] = {f"only {m}": (m,) for m in modalities}
    if len(modalities) > 2:
        table |= {f"all but {m}": tuple(n for n in modalities if n != m) for m in modalities}
    return {**table, "all": tuple(modalities)}
