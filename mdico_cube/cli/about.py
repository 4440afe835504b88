"""Commands about the program itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, app, out, print_json
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe

STATES = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "FAILED": "[red]FAILED[/red]"}


@app.command(rich_help_panel="Help")
def schema() -> None:
    """The recipe's JSON schema, for editors that complete and check YAML.

    Example: `mdico schema > recipe.schema.json`
    """
    print_json(Recipe.model_json_schema())


@app.command(rich_help_panel="Help")
def version() -> None:
    """The version of mdico_cube.

    Example: `mdico version`
    """
    out.print(mdico.__version__)


@app.command(rich_help_panel="Help")
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where results would be written.")] = Path(),
    online: Annotated[bool, typer.Option("--online", help="Also ask every catalog whether it answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a run needs of this machine: packages, formats, disk, memory, processors, GPU, catalogs.

    Exit status 2 if a run would stop on it. Example: `mdico doctor /data/maps --online`
    """
    findings = mdico.examine(folder, online)
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        table = Table("", "what", "found")
        for one in findings:
            table.add_row(STATES[one.state], one.name, Text(one.detail))
        out.print(table)
    failed = [one.name for one in findings if one.state == "FAILED"]
    if failed:
        raise MdicoError(f"{', '.join(failed)}: a run would stop there. The line above says the way out.")
