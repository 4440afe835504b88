"""A recipe and its samples in, one bundle per method, seed and sensor out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdico_cube.batch import Batches, labelled
from mdico_cube.benchmarks.scores import figures_of
from mdico_cube.colearn.applicability import Reference, references
from mdico_cube.colearn.bundle import CONFIG, portable, save_bundle
from mdico_cube.colearn.bundle_config import read_config
from mdico_cube.colearn.calibrate import calibrate
from mdico_cube.colearn.checkpoint import LAST
from mdico_cube.colearn.joint import save_joint
from mdico_cube.colearn.method import FUSED, supervised
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import scale_of
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.colearn.trainer import fit
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.journey.checks import check_methods
from mdico_cube.journey.places import Places
from mdico_cube.maps.item import degrees_box
from mdico_cube.patches.augment import Augment, make_augment
from mdico_cube.patches.dataset import WindowLoader, WithUnlabelled, make_loader
from mdico_cube.patches.extract import check_origin
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.sources import window_source
from mdico_cube.patches.splits import POOL, TEST, TRAIN, VALIDATION
from mdico_cube.progress import say
from mdico_cube.recipe import ColearnSection, Recipe


def train(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> list[Path]:
    """Train every method and seed with every sensor, and export each sensor's model as a bundle.

    Returns:
        The bundles' folders.

    Raises:
        MdicoError: no samples, bundles or trainings that were begun without overwrite or resume, or training that
            cannot start.
    """
    places, section = Places.of(recipe), recipe.colearn
    check_methods(recipe)
    wanted = [(method, seed, _bundles(recipe, method, seed)) for method in section.methods for seed in section.seeds]
    standing = [folder for _, _, folders in wanted for folder in folders if folder.exists()]
    if standing and not (overwrite or resume):
        raise MdicoError(f"{standing[0]}: exists already. Use --resume to go on or --overwrite to train again.")
    begun = [folder for method, seed, _ in wanted if (folder := places.model(method, seed) / LAST).exists()]
    if begun and not (overwrite or resume):
        raise MdicoError(
            f"{begun[0].parent}: a training was begun here. Use --resume to go on or --overwrite to train again."
        )
    for method, seed, folders in wanted:
        if resume and not overwrite and folders and _are_current(recipe, places, folders):
            say(f"train: {method}, seed {seed} stands, skipped")
        else:
            _train_one(recipe, places, method, seed, resume and not overwrite)
    return [folder for _, _, folders in wanted for folder in folders]


def _train_one(recipe: Recipe, places: Places, method: str, seed: int, resume: bool) -> None:
    section, store = recipe.colearn, open_samples(places.samples)
    honest = section.protocol == "honest"
    learn, stop = _folds(section)
    trained = train_in(recipe, method, seed, places.model(method, seed), resume)
    folders = _bundles(recipe, method, seed)
    classes = section.task.kind == "classes"
    wanted = section.calibrate and honest and folders and classes
    rows = store.where(*stop)
    units = store.column("group" if recipe.samples.split == "group" else "block")[rows].astype(np.int64)
    sure = calibrate(trained.model, _loader(recipe, store, stop), units) if wanted else {}
    reach = _reach(recipe, store, trained, learn, stop) if folders else {}
    tested = _value_scores(recipe, store, trained) if folders and store.value is not None else {}
    for modality, folder in zip(section.modalities, folders, strict=False):
        known = sure.get(modality)
        save_bundle(
            folder,
            trained,
            modality,
            bbox=degrees_box(open_reader(places.cube)),
            scores={
                **({"calibration": known.scores} if known else {}),
                **({"held_out": tested[modality]} if modality in tested else {}),
            },
            overwrite=True,
            temperature=known.temperature if known else 1.0,
            reference=reach.get(modality),
        )
    if folders and get_method(method).any_subset:
        members = {folder.name: read_config(folder / CONFIG) for folder in folders}
        save_joint(places.bundle(method, seed, FUSED), trained, members, overwrite=True)


def _value_scores(recipe: Recipe, store: SampleStore, trained: TrainedModel) -> dict[str, dict[str, float]]:
    """R2, RMSE and others of each sensor's model alone on the held-out windows, which decided nothing."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in trained.inputs}
    with torch.inference_mode():
        for batch in _loader(recipe, store, (TEST,)):
            with trained.model.prepared(batch) as ready:
                outcome = trained.model(ready.images, ready.valid)
            for name, outputs in outcome.items():
                target = supervised(batch.on_one_grid(), name)  # (B, H, W) in the value's unit
                known = labelled(target)
                found[name].append((target[known], trained.answer(outputs)[:, 0][known]))
    scores = {}
    for name, pairs in found.items():
        truth, guess = (torch.cat(part).numpy() for part in zip(*pairs, strict=True))
        if len(truth) > 1:
            scores[name] = {**figures_of("regression", truth, guess, 1), "pixels": float(len(truth))}
            unit = f" {trained.section.task.unit}".rstrip()
            say(
                f"{trained.method}, seed {trained.seed}, {name} alone on {len(truth)} held-out pixels: "
                f"R2 {scores[name]['r2']:.3f}, RMSE {scores[name]['rmse']:.3g}{unit}, bias "
                f"{scores[name]['bias']:.2g}{unit}"
            )
    return scores


def _reach(
    recipe: Recipe, store: SampleStore, trained: TrainedModel, learn: Sequence[int], stop: Sequence[int]
) -> dict[str, Reference]:
    """What the training data look like to each sensor's model, for maps that say how far they may be trusted."""
    values = recipe.labels.values
    models = {name: trained.model.single(name) for name in trained.inputs}
    batches = _loader(recipe, store, learn, trained.seed), _loader(recipe, store, stop)
    return references(models, *batches, values.bins if values else len(trained.legend), trained.seed)


def train_in(recipe: Recipe, method: str, seed: int, folder: Path, resume: bool = False) -> TrainedModel:
    """Train one method with one seed on a recipe's samples; `folder` gets checkpoints and history.

    Raises:
        MdicoError: no samples, samples of another cube, or training that cannot start.
    """
    section, places = recipe.colearn, Places.of(recipe)
    store = open_samples(places.samples)
    _check_samples(recipe, places)
    learn, stop = _folds(section)
    inputs = {name: store.inputs[name] for name in section.modalities}
    augment = make_augment(section.augment, {name: spec.steps for name, spec in inputs.items()})
    labelled = _loader(recipe, store, learn, seed, augment)
    train: Batches = labelled
    if get_method(method).learns_unlabelled and section.plus.unlabelled and store.where(POOL).size:
        size = max(1, round(section.train.batch * section.plus.unlabelled))
        train = WithUnlabelled(labelled, _loader(recipe, store, (POOL,), seed, augment, size))
    return fit(
        method,
        inputs,
        store.outputs,
        section,
        train,
        _loader(recipe, store, stop),
        store.class_counts(*learn),
        folder,
        seed,
        resume=resume,
        scale=None if store.value is None else scale_of(store.values(*learn)),
    )


def _folds(section: ColearnSection) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What trains, and what is watched: see colearn.protocol."""
    honest = section.protocol == "honest"
    return ((TRAIN,), (VALIDATION,)) if honest else ((TRAIN, VALIDATION), (TEST,))


def _loader(
    recipe: Recipe,
    store: SampleStore,
    folds: Sequence[int],
    seed: int | None = None,
    augment: Augment | None = None,
    batch: int | None = None,
) -> WindowLoader:
    section, names = recipe.loader, recipe.colearn.modalities
    cube = Places.of(recipe).cube if section.source == "cube" else None
    source = window_source(store, folds, names, cube, section.backend)
    size = batch or recipe.colearn.train.batch
    return make_loader(source, size, seed, section.workers, section.buffer, augment)


def _bundles(recipe: Recipe, method: str, seed: int) -> list[Path]:
    """Where one training's bundles stand, one per sensor; none for a method that cannot map with one sensor."""
    names = recipe.colearn.modalities if get_method(method).maps_alone else ()
    return [Places.of(recipe).bundle(method, seed, name) for name in names]


def _are_current(recipe: Recipe, places: Places, folders: Sequence[Path]) -> bool:
    """True where every bundle stands and was trained on these samples with these options."""
    if not all(folder.exists() for folder in folders):
        return False
    _check_samples(recipe, places)
    store, wanted = open_samples(places.samples), portable(recipe.colearn)
    for folder in folders:
        config = read_config(folder / CONFIG)
        spec = store.inputs[config.modality]
        options = {"methods": wanted.methods, "seeds": wanted.seeds}
        came = (config.bands, config.steps, config.stats, config.classes, config.colearn.model_copy(update=options))
        if came != (spec.modality.band_names, spec.steps, spec.stats, store.outputs, wanted):
            return False
    return True


def _check_samples(recipe: Recipe, places: Places) -> None:
    check_origin(places.samples, open_reader(places.cube))
    lacking = [name for name in recipe.colearn.modalities if name not in open_samples(places.samples).inputs]
    if lacking:
        raise MdicoError(
            f"{places.samples}: was drawn without {', '.join(lacking)}. Draw it again with `mdico sample --overwrite`."
        )
