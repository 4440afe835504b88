"""Commands that do a stage of a recipe, or all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Items, Overwrite, RecipeFile, Refresh, Resume, Workers, app, out, print_json
from mdico_cube.cube.job import retries
from mdico_cube.recipe import Recipe, load_recipe


@app.command(rich_help_panel="Start here")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path("demo-output"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Simulate a region with known truth, then run the whole chain on it.

    Example: `mdico demo` writes demo-output/, with demo.yml (the recipe), cube, models, maps and report.html.
    """
    recipe = mdico.prepare_demo(folder, overwrite=overwrite, resume=resume)
    _finish(recipe, overwrite, resume, as_json=as_json)


@app.command(rich_help_panel="Start here")
def run(
    recipe: RecipeFile,
    overwrite: Overwrite = False,
    resume: Resume = False,
    items: Items = None,
    refresh: Refresh = False,
    as_json: AsJson = False,
) -> None:
    """Every stage of a recipe, from the catalog to the report.

    Example: `mdico run region.yml`, and after an interruption `mdico run region.yml --resume`.
    """
    _finish(load_recipe(recipe), overwrite, resume, items, refresh, as_json)


def _finish(
    recipe: Recipe,
    overwrite: bool,
    resume: bool,
    items: Path | None = None,
    refresh: bool = False,
    as_json: bool = False,
) -> None:
    scores = mdico.run(recipe, overwrite=overwrite, resume=resume, items=items, refresh=refresh)
    if as_json:
        print_json(json.loads((recipe.output / "scores.json").read_text(encoding="utf-8")))
        return
    out.print(scores.table())
    out.print(f"report: {recipe.output / 'report.html'}", soft_wrap=True)


@app.command(rich_help_panel="Start here")
def folds(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False, as_json: AsJson = False) -> None:
    """Sample, train, map and score once for every fold; mean and standard deviation over all.

    The recipe says how many (`samples.folds`), or shares out years (`samples.split: year`).

    Example: `mdico folds region.yml`, and after an interruption `mdico folds region.yml --resume`.
    """
    scores = mdico.run_folds(load_recipe(recipe), overwrite, resume)
    if as_json:
        print_json(scores.to_dict())
    else:
        out.print(scores.table())


@app.command(rich_help_panel="Stages")
def build(
    recipe: RecipeFile,
    overwrite: Overwrite = False,
    resume: Resume = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Worker processes; default: the recipe's cluster section.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Use the Dask scheduler that runs there.")
    ] = None,
    items: Items = None,
    refresh: Refresh = False,
    retry: Annotated[
        list[str] | None,
        typer.Option("--retry", metavar="KIND", help="Go on with the failed, gaps or stale shards only; repeatable."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Let the cube grow to a larger area, a longer period, more modalities.")
    ] = False,
) -> None:
    """Catalog to aligned cube: search, read, mask, composite, write; then the labels.

    What was found is kept in items.parquet beside the cube.

    Example: `mdico build region.yml --workers 4`, or `--scheduler tcp://10.0.0.1:8786`; the same cube again, without
    the catalog: `mdico build copy.yml --items my-region/items.parquet`
    """
    path = mdico.build(
        load_recipe(recipe), overwrite, resume, workers, scheduler, items, refresh, retries(retry or ()), update
    )
    out.print(f"cube: {path}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def sample(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False) -> None:
    """Cube to training windows: spatial blocks, guard distance, balanced draw.

    Example: `mdico sample region.yml --overwrite`
    """
    out.print(f"samples: {mdico.sample(load_recipe(recipe), overwrite, resume)}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def train(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False) -> None:
    """Windows to models: every method and seed, trained with every sensor; one bundle per sensor.

    Example: `mdico train region.yml --resume`
    """
    for folder in mdico.train(load_recipe(recipe), overwrite, resume):
        out.print(f"bundle: {folder}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def predict(
    recipe: RecipeFile,
    overwrite: Overwrite = False,
    resume: Resume = False,
    workers: Workers = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            metavar="NAME",
            help="A sensor to map with; auto = the best observed at each pixel, fused = all; repeatable.",
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", metavar="FOLDER", help="A bundle of another run to map with; repeatable."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", metavar="FILE", help="Map only inside the polygons of a vector file.")
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option("--abstain", min=0, max=1, help="Smallest class probability that counts as an answer."),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="NAME",
            help="probabilities, entropy, observations or applicability beside the answer; repeatable.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Use the Dask scheduler that runs there.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="torch, compile, onnx or openvino; default: the recipe's.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16, fp16 or int8; default: the recipe's.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", help="auto, cpu, cuda or cuda:1; default: the recipe's, which is auto."
        ),
    ] = None,
    polygons: Annotated[
        str | None, typer.Option("--polygons", metavar="KIND", help="Also write polygons: gpkg or geojson.")
    ] = None,
) -> None:
    """Bundles to maps: the whole region with one sensor at a time, as Zarr and GeoTIFF. Options replace the recipe's.

    Example: `mdico predict region.yml`, or `mdico predict region.yml --modality auto --mask fields.geojson`; four times
    as fast: `mdico predict region.yml --precision int8`, on a GPU: `--device cuda --precision bf16`; with a model of
    another region: `mdico predict other.yml --bundle my-region/bundles/mdico/seed-0/sentinel2`
    """
    asked: dict[str, Any] = {
        "modalities": modality,
        "bundles": [folder.resolve() for folder in bundle or ()],
        "mask": mask and mask.resolve(),
        "abstain": abstain,
        "outputs": output,
    }
    asked |= {"polygons": polygons, "backend": backend, "precision": precision, "device": device}
    maps = {key: value for key, value in asked.items() if value not in (None, [])}
    for path in mdico.predict(load_recipe(recipe), overwrite, resume, workers, scheduler, **maps):
        out.print(f"map: {path.with_suffix('.tif')}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def quantize(
    recipe: RecipeFile,
    force: Annotated[
        bool, typer.Option("--force", help="Calibrate anew, and keep it even where too many classes change.")
    ] = False,
) -> None:
    """Bundles to 8-bit integers: calibrate on training windows, count the classes that change on validation windows.

    Example: `mdico quantize region.yml`, then `mdico predict region.yml --precision int8`
    """
    for folder, changed in mdico.quantize(load_recipe(recipe), force).items():
        out.print(f"{folder}: {changed:.2%} of the validation pixels get another class", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def evaluate(recipe: RecipeFile, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Maps to scores, on the held-out blocks.

    Example: `mdico evaluate region.yml`, or `mdico evaluate region.yml --overwrite --json | jq '.maps[].f1_macro'`
    """
    facts = load_recipe(recipe)
    scores = mdico.evaluate(facts, overwrite)
    if as_json:
        print_json(json.loads((facts.output / "scores.json").read_text(encoding="utf-8")))
    else:
        out.print(scores.table())


@app.command(rich_help_panel="Stages")
def report(
    recipe: RecipeFile,
    overwrite: Overwrite = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="OUT.png", help="Also draw the run on one page: sensors, maps, scores."),
    ] = None,
) -> None:
    """Everything to one self-contained report.html.

    Example: `mdico report region.yml`, or `mdico report region.yml --overwrite --picture region.png`
    """
    facts = load_recipe(recipe)
    out.print(f"report: {mdico.report(facts, overwrite)}", soft_wrap=True)
    if picture is not None:
        out.print(f"picture: {mdico.write_poster(facts.output, picture)}", soft_wrap=True)
