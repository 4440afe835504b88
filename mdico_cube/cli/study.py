"""Commands that measure what a method, or a part of it, is worth on a region of one's own."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Overwrite, RecipeFile, Resume, app, print_json, split_names
from mdico_cube.recipe import load_recipe

Out = Annotated[Path, typer.Option("--out", help="Where runs and table are written.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Each draws its own blocks, windows and weights.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Default: the recipe's.")]
Hidden = Annotated[int | None, typer.Option("--hidden", min=1, help="Channels of the encoder; default: the recipe's.")]
Dense = Annotated[int | None, typer.Option("--dense", min=1, help="Its dense layer; default: the recipe's.")]
Batch = Annotated[
    int | None, typer.Option("--batch", min=2, help="Labelled windows of a batch; default: the recipe's.")
]
Labels = Annotated[
    int | None, typer.Option("--labels", min=1, help="Training windows per class that keep their label; default: all.")
]
Unlabelled = Annotated[int, typer.Option("--unlabelled", min=0, help="Windows without label for who learns from them.")]


@app.command(rich_help_panel="Lab")
def study(
    recipe: RecipeFile,
    folder: Out,
    method: Annotated[
        str, typer.Option("--methods", help="Separated by commas; METHOD:OPTION=VALUE changes an option.")
    ] = "independent,mdico,fullco,mdico-plus",
    seeds: Seeds = 5,
    unlabelled: Unlabelled = 20_000,
    epochs: Epochs = None,
    hidden: Hidden = None,
    dense: Dense = None,
    batch: Batch = None,
    labels: Labels = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """What each sensor alone gains from the others, on the region of a recipe whose cube stands.

    Methods are measured against the first one, over seeds that each hold out other blocks: means with standard errors,
    paired tests, calibration and gains by class, with random forest and gradient boosting in every table.

    Example: `mdico study demo-output/demo.yml --methods independent,mdico,mdico:contrastive=0 --out study`
    """
    plan = mdico.StudyPlan(split_names(method), seeds, unlabelled, labels)
    _run(recipe, folder, plan, _Sizes(epochs, hidden, dense, batch), overwrite, resume, as_json)


@app.command(rich_help_panel="Lab")
def ablate(
    recipe: RecipeFile,
    folder: Out,
    of: Annotated[str, typer.Option("--of", help="mdico, mdico-plus or fullco.")] = "mdico",
    seeds: Seeds = 5,
    unlabelled: Unlabelled = 20_000,
    epochs: Epochs = None,
    hidden: Hidden = None,
    dense: Dense = None,
    batch: Batch = None,
    labels: Labels = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """A study of one method with each of its parts switched off in turn.

    Example: `mdico ablate demo-output/demo.yml --of mdico --out ablation`
    """
    plan = mdico.StudyPlan(mdico.ablation(of), seeds, unlabelled, labels)
    _run(recipe, folder, plan, _Sizes(epochs, hidden, dense, batch), overwrite, resume, as_json)


@app.command(rich_help_panel="Lab")
def analyse(
    recipe: RecipeFile,
    layout: Annotated[str, typer.Option("--layout", help="tsne or pca.")] = "tsne",
    count: Annotated[int, typer.Option("--count", min=20, help="Places in each picture.")] = 400,
    as_json: AsJson = False,
) -> None:
    """What the trained models' spaces hold, how sure they are, and which classes gain.

    For every method and seed a picture of the shared, specific and unused embeddings by sensor and by class, linear
    probes that tell sensor and class from each space, calibration error before and after the temperature, F1 by class
    with the gain over `independent`: all on the held-out windows. Pictures and figures go to OUTPUT/analysis.

    Example: `mdico analyse demo-output/demo.yml --layout pca`
    """
    results = mdico.analyse(load_recipe(recipe), layout, count)
    if as_json:
        print_json([asdict(one) for one in results])
    else:
        sys.stdout.write(mdico.analysis_table(results))


class _Sizes(NamedTuple):
    """What replaces the recipe's."""

    epochs: int | None
    hidden: int | None
    dense: int | None
    batch: int | None


def _run(path: Path, folder: Path, plan: object, sizes: _Sizes, overwrite: bool, resume: bool, as_json: bool) -> None:
    recipe = load_recipe(path)
    encoder = {k: v for k, v in {"hidden": sizes.hidden, "dense": sizes.dense}.items() if v}
    train = {k: v for k, v in {"epochs": sizes.epochs, "batch": sizes.batch}.items() if v}
    section = recipe.colearn.model_copy(
        update={
            "encoder": recipe.colearn.encoder.model_copy(update=encoder),
            "train": recipe.colearn.train.model_copy(update={**train, "loggers": ()}),
        }
    )
    table = mdico.study(recipe, folder, plan, section, overwrite, resume)
    if as_json:
        print_json(asdict(table))
    else:
        sys.stdout.write(mdico.study_table(table))
