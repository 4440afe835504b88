"""A set of pixel series and a list of methods in, one JSON file per finished fold and one table out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mdico_cube.benchmarks.classical import CLASSICAL
from mdico_cube.benchmarks.folds import Fold, series_folds
from mdico_cube.benchmarks.neural import make_inputs, predict_classical, predict_method, subsets
from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.benchmarks.scores import figures_of
from mdico_cube.benchmarks.table import Table, make_table, write_table
from mdico_cube.benchmarks.variants import Variant, parse_variant
from mdico_cube.colearn.encoders.registry import get_encoder
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import scale_of
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console, track
from mdico_cube.recipe import ColearnSection


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a benchmark runs. A random forest and gradient boosting stand in every table."""

    methods: tuple[str, ...] = ("independent", "mdico")
    folds: int = 5
    seeds: int = 3
    """Seeds 0, 1, ...; each draws its own folds, the same for every method."""
    protocol: Literal["honest", "paper"] = "honest"
    epochs: int = 30
    encoder: str = "tempcnn"
    weights: Literal["auto", "balanced", "sqrt", "none"] = "auto"
    """Of classes and labels in the networks' loss, see `task.weights` of a recipe."""


def run_benchmark(
    series: PixelSeries, plan: BenchmarkPlan, folder: Path, overwrite: bool = False, resume: bool = False
) -> Table:
    """Every method, seed and fold, and a random forest and gradient boosting beside them.

    Each finished fold is a JSON file in `folder`/runs; with `resume` those are not run again. The table is written as
    table.csv and table.md.

    Raises:
        MdicoError: an unknown method, folds that cannot be made, or a folder that holds another benchmark.
    """
    variants = {method: parse_variant(method) for method in plan.methods if method not in CLASSICAL}
    get_encoder(plan.encoder)
    modalities = tuple(series.values)
    if len(modalities) < 2:
        came = ", ".join(modalities) or "none"
        raise MdicoError(f"a benchmark needs at least two modalities, came {came}. Name another one.")
    for name, seen in series.valid.items():
        if not seen.any():
            raise MdicoError(f"{series.name}: {name} was never observed. Leave it out of the modalities.")
    if series.task == "regression" and plan.weights in ("balanced", "sqrt"):
        raise MdicoError(f"{series.name}: a value has no classes to weigh, came {plan.weights}. Leave it out.")
    split = {seed: series_folds(series, plan.folds, plan.protocol, seed) for seed in range(plan.seeds)}
    section = section_for(plan, modalities, series.task, series.side)
    check_split(series, split)
    check_variants(series, section, variants.values())
    prepare(folder, _identity(series, plan, section), overwrite, resume)
    methods = tuple(dict.fromkeys((*CLASSICAL, *plan.methods)))
    jobs = [(method, seed, fold) for seed in split for fold in range(len(split[seed])) for method in methods]
    results = []
    for method, seed, fold in track(jobs, f"benchmark {series.name}", len(jobs)):
        stem = variants[method].stem if method in variants else method
        path = folder / "runs" / f"{stem}-seed{seed}-fold{fold}.json"
        if not path.exists():
            result = {
                "method": method,
                "seed": seed,
                "fold": fold,
                **_one(series, section, method, seed, split[seed][fold]),
            }
            part = path.with_suffix(".part")
            part.write_text(json.dumps(result, indent=1), encoding="utf-8")
            part.replace(path)
        results.append(read_facts(path, "Delete it and go on with --resume"))
    table = make_table(series, asdict(plan), results, methods, tuple(subsets(modalities)))
    write_table(table, folder)
    return table


def check_split(series: PixelSeries, split: Mapping[int, Sequence[Fold]]) -> None:
    """Raise MdicoError where a fold could not be trained on or scored, before any is."""
    for seed, folds in split.items():
        for number, (train, test) in enumerate(folds, start=1):
            where = f"{series.name}: fold {number} of seed {seed}"
            unseen = [name for name, seen in series.valid.items() if not seen[train].any()]
            if unseen:
                raise MdicoError(
                    f"{where} would train without {', '.join(unseen)}: it was observed in the scored part only. Leave "
                    "it out of the modalities, or use another group column."
                )
            if min(len(train), len(test)) < 2:
                raise MdicoError(
                    f"{where} has {len(train)} samples to train and {len(test)} to score, at least two are needed of "
                    "each. Use fewer folds or more data."
                )
            if series.task == "regression":
                scale_of(series.target[train])


def check_variants(series: PixelSeries, section: ColearnSection, variants: Iterable[Variant]) -> None:
    """Raise MdicoError for options that a method, or the encoder on these bands, cannot take."""
    inputs = make_inputs(series, np.arange(len(series.target)))
    for variant in variants:
        get_method(variant.method)(inputs, len(series.classes), variant.section(section), None)


def section_for(
    plan: BenchmarkPlan, modalities: tuple[str, ...], task: str = "classes", side: int = 1
) -> ColearnSection:
    """Training options: "paper" is the published recipe, "honest" one cycle over every training pixel."""
    published = {"learning_rate": 1e-3, "patience": 5, "schedule": "constant", "keep": "best"}
    strong = {"learning_rate": 2e-3, "schedule": "onecycle", "keep": "last"}
    facts = {
        "modalities": modalities,
        "protocol": plan.protocol,
        "task": {"kind": task, "weights": plan.weights},
        "encoder": {"name": plan.encoder, "hidden": 64, "dense": 128, "pool": side},
        "train": {
            **(published if plan.protocol == "paper" else strong),
            "epochs": plan.epochs,
            "batch": 32,
            "loggers": (),
            "accelerator": "cpu",
        },
    }
    return ColearnSection.model_validate(facts)


def _one(series: PixelSeries, section: ColearnSection, method: str, seed: int, fold: Fold) -> dict[str, Any]:
    start = time.monotonic()
    train, test = fold
    with silent():
        if method in CLASSICAL:
            guesses = predict_classical(series, method, seed, train, test)
        else:
            variant = parse_variant(method)
            guesses = predict_method(variant.method, series, variant.section(section), seed, train, test)
    truth = series.target[test]
    classes = len(series.classes)
    rows = {title: figures_of(series.task, truth, guess, classes) for title, guess in guesses.items()}
    return {"test": len(test), "rows": rows, "seconds": round(time.monotonic() - start, 2)}


@contextmanager
def silent() -> Iterator[None]:
    """The benchmark's own bar is enough."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def _identity(series: PixelSeries, plan: BenchmarkPlan, section: ColearnSection) -> str:
    """What the runs of one folder have in common; methods and seeds may be added later."""
    facts = {
        "folds": plan.folds,
        "section": section.model_dump(mode="json"),
        "data": series.digest,
        "classes": series.classes,
        "groups": series.groups.tolist(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def prepare(folder: Path, identity: str, overwrite: bool, resume: bool, what: str = "a benchmark") -> None:
    """Make a folder of runs ready: all of one folder come from the same data and options, which `identity` stands for.

    `what` the runs are is told where they stand in the way.

    Raises:
        MdicoError: runs stand there and neither overwrite nor resume was asked for, or they are of something else; or
            no folder can be there.
    """
    if folder.exists() and not folder.is_dir():
        raise MdicoError(f"{folder}: is a file. Name a folder for the runs.")
    card, runs = folder / "benchmark.json", folder / "runs"
    if card.exists() and not overwrite:
        if not resume:
            raise MdicoError(f"{folder}: holds {what}. Use --resume to go on or --overwrite to replace it.")
        if read_facts(card, "Use --overwrite to start anew").get("identity") != identity:
            raise MdicoError(f"{folder}: holds {what} of other data or options. Name another folder.")
    runs.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for old in runs.glob("*.json"):
            old.unlink()
    card.write_text(json.dumps({"identity": identity}), encoding="utf-8")


def read_facts(path: Path, way_out: str) -> dict[str, Any]:
    """What a JSON file of a finished run, or of its folder, holds.

    Raises:
        MdicoError: a file that is torn or of something else; `way_out` ends the sentence.
    """
    try:
        facts: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise MdicoError(f"{path}: is torn or was written by something else. {way_out}.") from error
    return facts
