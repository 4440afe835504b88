"""`mdico catalogs`: which come with the project, and whether one works."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, app, out, print_json
from mdico_cube.cube.catalog import CatalogFile
from mdico_cube.errors import MdicoError

catalogs_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(catalogs_app, name="catalogs", rich_help_panel="Help")


@catalogs_app.callback()
def catalogs(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The catalogs that come with the project, and whether one works.

    Example: `mdico catalogs`, `mdico catalogs check earth-search`
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        print_json([_facts(one) for one in mdico.list_catalogs()])
        return
    table = Table("name", "title", "address", "modalities")
    for catalog in mdico.list_catalogs():
        table.add_row(
            catalog.name, catalog.title, catalog.href or "`href` in the recipe", ", ".join(catalog.modalities)
        )
    out.print(table)


def _facts(one: CatalogFile) -> dict[str, Any]:
    return {"name": one.name, "title": one.title, "href": one.href, "modalities": list(one.modalities)}


@catalogs_app.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A catalog's name, or the path of its YAML file.")],
    href: Annotated[str | None, typer.Option("--href", help="Where it is, if its file does not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Is it reachable, are its collections and assets there, do the rules know its offsets? No pixel is read.

    Example: `mdico catalogs check local --href demo-output/region/catalog.json`
    """
    checks = mdico.check_catalog(name, href)
    if as_json:
        print_json([asdict(one) for one in checks])
    for one in () if as_json else checks:
        out.print(f"{'ok    ' if one.passed else 'FAILED'} {one.name}: {one.detail}", soft_wrap=True, markup=False)
    failed = sum(not one.passed for one in checks)
    if failed:
        raise MdicoError(f"catalog {name}: {failed} of {len(checks)} checks failed.")
