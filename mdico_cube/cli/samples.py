"""`mdico samples`: what there is to draw from, and what was drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Overwrite, RecipeFile, app, out, print_json, share
from mdico_cube.errors import some
from mdico_cube.recipe import load_recipe

Samples = Annotated[Path, typer.Argument(metavar="SAMPLES.zarr", help="A samples store.", show_default=False)]

samples_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="What there is to draw from, and what was drawn.\n\nExample: `mdico samples index region.yml`",
)
app.add_typer(samples_app, name="samples", rich_help_panel="Look")


@samples_app.command("index")
def index(recipe: RecipeFile, as_json: AsJson = False) -> None:
    """Index every candidate window of a cube: class, fold, share observed by each sensor. A current index is kept.

    Example: `mdico samples index region.yml` writes samples-index.parquet and prints how many windows each class has
    """
    found = mdico.index_samples(load_recipe(recipe))
    summary = mdico.index_summary(found)
    if as_json:
        print_json(summary)
        return
    table = Table("class", "train", "validation", "test", "unused", title=some(summary["windows"], "window"))
    for name, folds in summary["classes"].items():
        table.add_row(name, *(f"{folds[fold]:,}" for fold in ("train", "validation", "test", "unused")))
    out.print(table)
    for name, observed in summary["observed"].items():
        out.print(f"{name}: {share(observed)} observed on average")
    out.print(f"index: {found.path}", soft_wrap=True)


@samples_app.command("show")
def show(
    samples: Samples,
    target: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture.")],
    count: Annotated[int, typer.Option("--count", min=1, help="Samples to show.")] = 8,
    fold: Annotated[str, typer.Option("--fold", help="train, validation or test.")] = "train",
    label: Annotated[str | None, typer.Option("--class", help="Show this class only.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice.")] = 0,
    cube: Annotated[str | None, typer.Option("--cube", help="Where the pixels are if the store holds none.")] = None,
) -> None:
    """A contact sheet: samples of every class, every sensor at every step, with the labels.

    Example: `mdico samples show my-region/samples.zarr samples.png --count 10 --fold test`
    """
    out.print(f"picture: {mdico.contact_sheet(samples, target, count, fold, label, seed, cube)}", soft_wrap=True)


@samples_app.command("export")
def export(
    samples: Samples,
    target: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The table.")],
    overwrite: Overwrite = False,
) -> None:
    """Pixel series as one Parquet file: place, fold, class and every sensor's series of each.

    Example: `mdico samples export my-region/samples.zarr series.parquet`, then
    `mdico benchmark pixel-series --data series.parquet --label label --out bench`
    """
    out.print(f"table: {mdico.export_samples(samples, target, overwrite)}", soft_wrap=True)
