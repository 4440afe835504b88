"""`mdico samples`: what there is to draw from."""

from __future__ import annotations

import json
import sys

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, RecipeFile, app, out
from mdico_cube.recipe import load_recipe

samples_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="What there is to draw from.")
app.add_typer(samples_app, name="samples", rich_help_panel="Look")


@samples_app.command("index")
def index(recipe: RecipeFile, as_json: AsJson = False) -> None:
    """Index every candidate window of a cube: class, fold, share observed by each sensor. A current index is kept.

    Example: `mdico samples index region.yml` writes samples-index.parquet and prints how many windows each class has
    """
    found = mdico.index_samples(load_recipe(recipe))
    summary = mdico.index_summary(found)
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return
    table = Table("class", "train", "validation", "test", "unused", title=f"{summary['windows']:,} windows")
    for name, folds in summary["classes"].items():
        table.add_row(name, *(f"{folds[fold]:,}" for fold in ("train", "validation", "test", "unused")))
    out.print(table)
    for name, share in summary["observed"].items():
        out.print(f"{name}: {share:.0%} observed on average")
    out.print(f"index: {found.path}", soft_wrap=True)
