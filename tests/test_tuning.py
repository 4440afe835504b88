"""`mdico tune`: the first trial is the recipe itself, held-out blocks are never read, a broken-off study goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import mdico_cube as mdico
from mdico_cube.errors import MdicoError
from mdico_cube.journey import tuning
from mdico_cube.journey.training import train_in
from mdico_cube.journey.tuning import changed, tune
from mdico_cube.patches.splits import TEST, TRAIN, VALIDATION
from mdico_cube.recipe import Recipe, load_recipe, parse_recipe

SPACE = {
    "train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
    "encoder.hidden": [4, 8],
    "mdico.main": [1.0, 2.0],
}


@pytest.fixture
def recipe(recipe_facts: dict[str, Any], tmp_path: Path) -> Recipe:
    facts = {**recipe_facts, "tune": {"trials": 3, "space": SPACE}}
    facts["colearn"] = {**facts["colearn"], "methods": ["independent", "mdico"], "protocol": "paper"}
    facts["colearn"]["train"] = {**facts["colearn"].get("train", {}), "epochs": 2, "loggers": ()}
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(facts))))
    found = load_recipe(path)
    mdico.build(found)
    mdico.sample(found)
    return found


def test_a_study_finds_options_and_goes_on(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    original = tuning.train_in.__globals__["_loader"]

    def spy(given: Recipe, store: Any, folds: Any, *rest: Any, **more: Any) -> Any:
        read.update(folds)
        return original(given, store, folds, *rest, **more)

    monkeypatch.setitem(tuning.train_in.__globals__, "_loader", spy)
    tried: list[float] = []
    train = tuning.train_in

    def broken(*arguments: Any, **options: Any) -> Any:
        if len(tried) == 1:
            tried.append(0)
            raise KeyboardInterrupt
        trained = train(*arguments, **options)
        tried.append(trained.history[-1]["val_f1"])
        return trained

    monkeypatch.setattr(tuning, "train_in", broken)
    folder = tmp_path / "tune"
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, folder)
    with pytest.raises(MdicoError, match=r"holds a study. Use --resume"):
        tune(recipe, folder)
    found = tune(recipe, folder, resume=True)
    assert read == {TRAIN, VALIDATION}, "although the recipe's protocol is paper"
    assert TEST not in read
    assert found.trials == 3
    assert len(tried) == 4, "what was finished is not trained again"
    assert found.usual == pytest.approx(tried[0])
    assert found.score == pytest.approx(max(tried))
    assert found.method == "mdico"
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == pytest.approx([tried[0], *tried[2:]], abs=1e-6)
    assert float(rows[0]["train.learning_rate"]) == recipe.colearn.train.learning_rate
    assert all(1e-3 <= float(row["train.learning_rate"]) <= 1e-2 for row in rows[1:])
    best = yaml.safe_load((folder / "best.yml").read_text())
    assert best["colearn"]["encoder"]["hidden"] == found.best["encoder.hidden"]
    assert changed(recipe.colearn, found.best).encoder.hidden == found.best["encoder.hidden"]
    assert tune(recipe, folder, resume=True) == found, "a finished study trains no more"
    assert len(tried) == 4
    other = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"method": "comiss"})})
    with pytest.raises(MdicoError, match="a study of other samples, options or values"):
        tune(other, folder, resume=True)


def test_a_setting_that_cannot_be_trained_is_told_and_left_out(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    monkeypatch.setattr(tuning, "say", told.append)
    space = {"train.learning_rate": (1e30, 1e31)}
    wild = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"space": space})})
    found = tune(wild, tmp_path / "tune")
    assert (found.trials, found.score) == (1, found.usual), "the recipe as it stands"
    assert [line.startswith("tune: no score with {'train.learning_rate': 1e+3") for line in told] == [False, True, True]
    assert "training diverged" in told[1]
    assert not caplog.records, "no traceback of the library"
    train = recipe.colearn.train.model_copy(update={"learning_rate": 1e30})
    broken = wild.model_copy(update={"learning": recipe.colearn.model_copy(update={"train": train})})
    with pytest.raises(MdicoError, match="training diverged"):
        tune(broken, tmp_path / "broken")


def test_ctrl_c_while_a_score_is_written_down_stays_one(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")
    tell = optuna.storages.JournalStorage.set_trial_state_values

    def interrupted(storage: Any, number: int, state: Any, values: Any = None) -> Any:
        if state.is_finished():
            monkeypatch.setattr(optuna.storages.JournalStorage, "set_trial_state_values", tell)
            raise KeyboardInterrupt
        return tell(storage, number, state, values)

    monkeypatch.setattr(optuna.storages.JournalStorage, "set_trial_state_values", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, tmp_path / "tune", trials=1)
    found = tune(recipe, tmp_path / "tune", trials=1, resume=True)
    assert (found.trials, found.score) == (1, found.usual)


@pytest.mark.slow
def test_two_processes_train_on_a_recipe_s_windows(recipe: Recipe, tmp_path: Path) -> None:
    section = changed(recipe.colearn, {"train.devices": 2, "train.accelerator": "cpu", "train.batch": 8})
    trained = train_in(recipe.model_copy(update={"learning": section}), "independent", 0, tmp_path / "run")
    assert len(trained.history) == 2


def test_options_that_do_not_exist_are_named(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    section = parse_recipe(recipe_facts, base=tmp_path).colearn
    with pytest.raises(
        MdicoError, match=r"no option 'train.learnin_rate' of colearn. Did you mean 'train.learning_rate'"
    ):
        changed(section, {"train.learnin_rate": 0.1})
    with pytest.raises(MdicoError, match=r"tune.space: train.epochs: .* came 0"):
        changed(section, {"train.epochs": 0})
    for wrong in ({"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}):
        with pytest.raises(MdicoError, match="runs from low to a larger high"):
            parse_recipe({**recipe_facts, "tune": {"space": {"train.learning_rate": wrong}}}, base=tmp_path)
    with pytest.raises(MdicoError, match=r"tune.modality names lidar"):
        parse_recipe({**recipe_facts, "tune": {"modality": "lidar"}}, base=tmp_path)
    with pytest.raises(MdicoError, match="no samples"):
        tune(parse_recipe(recipe_facts, base=tmp_path), tmp_path / "tune")
