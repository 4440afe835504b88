"""One training's bundles and the samples in, what its spaces hold, how sure it is and where it is right out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import f1_score

from mdico_cube.batch import Batch
from mdico_cube.colearn.bundle import Bundle, load_bundle
from mdico_cube.colearn.calibrate import calibration_error
from mdico_cube.colearn.spaces import SpaceScores, embed_centres, score_space
from mdico_cube.cube.change import writing
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.spaces_picture import Layout, draw_spaces
from mdico_cube.maps.style import method_name, png
from mdico_cube.patches.dataset import WindowDataset
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import TEST
from mdico_cube.spec import Floats

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SensorScores:
    """One sensor's model on the held-out windows."""

    f1: dict[str, float]
    """Class -> F1."""
    f1_macro: float
    """Over the classes that stand in the truth."""
    ece: float
    """Expected calibration error of what the bundle says."""
    ece_as_trained: float
    """The same without its temperature."""
    temperature: float


@dataclass(frozen=True)
class Analysis:
    """One method and seed."""

    method: str
    seed: int
    places: int
    """Held-out windows that were looked at; for the spaces those that every sensor saw."""
    spaces: dict[str, SpaceScores]
    """Empty for a method without embeddings."""
    sensors: dict[str, SensorScores]


def analyse_bundles(
    bundles: Mapping[str, Path],
    samples: Path,
    target: Path,
    cube: Location | None = None,
    count: int = 400,
    layout: Layout = "tsne",
) -> Analysis:
    """Look at one training: writes `target`.png (the spaces) and `target`.json.

    Args:
        bundles: modality -> folder of its bundle.
        samples: the samples store it was trained with; its held-out windows are looked at.
        target: path without ending.
        cube: where the pixels are if the store holds none.
        count: windows in the picture and the spaces' scores, drawn evenly; the sensors' scores take all.
        layout: "tsne" or "pca".

    Raises:
        MdicoError: no bundle or samples, or no held-out window.
    """
    loaded = {m: load_bundle(folder) for m, folder in bundles.items()}
    batch = _held_out(samples, tuple(loaded), cube)
    truth = _centre(batch)
    first = next(iter(loaded.values())).config
    sensors = {m: _sensor(bundle, batch, truth) for m, bundle in loaded.items()}
    seen = np.flatnonzero((truth >= 0) & np.all([batch.valid[m].flatten(1).any(1).numpy() for m in loaded], axis=0))
    rows = seen[np.linspace(0, len(seen) - 1, min(count, len(seen))).round().astype(int)] if len(seen) else seen
    vectors = _vectors(loaded, batch, rows)
    scores = {name: score_space(found, truth[rows]) for name, found in vectors.items()}
    result = Analysis(first.method, first.seed, len(truth), scores, sensors)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if vectors:
            title = f"{method_name(first.method)}, seed {first.seed}: {len(rows)} held-out places"
            figure = draw_spaces(vectors, scores, truth[rows], first.classes, title, layout)
            target.with_name(f"{target.name}.png").write_bytes(png(figure))
        target.with_name(f"{target.name}.json").write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def _held_out(samples: Path, names: tuple[str, ...], cube: Location | None) -> Batch:
    store = open_samples(samples)
    windows = WindowDataset(window_source(store, (TEST,), names, None if store.pixels else cube))
    if not len(windows):
        raise MdicoError(f"{samples}: holds no held-out window to look at. Draw samples with samples.test above 0.")
    return windows.__getitems__(list(range(len(windows)))).on_one_grid()


def _centre(batch: Batch) -> Rows:
    """(N,) class of the centre pixel, -1 = unlabelled."""
    assert batch.target is not None
    height, width = batch.target.shape[-2:]
    found: Rows = batch.target[:, height // 2, width // 2].numpy()
    return found


def _sensor(bundle: Bundle, batch: Batch, truth: Rows) -> SensorScores:
    config = bundle.config
    images, valid = batch.images[config.modality], batch.valid[config.modality]
    row, column = images.shape[-2] // 2, images.shape[-1] // 2
    with torch.inference_mode():
        logits = torch.cat(
            [bundle.model(x, v) for x, v in zip(torch.split(images, 512), torch.split(valid, 512), strict=True)]
        )
    known = (truth >= 0) & valid.flatten(1).any(1).numpy()
    logits, right = logits[:, :, row, column][torch.from_numpy(known)], truth[known]
    guess = logits.argmax(1).numpy()
    said, trained = (calibration_error((logits * t).softmax(1).numpy(), right) for t in (1.0, config.temperature))
    names = [entry.name for entry in config.classes]
    each = f1_score(right, guess, labels=range(len(names)), average=None, zero_division=0)
    macro = f1_score(right, guess, labels=np.unique(right), average="macro", zero_division=0)
    per_class = {name: float(value) for name, value in zip(names, each, strict=True)}
    return SensorScores(per_class, float(macro), said, trained, config.temperature)


def _vectors(loaded: Mapping[str, Bundle], batch: Batch, rows: Rows) -> dict[str, dict[str, Floats]]:
    """Space -> modality -> (n, d); empty where the method has no embeddings."""
    chosen = batch.take(torch.from_numpy(rows))
    found: dict[str, dict[str, Floats]] = {}
    for m, bundle in loaded.items():
        if not hasattr(bundle.model, "embed"):
            return {}
        for space, vectors in embed_centres(bundle.model, chosen.images[m], chosen.valid[m]).items():
            found.setdefault(space, {})[m] = vectors
    return found


def analysis_table(results: list[Analysis]) -> str:
    """Markdown: spaces, calibration, F1 by class and its gain over `independent` of the same seed."""
    parts = []
    spaces = [
        f"| {r.method} | {r.seed} | {name} | {s.modality:.3f} | {s.label:.3f} | {s.agreement:+.3f} |"
        for r in results
        for name, s in r.spaces.items()
    ]
    head = "| method | seed | space | sensor told apart | class told apart | agreement of sensors |"
    parts.append("\n".join([head, "|---|---|---|---|---|---|", *spaces]))
    sure = [
        f"| {r.method} | {r.seed} | {m} | {s.f1_macro:.3f} | {s.temperature:.2f} | {s.ece_as_trained:.3f} | "
        f"{s.ece:.3f} |"
        for r in results
        for m, s in r.sensors.items()
    ]
    head = "| method | seed | only | macro F1 | temperature | calibration error as trained | with the temperature |"
    parts.append("\n".join([head, "|---|---|---|---|---|---|---|", *sure]))
    base = {(r.seed, m): s.f1 for r in results if r.method == "independent" for m, s in r.sensors.items()}
    classes = list(next(iter(results[0].sensors.values())).f1)
    by_class = [
        f"| {r.method} | {r.seed} | {m} | {' | '.join(_gain(s.f1, base.get((r.seed, m)), r.method))} |"
        for r in results
        for m, s in r.sensors.items()
    ]
    head = f"| F1 by class (gain over independent) | seed | only | {' | '.join(classes)} |"
    parts.append("\n".join([head, "|---|---|---|" + "---|" * len(classes), *by_class]))
    return "\n\n".join(parts) + "\n"


def _gain(found: dict[str, float], base: dict[str, float] | None, method: str) -> list[str]:
    if base is None or method == "independent":
        return [f"{value:.3f}" for value in found.values()]
    return [f"{value:.3f} ({value - base[name]:+.3f})" for name, value in found.items()]
