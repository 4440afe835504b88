"""A recipe whose cube stands in, methods compared over seeds on its own region out: what a single sensor gains."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import f1_score

from mdico_cube.benchmarks.classical import CLASSICAL
from mdico_cube.benchmarks.folds import Rows
from mdico_cube.benchmarks.neural import classical_probabilities, predict_logits, train_method
from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.benchmarks.region import Division, region_series
from mdico_cube.benchmarks.run import prepare, read_facts, silent
from mdico_cube.benchmarks.scores import figures_of
from mdico_cube.benchmarks.study_table import Run, StudyTable, make_study_table, write_study
from mdico_cube.benchmarks.variants import Variant, parse_variant
from mdico_cube.colearn.calibrate import calibration_error
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, cube_location
from mdico_cube.patches.extract import extract_samples, made_from
from mdico_cube.progress import track
from mdico_cube.recipe import ColearnSection, Recipe, SampleSection

METHODS = ("independent", "mdico", "fullco", "mdico-plus")


@dataclass(frozen=True)
class StudyPlan:
    """What is compared. A random forest and gradient boosting stand in every table."""

    methods: tuple[str, ...] = METHODS
    """Names, or names with options: "mdico:contrastive=0"; the first one is what the others are measured against."""
    seeds: int = 5
    """Seeds 0, 1, ...; each draws its own blocks, windows, weights and order."""
    unlabelled: int = 20_000
    """Windows without label for the methods that learn from them."""
    labels: int | None = None
    """Training windows of each class that keep their label; None keeps all. What is scored stays the same."""
    threads: int = 1
    """Of torch."""

    @property
    def baseline(self) -> str:
        """What the others are measured against."""
        return self.methods[0]


def run_study(
    cube: Location,
    samples: SampleSection,
    colearn: ColearnSection,
    folder: Path,
    plan: StudyPlan | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> StudyTable:
    """Every method and seed, scored on the held-out blocks of that seed; nothing is chosen on them.

    Training and validation blocks train, for as many epochs as the recipe says. Each finished run is a JSON file in
    `folder`/runs; with `resume` those are not run again, and methods and seeds may be added. The table is written as
    study.csv and study.md.

    Raises:
        MdicoError: no cube, an unknown method or option, or a folder that holds another study.
    """
    plan = plan or StudyPlan()
    variants = [parse_variant(text) for text in plan.methods if text not in CLASSICAL]
    sections = {variant: variant.section(colearn) for variant in variants}
    reader = open_reader(cube)
    reader.check_complete(colearn.modalities)
    prepare(folder, _identity(reader, samples, colearn, plan), overwrite, resume, "a study")
    names = (*CLASSICAL, *(variant.text for variant in variants))
    jobs = [(seed, name) for seed in range(plan.seeds) for name in names]
    by_name = {variant.text: variant for variant in variants}
    runs, held, before = [], _Held(cube, samples, colearn.modalities, folder, plan), torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        for seed, name in track(jobs, "study", len(jobs)):
            stem = by_name[name].stem if name in by_name else name
            path = folder / "runs" / f"{stem}-seed{seed}.json"
            if not path.exists():
                series, division = held.data(seed)
                facts = _one(series, division, by_name.get(name), name, sections, seed)
                part = path.with_suffix(".part")
                part.write_text(json.dumps({"method": name, "seed": seed, **facts}, indent=1), encoding="utf-8")
                part.replace(path)
            runs.append(read_facts(path, "Delete it and go on with --resume"))
    finally:
        torch.set_num_threads(before)
    found = [Run(**run) for run in runs]
    table = make_study_table(found, names, _title(colearn, plan, found), plan.baseline, _test_share(samples))
    write_study(table, folder)
    return table


class _Held:
    """The series of one seed at a time: drawn from the cube where they do not stand yet."""

    def __init__(
        self, cube: Location, samples: SampleSection, modalities: Sequence[str], folder: Path, plan: StudyPlan
    ) -> None:
        self._cube, self._samples, self._names, self._folder, self._plan = cube, samples, modalities, folder, plan
        self._seed: int | None = None

    def data(self, seed: int) -> tuple[PixelSeries, Division]:
        """The series of this seed, and who trains."""
        if seed != self._seed:
            self._loaded, self._seed = self._draw(seed), seed
        return self._loaded

    def _draw(self, seed: int) -> tuple[PixelSeries, Division]:
        section = self._samples.model_copy(update={"seed": seed, "unlabelled": self._plan.unlabelled})
        target = self._folder / f"seed{seed}" / "samples.zarr"
        target.parent.mkdir(parents=True, exist_ok=True)
        with silent():
            extract_samples(self._cube, target, self._names, section, resume=True)
        series, division = region_series(target, self._names)
        kept = few_labels(division.train, series.target, self._plan.labels, seed)
        return series, replace(division, train=kept)


def few_labels(rows: Rows, target: Rows, per_class: int | None, seed: int) -> Rows:
    """At most so many rows of each class, drawn by the seed; those of a smaller number are among those of a larger."""
    if per_class is None:
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    chosen = [order[target[order] == k][:per_class] for k in np.unique(target[rows])]
    return np.sort(np.concatenate(chosen))


def _one(
    series: PixelSeries,
    division: Division,
    variant: Variant | None,
    name: str,
    sections: dict[Variant, ColearnSection],
    seed: int,
) -> dict[str, Any]:
    """Train once and score every subset of sensors."""
    start = time.monotonic()
    with silent():
        if variant is None:
            guesses = classical_probabilities(series, name, seed, division.train, division.test)
        else:
            trained = train_method(variant.method, series, sections[variant], seed, division.train, pool=division.pool)
            logits = predict_logits(trained.model, series, division.test)
            guesses = {title: softmax(found, axis=1) for title, found in logits.items()}
    truth = series.target[division.test]
    return {
        "classes": list(series.classes),
        "sizes": [len(division.train), len(division.test), len(division.pool)],
        "rows": {title: _scores(truth, found, len(series.classes)) for title, found in guesses.items()},
        "seconds": round(time.monotonic() - start, 2),
    }


def _scores(truth: Rows, probabilities: Any, classes: int) -> dict[str, Any]:
    guess = probabilities.argmax(axis=1)
    per_class = f1_score(truth, guess, labels=range(classes), average=None, zero_division=0)
    return {
        **figures_of("classes", truth, guess, classes),
        "ece": calibration_error(probabilities, truth),
        "f1_per_class": [round(float(value), 6) for value in per_class],
    }


def _identity(reader: CubeReader, samples: SampleSection, colearn: ColearnSection, plan: StudyPlan) -> str:
    """What the runs of one folder have in common; methods and seeds may be added later."""
    drawn = samples.model_copy(update={"seed": 0, "unlabelled": plan.unlabelled})
    facts: list[Any] = [made_from(reader, colearn.modalities, drawn, True), plan.labels]
    facts.append(colearn.model_dump(mode="json", exclude={"methods", "seeds"}))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _test_share(samples: SampleSection) -> float:
    """Blocks that are scored by blocks that train, however few of their windows keep a label."""
    share = 1 / samples.folds if samples.folds else samples.test
    return share / (1 - share)


def _title(colearn: ColearnSection, plan: StudyPlan, runs: Sequence[Run]) -> str:
    train, test, pool = runs[0].sizes
    encoder, loop = colearn.encoder, colearn.train
    return (
        f"{plan.seeds} seeds, each with its own blocks and windows: {train} windows train, {test} on held-out "
        f"blocks are scored, {pool} without label. {encoder.name} ({encoder.hidden} channels, d = {encoder.width}), "
        f"{loop.epochs} epochs of batch {loop.batch}, {loop.schedule} up to {loop.learning_rate:g}, last epoch kept, "
        "the same for all"
    )


def study(
    recipe: Recipe,
    folder: Path,
    plan: StudyPlan | None = None,
    colearn: ColearnSection | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> StudyTable:
    """A study on the cube of a recipe; `colearn` replaces the recipe's section.

    Raises:
        MdicoError: see run_study.
    """
    cube = cube_location(recipe)
    return run_study(cube, recipe.samples, colearn or recipe.colearn, folder, plan, overwrite, resume)
