"""Commands that compare methods."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Overwrite, Resume, app, out, print_json, split_names
from mdico_cube.errors import MdicoError


@app.command(rich_help_panel="Lab")
def methods(as_json: AsJson = False) -> None:
    """Every co-learning method with its paper and its loss.

    Example: `mdico methods`
    """
    facts = {
        name: {
            "title": method.card.title,
            "paper": method.card.paper,
            "formula": method.card.formula,
            "maps_alone": method.maps_alone,
            "any_subset": method.any_subset,
        }
        for name, method in mdico.METHODS.items()
    }
    if as_json:
        print_json(facts)
        return
    for name, fact in facts.items():
        kinds = ["maps with one sensor" if fact["maps_alone"] else "needs every sensor"]
        kinds += ["predicts from any subset"] if fact["any_subset"] else []
        out.print(f"[bold]{name}[/bold]  {fact['title']}: {'; '.join(kinds)}", soft_wrap=True)
        out.print(f"  paper: {fact['paper']}\n  loss: {fact['formula']}", soft_wrap=True, markup=False)


@app.command(rich_help_panel="Lab")
def benchmark(
    name: Annotated[str, typer.Argument(metavar="NAME", help="pixel-series, cropharvest, treesatai or lfmc.")],
    data: Annotated[Path, typer.Option("--data", help="The folder, or the npz or Parquet file.")],
    target: Annotated[Path, typer.Option("--out", help="Where runs and table are written.")],
    label: Annotated[
        str | None, typer.Option("--label", help="Column with the class; of cropharvest: binary or multi.")
    ] = None,
    method: Annotated[str, typer.Option("--methods", help="Separated by commas.")] = "independent,mdico",
    modality: Annotated[str | None, typer.Option("--modalities", help="Separated by commas; default: all.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Column of what belongs together; default: place.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
    protocol: Annotated[str, typer.Option("--protocol", help="honest, or paper: only to compare.")] = "honest",
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 30,
    encoder: Annotated[str, typer.Option("--encoder", help="tempcnn, ltae, tae, transformer, ...")] = "tempcnn",
    weights: Annotated[
        str, typer.Option("--weights", help="Of classes in the networks' loss: auto, balanced, sqrt or none.")
    ] = "auto",
    min_samples: Annotated[int, typer.Option("--min-samples", min=1, help="Smaller classes are left out.")] = 10,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Methods compared over folds and seeds, with random forest and gradient boosting beside them.

    Example: `mdico benchmark pixel-series --data crops.npz --label crop --methods independent,mdico --out bench`, or
    `mdico benchmark cropharvest --data cropharvest/ --label multi --folds 10 --protocol paper --out bench`
    """
    if protocol not in ("honest", "paper"):
        raise MdicoError(f"--protocol is honest or paper, came {protocol!r}. Choose one of them.")
    if weights not in ("auto", "balanced", "sqrt", "none"):
        raise MdicoError(f"--weights is auto, balanced, sqrt or none, came {weights!r}. Choose one of them.")
    plan = mdico.BenchmarkPlan(split_names(method), folds, seeds, protocol, epochs, encoder, weights)
    chosen = split_names(modality) if modality else None
    table = mdico.benchmark(name, data, label, target, plan, chosen, group, min_samples, overwrite, resume)
    if as_json:
        print_json(asdict(table))
    else:
        sys.stdout.write(mdico.benchmark_table(table))
