"""A recipe whose samples stand in, its options tried out on the inner validation split, the best ones out."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from pydantic import ValidationError

from mdico_cube.benchmarks.run import read_facts
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import FIGURE
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.journey.places import Places
from mdico_cube.journey.training import train_in
from mdico_cube.patches.samples import open_samples, samples_attrs
from mdico_cube.patches.splits import VALIDATION
from mdico_cube.progress import say
from mdico_cube.recipe import ColearnSection, RangeSection, Recipe

Value = str | int | float | bool


@dataclass(frozen=True)
class Tuning:
    """A finished study."""

    method: str
    figure: str
    """What was maximised, such as "validation macro F1"."""
    trials: int
    best: dict[str, Value]
    """Option -> value."""
    score: float
    usual: float
    """The same figure of the recipe as it stands: the first trial."""
    folder: Path

    def lines(self) -> str:
        """The best options as lines of a recipe."""
        tree: dict[str, Any] = {}
        for name, value in self.best.items():
            *parents, last = name.split(".")
            place = tree
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = value
        return str(yaml.safe_dump({"colearn": tree}, sort_keys=False))


def tune(
    recipe: Recipe, folder: Path, trials: int | None = None, overwrite: bool = False, resume: bool = False
) -> Tuning:
    """Try options of the recipe's colearn section; the first trial is the recipe as it stands.

    Optuna's TPE proposes, one journal file in `folder` remembers, so that a study that was broken off goes on where it
    was. Every trial trains on the training blocks and is judged on the inner validation blocks; held-out blocks are
    never read, whatever the protocol. A setting that cannot be trained is told and left out. best.yml and trials.csv
    are written when it ends.

    Args:
        recipe: with its samples drawn.
        folder: of the study.
        trials: in all, in place of tune.trials.
        overwrite: begin anew.
        resume: go on.

    Raises:
        MdicoError: optuna is not installed, no samples, an option that does not exist, or a folder that holds a study.
    """
    section = recipe.tune
    method = section.method or recipe.colearn.methods[-1]
    get_method(method)
    if not open_samples(Places.of(recipe).samples).where(VALIDATION).size:
        raise MdicoError("tuning needs inner validation blocks: set samples.validation above 0 and draw samples again.")
    usual = _usual(recipe)
    study = _study(folder, _identity(recipe, method), overwrite, resume)
    wanted = trials or section.trials
    if not any(trial.user_attrs.get("usual") for trial in study.trials if trial.state.name in ("COMPLETE", "WAITING")):
        within = {name: value for name, value in usual.items() if _holds(section.space[name], value)}
        study.enqueue_trial(within, user_attrs={"usual": True})

    def judge(trial: Any) -> float | None:
        drawn = {name: _draw(trial, name, choices) for name, choices in section.space.items()}
        drawn = usual if trial.user_attrs.get("usual") else drawn
        trial.set_user_attr("options", drawn)
        place = folder / "trials" / _short(drawn)
        try:
            tried = recipe.model_copy(update={"learning": changed(recipe.colearn, drawn, "honest")})
            score = fmean(_score(tried, method, seed, place / f"seed-{seed}") for seed in range(section.seeds))
        except MdicoError as error:
            if trial.user_attrs.get("usual"):
                raise
            say(f"tune: no score with {drawn}: {error}")
            return None
        say(f"tune: {len(_done(study)) + 1} of {wanted}: {score:.4f} with {drawn}")
        return score

    for _ in range(wanted - len(_done(study))):  # not study.optimize, which Ctrl-C at the wrong moment breaks
        trial = study.ask()
        score = judge(trial)
        study.tell(trial, score, None if score is not None else import_module("optuna").trial.TrialState.FAIL)
    return _result(study, method, recipe, folder)


def changed(section: ColearnSection, options: Mapping[str, Value], protocol: str | None = None) -> ColearnSection:
    """The section with other values of some options, named with dots: {"train.learning_rate": 0.001}.

    Raises:
        MdicoError: an option or value it does not have.
    """
    facts = section.model_dump()
    for name, value in options.items():
        *parents, last = name.split(".")
        place: Any = facts
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            known = [f"{key}.{inner}" for key, part in facts.items() if isinstance(part, dict) for inner in part]
            raise MdicoError(f"tune.space: there is no option {name!r} of colearn.{did_you_mean(name, known)}")
        place[last] = value
    if protocol is not None:
        facts["protocol"] = protocol
    try:
        return ColearnSection.model_validate(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise MdicoError(f"tune.space: {where}: {problem['msg']}, came {problem['input']!r}.") from error


def _usual(recipe: Recipe) -> dict[str, Value]:
    """The options of the space as the recipe has them; every value of the space is checked on the way."""
    section, space = recipe.colearn, recipe.tune.space
    for name, choices in space.items():
        for value in (choices.low, choices.high) if isinstance(choices, RangeSection) else choices:
            changed(section, {name: int(value) if isinstance(choices, RangeSection) and choices.whole else value})
    facts: Any = section.model_dump()
    found = {}
    for name in space:
        place = facts
        for part in name.split("."):
            place = place[part]
        found[name] = place
    return found


def _holds(choices: Any, value: Value) -> bool:
    if isinstance(choices, RangeSection):
        return choices.low <= float(value) <= choices.high
    return value in choices


def _draw(trial: Any, name: str, choices: Any) -> Value:
    if not isinstance(choices, RangeSection):
        picked: Value = trial.suggest_categorical(name, list(choices))
    elif choices.whole:
        picked = trial.suggest_int(name, int(choices.low), int(choices.high), log=choices.log)
    else:
        picked = trial.suggest_float(name, choices.low, choices.high, log=choices.log)
    return picked


def _short(options: Mapping[str, Value]) -> str:
    """A name for these values: a trial that was broken off finds its own checkpoints again."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def _score(recipe: Recipe, method: str, seed: int, folder: Path) -> float:
    """The figure on the validation blocks; a training that was broken off is gone on with."""
    trained = train_in(recipe, method, seed, folder, resume=True)
    name = f"val_{FIGURE[recipe.colearn.task.kind][0]}"
    one = recipe.tune.modality
    row = next(row for row in trained.history if row["epoch"] == trained.best_epoch)
    return row[name if one is None else f"{name}_{one}"]


def _study(folder: Path, identity: str, overwrite: bool, resume: bool) -> Any:
    try:
        optuna: Any = import_module("optuna")
        journal: Any = import_module("optuna.storages.journal")
    except ImportError as error:
        raise MdicoError("tuning needs optuna: pip install 'mdico-cube[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path, card = folder / "study.log", folder / "study.json"
    if card.exists() and not overwrite:
        if not resume:
            raise MdicoError(f"{folder}: holds a study. Use --resume to go on or --overwrite to replace it.")
        if read_facts(card, "Use --overwrite to start anew").get("identity") != identity:
            raise MdicoError(f"{folder}: holds a study of other samples, options or values. Name another folder.")
    else:
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    card.write_text(json.dumps({"identity": identity}), encoding="utf-8")
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))
    study = optuna.create_study(study_name="mdico", storage=storage, direction="maximize", load_if_exists=True)
    for trial in study.trials:
        if trial.state.name == "RUNNING":  # of a process that is gone
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=8)
    return study


def _identity(recipe: Recipe, method: str) -> str:
    """What all trials of one folder have in common."""
    facts = recipe.colearn.model_dump(mode="json", exclude={"methods", "seeds"})
    tuned = recipe.tune.model_dump(mode="json", exclude={"trials"})
    origin = samples_attrs(Places.of(recipe).samples)["made_from"]
    return hashlib.sha256(json.dumps([method, facts, tuned, origin], sort_keys=True).encode()).hexdigest()


def _done(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _result(study: Any, method: str, recipe: Recipe, folder: Path) -> Tuning:
    done = _done(study)
    best = max(done, key=lambda trial: trial.value)
    first = next((trial.value for trial in done if trial.user_attrs.get("usual")), float("nan"))
    one = recipe.tune.modality
    figure = f"validation {FIGURE[recipe.colearn.task.kind][1]}, {one or 'mean over the sensors'}"
    found = Tuning(method, figure, len(done), dict(best.user_attrs["options"]), best.value, first, folder)
    (folder / "best.yml").write_text(found.lines(), encoding="utf-8")
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = list(recipe.tune.space)
        writer.writerow(["trial", "score", *names])
        for trial in done:
            writer.writerow([trial.number, f"{trial.value:.6f}", *(trial.user_attrs["options"][n] for n in names)])
    return found
