"""`mdico catalogs`: which come with the project, and whether one works."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import app, out
from mdico_cube.errors import MdicoError

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
