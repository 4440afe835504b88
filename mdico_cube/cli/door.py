"""What every command shares: the program, how it stops, its common options."""

from __future__ import annotations

import errno
import json
import logging
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from mdico_cube import __version__
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console

PANELS = ("Start here", "Stages", "Look", "Lab", "Help")
"""Panels of the help page, in their order."""


class Door(TyperGroup):
    """Faults the user can mend are one sentence on standard error and exit status 2; Ctrl-C says how to go on."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands in the order of their panels."""
        return sorted(super().list_commands(ctx), key=lambda name: PANELS.index(_panel(self.commands[name])))

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        try:
            return super().invoke(ctx)
        except MdicoError as error:
            if ctx.params.get("verbose"):
                traceback.print_exc()
            _stop(f"error: {error}", 2)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            reason = f"{error.filename or 'file'}: {error.strerror or error}"
            _stop(f"error: {reason}. Free space or choose another folder, then go on with --resume.", 2)
        except KeyboardInterrupt:
            _stop("stopped. What was finished is kept: go on with --resume.", 130)


def _panel(command: Any) -> str:
    panel = command.rich_help_panel
    return panel if panel in PANELS else "Help"


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
out = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
"""Results go to standard output; in a pipe or a file, lines are not cut to a terminal's 80 letters."""

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yml", help="The recipe file.", show_default=False)]
Cube = Annotated[
    str,
    typer.Argument(metavar="CUBE", help="A cube: its folder, s3://... or icechunk+s3://...", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what stands there; finished work is skipped.")]
Items = Annotated[
    Path | None,
    typer.Option("--items", help="Saved items (items.parquet or a cube) to take instead of searching.", metavar="FILE"),
]
Refresh = Annotated[bool, typer.Option("--refresh", help="Go on, but search again; say what is new, changed or gone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="How many things are done at once; default: one per processor.")
]


def _version(asked: bool) -> None:
    if asked:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Messages of the libraries too, and where in the code a fault arose."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    console.quiet = quiet
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        logging.captureWarnings(True)


def print_json(facts: Any) -> None:
    """Facts for machines, on standard output; what is not a number is null."""
    sys.stdout.write(json.dumps(_plain(facts), indent=1, allow_nan=False) + "\n")


def _plain(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {str(key): _plain(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_plain(value) for value in facts]
    if isinstance(facts, float) and not math.isfinite(facts):
        return None
    return str(facts) if isinstance(facts, Path) else facts


def split_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; spaces around them do not count.

    Raises:
        MdicoError: no name at all.
    """
    names = tuple(name for name in map(str.strip, text.split(",")) if name)
    if not names:
        raise MdicoError(f"names are separated by commas, came {text!r}. Give one at least.")
    return names


def share(part: float) -> str:
    """A share for people: "37%"; "under 1%" and "over 99%" are said of what is not quite nothing or everything."""
    if 0 < part < 0.01 or 0.99 < part < 1:
        return "under 1%" if part < 0.5 else "over 99%"
    return f"{part:.0%}"


def size(count: float) -> str:
    """Bytes for people: 3 digits and a unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
