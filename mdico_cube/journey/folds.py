"""A recipe whose labels are parted into folds in, every fold's scores and their mean out: each block tested once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from rich.table import Table

from mdico_cube.cube.build import check_free
from mdico_cube.cube.change import writing
from mdico_cube.cube.target import cube_location, note_location
from mdico_cube.journey.cubes import build
from mdico_cube.journey.mapping import evaluate, predict
from mdico_cube.journey.training import train
from mdico_cube.journey.windows import sample
from mdico_cube.maps.evaluate import AnyScores
from mdico_cube.patches.divide import count_folds
from mdico_cube.patches.draw import index_path
from mdico_cube.progress import say
from mdico_cube.recipe import Recipe


@dataclass(frozen=True)
class FoldScores:
    """Scores of the same recipe, each time with another fold held out."""

    folds: Mapping[int, AnyScores]
    """Fold -> its scores."""

    @cached_property
    def together(self) -> AnyScores:
        """Every map of every fold: each pair of fold and seed counts as one run, and gains are taken within it."""
        runs: dict[tuple[int, int], int] = {}
        maps = [
            replace(cast(Any, item), seed=runs.setdefault((fold, item.seed), len(runs)))
            for fold, scores in self.folds.items()
            for item in scores.maps
        ]
        together: AnyScores = replace(cast(Any, next(iter(self.folds.values()))), maps=tuple(maps))
        return together

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        whole = self.together.to_dict()
        return {
            "version": 1,
            "summary": whole["summary"],
            "gains": whole["gains"],
            "folds": {str(fold): scores.to_dict() for fold, scores in self.folds.items()},
        }

    def table(self) -> Table:
        """Mean and standard deviation over the runs, for a terminal."""
        return self.together.table(f"Held-out scores over {len(self.folds)} folds", "runs")


def run_folds(recipe: Recipe, overwrite: bool = False, resume: bool = False) -> FoldScores:
    """Sample, train, map and score once for every fold, from one cube; folds.json holds all scores and their mean.

    The cube is built where it is missing. Every fold has a folder of its own, folds/fold-K, and what is finished there
    is kept by `resume`.

    Raises:
        MdicoError: the recipe names no folds, they stand already, or what any stage raises.
    """
    recipe.check_whole()
    target = recipe.output / "folds.json"
    if not resume:
        for path in (recipe.output / "folds", target):
            check_free(path, overwrite, resume)
    place = cube_location(recipe)
    known = 0 if recipe.samples.split == "year" else count_folds(place, recipe.samples)  # years are in the cube
    build(recipe, resume=True)
    count = known or count_folds(place, recipe.samples)
    found: dict[int, AnyScores] = {}
    for fold in range(count):
        say(f"fold {fold + 1} of {count}")
        one = fold_recipe(recipe, fold)
        note_location(one.output, place)
        _hand_on_index(fold_recipe(recipe, fold - 1).output if fold else recipe.output, one.output)
        sample(one, overwrite, resume)
        train(one, overwrite, resume)
        predict(one, overwrite, resume)
        found[fold] = evaluate(one, overwrite or resume)
    scores = FoldScores(found)
    with writing(target):
        target.write_text(json.dumps(scores.to_dict(), indent=1), encoding="utf-8")
    return scores


def fold_recipe(recipe: Recipe, fold: int) -> Recipe:
    """The same recipe with another fold held out, in a folder of its own, over the same cube."""
    cube = recipe.store.target or str(
        recipe.output / ("cube.icechunk" if recipe.store.kind == "icechunk" else "cube.zarr")
    )
    return recipe.model_copy(
        update={
            "output": recipe.output / "folds" / f"fold-{fold}",
            "samples": recipe.samples.model_copy(update={"test_fold": fold}),
            "store": recipe.store.model_copy(update={"target": cube}),
        }
    )


def _hand_on_index(before: Path, after: Path) -> None:
    """What was counted in the windows stays as it is; only where they belong is told anew."""
    source, target = index_path(before), index_path(after)
    if source.exists() and not target.exists():
        with writing(target):
            shutil.copyfile(source, target)
