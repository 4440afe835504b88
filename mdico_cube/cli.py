"""The door: one sub-command per stage; parses, calls, prints."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

import mdico_cube as mdico
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console
from mdico_cube.recipe import Recipe, load_recipe


class Door(TyperGroup):
    """Faults the user can mend are one sentence on standard error and exit status 2; Ctrl-C says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        try:
            return super().invoke(ctx)
        except MdicoError as error:
            _stop(f"error: {error}", 2)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            reason = f"{error.filename or 'file'}: {error.strerror or error}"
            _stop(f"error: {reason}. Free space or choose another folder, then go on with --resume.", 2)
        except KeyboardInterrupt:
            _stop("stopped. What was finished is kept: go on with --resume.", 130)


def _stop(message: str, status: int) -> NoReturn:
    Console(stderr=True, highlight=False, markup=False).print(message, soft_wrap=True)
    sys.exit(status)


app = typer.Typer(
    cls=Door,
    name="mdico",
    help="Train with every sensor, map with any one.\n\n"
    "A recipe (YAML) says where, when, which sensors and which labels. `mdico run RECIPE` does every stage in order; "
    "each stage is also a command of its own. `mdico demo` shows it all on a simulated region.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
"""Results go to standard output."""

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yml", help="The recipe file.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what stands there; finished work is skipped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="How many things are done at once; default: one per processor.")
]


@app.callback()
def _root(quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")] = False) -> None:
    console.quiet = quiet


@app.command(rich_help_panel="Start here")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path("demo-output"),
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Simulate a region with known truth, then run the whole chain on it.

    Example: `mdico demo` writes demo-output/, with demo.yml (the recipe), cube, models, maps and report.html.
    """
    recipe = mdico.prepare_demo(folder, overwrite=overwrite, resume=resume)
    _finish(recipe, overwrite, resume)


@app.command(rich_help_panel="Start here")
def run(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False) -> None:
    """Every stage of a recipe, from the catalog to the report.

    Example: `mdico run region.yml`, and after an interruption `mdico run region.yml --resume`.
    """
    _finish(load_recipe(recipe), overwrite, resume)


def _finish(recipe: Recipe, overwrite: bool, resume: bool) -> None:
    scores = mdico.run(recipe, overwrite=overwrite, resume=resume)
    out.print(mdico.scores_table(scores))
    out.print(f"report: {recipe.output / 'report.html'}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def plan(recipe: RecipeFile, as_json: AsJson = False) -> None:
    """What a build would read and write, before any pixel is read.

    Example: `mdico plan region.yml --json`
    """
    summary = mdico.plan(load_recipe(recipe)).summary()
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    else:
        _print_plan(summary)


def _print_plan(summary: Mapping[str, Any]) -> None:
    height, width = summary["shape"]
    out.print(
        f"grid: {width} x {height} pixels of {summary['resolution']:g} in {summary['crs']}, "
        f"{summary['shards']} shards, {summary['jobs']} jobs"
    )
    table = Table("modality", "bands", "steps", "scenes", "per step", "to read", "in the cube", title="plan")
    for name, facts in summary["modalities"].items():
        counts = facts["scenes_per_step"]
        table.add_row(
            name,
            str(len(facts["bands"])),
            str(len(facts["steps"])),
            str(facts["scenes"]),
            f"{min(counts)} to {max(counts)}",
            _size(facts["bytes_read"]),
            _size(facts["bytes_stored"]),
        )
    out.print(table)
    for name, steps in summary["gaps"].items():
        out.print(f"gap: {name} has no scene in {', '.join(steps)}")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


@app.command(rich_help_panel="Stages")
def build(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False, workers: Workers = None) -> None:
    """Catalog to aligned cube: search, read, mask, composite, write; then the labels.

    Example: `mdico build region.yml`
    """
    out.print(f"cube: {mdico.build(load_recipe(recipe), overwrite, resume, workers)}", soft_wrap=True)


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
def predict(recipe: RecipeFile, overwrite: Overwrite = False, resume: Resume = False, workers: Workers = None) -> None:
    """Bundles to maps: the whole region with one sensor at a time, as Zarr and GeoTIFF.

    Example: `mdico predict region.yml`
    """
    for path in mdico.predict(load_recipe(recipe), overwrite, resume, workers):
        out.print(f"map: {path.with_suffix('.tif')}", soft_wrap=True)


@app.command(rich_help_panel="Stages")
def evaluate(recipe: RecipeFile, overwrite: Overwrite = False) -> None:
    """Maps to scores, on the held-out blocks.

    Example: `mdico evaluate region.yml`
    """
    out.print(mdico.scores_table(mdico.evaluate(load_recipe(recipe), overwrite)))


@app.command(rich_help_panel="Stages")
def report(recipe: RecipeFile, overwrite: Overwrite = False) -> None:
    """Everything to one self-contained report.html.

    Example: `mdico report region.yml`
    """
    out.print(f"report: {mdico.report(load_recipe(recipe), overwrite)}", soft_wrap=True)


@app.command(rich_help_panel="Look")
def inspect(
    cube: Annotated[Path, typer.Argument(metavar="CUBE.zarr", help="A cube.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """What stands in a cube: shards, what was observed, offsets applied, failures and why.

    Example: `mdico inspect my-region/cube.zarr`
    """
    statuses = mdico.inspect_cube(cube)
    if as_json:
        sys.stdout.write(json.dumps([asdict(status) for status in statuses], indent=1) + "\n")
        return
    table = Table("modality", "done", "failed", "missing", "observed", "items", "written", "seconds", title=cube.name)
    for status in statuses:
        counts = (str(status.done), str(status.failed), str(status.missing))
        observed, written = f"{status.valid_fraction:.0%}", _size(status.bytes_written)
        table.add_row(status.modality, *counts, observed, str(status.items), written, f"{status.seconds:.0f}")
    out.print(table)
    for status in statuses:
        for offset, items in status.offsets.items():
            out.print(f"{status.modality}: offset {offset}: {items} items")
        for shard, error in status.errors.items():
            out.print(f"{status.modality}: shard {shard} failed: {error}")


catalogs_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(catalogs_app, name="catalogs", rich_help_panel="Help")


@catalogs_app.callback()
def catalogs(ctx: typer.Context) -> None:
    """The catalogs that come with the project, and whether one works.

    Example: `mdico catalogs`, `mdico catalogs check earth-search`
    """
    if ctx.invoked_subcommand is not None:
        return
    table = Table("name", "title", "address", "modalities")
    for catalog in mdico.list_catalogs():
        table.add_row(
            catalog.name, catalog.title, catalog.href or "`href` in the recipe", ", ".join(catalog.modalities)
        )
    out.print(table)


@catalogs_app.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A catalog's name, or the path of its YAML file.")],
    href: Annotated[str | None, typer.Option("--href", help="Where it is, if its file does not say.")] = None,
) -> None:
    """Is it reachable, are its collections and assets there, do the rules know its offsets? No pixel is read.

    Example: `mdico catalogs check local --href demo-output/region/catalog.json`
    """
    checks = mdico.check_catalog(name, href)
    for one in checks:
        out.print(f"{'ok    ' if one.passed else 'FAILED'} {one.name}: {one.detail}", soft_wrap=True, markup=False)
    failed = sum(not one.passed for one in checks)
    if failed:
        raise MdicoError(f"catalog {name}: {failed} of {len(checks)} checks failed.")


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
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for name, fact in facts.items():
        kinds = ["maps with one sensor" if fact["maps_alone"] else "needs every sensor"]
        kinds += ["predicts from any subset"] if fact["any_subset"] else []
        out.print(f"[bold]{name}[/bold]  {fact['title']}: {'; '.join(kinds)}", soft_wrap=True)
        out.print(f"  paper: {fact['paper']}\n  loss: {fact['formula']}", soft_wrap=True, markup=False)


@app.command(rich_help_panel="Lab")
def benchmark(
    name: Annotated[str, typer.Argument(metavar="NAME", help="pixel-series.")],
    data: Annotated[Path, typer.Option("--data", help="The file, npz or Parquet.")],
    label: Annotated[str, typer.Option("--label", help="Column with the class.")],
    target: Annotated[Path, typer.Option("--out", help="Where runs and table are written.")],
    method: Annotated[str, typer.Option("--methods", help="Separated by commas.")] = "independent,mdico",
    modality: Annotated[str | None, typer.Option("--modalities", help="Separated by commas; default: all.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Column of what belongs together; default: place.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
    protocol: Annotated[str, typer.Option("--protocol", help="honest, or paper: only to compare.")] = "honest",
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 30,
    encoder: Annotated[str, typer.Option("--encoder", help="tempcnn, ltae or gru.")] = "tempcnn",
    min_samples: Annotated[int, typer.Option("--min-samples", min=1, help="Smaller classes are left out.")] = 10,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Methods compared over folds and seeds, with random forest and gradient boosting beside them.

    Example: `mdico benchmark pixel-series --data crops.npz --label crop --methods independent,mdico --out bench`
    """
    if protocol not in ("honest", "paper"):
        raise MdicoError(f"--protocol is honest or paper, came {protocol!r}. Choose one of them.")
    plan = mdico.BenchmarkPlan(tuple(method.split(",")), folds, seeds, protocol, epochs, encoder)
    chosen = modality.split(",") if modality else None
    table = mdico.benchmark(name, data, label, target, plan, chosen, group, min_samples, overwrite, resume)
    sys.stdout.write(mdico.benchmark_table(table))


@app.command(rich_help_panel="Help")
def schema() -> None:
    """The recipe's JSON schema, for editors that complete and check YAML.

    Example: `mdico schema > recipe.schema.json`
    """
    sys.stdout.write(json.dumps(Recipe.model_json_schema(), indent=1) + "\n")


@app.command(rich_help_panel="Help")
def version() -> None:
    """The version of mdico_cube."""
    out.print(mdico.__version__)


def main() -> None:
    """Run a command."""
    app()


if __name__ == "__main__":
    main()
