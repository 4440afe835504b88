"""`mdico tune`: which options of the training suit a recipe's samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Overwrite, RecipeFile, Resume, app, out, print_json
from mdico_cube.recipe import load_recipe


@app.command(rich_help_panel="Lab")
def tune(
    recipe: RecipeFile,
    folder: Annotated[Path | None, typer.Option("--out", help="Of the study; default: tune/ in the output.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="In all; default: the recipe's.")] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Try options of a recipe's colearn section on its inner validation blocks; held-out blocks are never read.

    What is tried stands in the recipe's `tune.space`. Example: `mdico tune region.yml --trials 20`, and after an
    interruption `mdico tune region.yml --trials 20 --resume`
    """
    facts = load_recipe(recipe)
    found = mdico.tune(facts, folder or facts.output / "tune", trials, overwrite, resume)
    if as_json:
        print_json(asdict(found))
        return
    out.print(f"{found.figure}: {found.score:.4f} after {found.trials} trials, {found.usual:.4f} as the recipe stands")
    out.print(f"best options, for the recipe:\n{found.lines()}", highlight=False)
