"""`mdico explore`: a cube and its maps in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import Cube, app


@app.command(rich_help_panel="Look")
def explore(
    cube: Cube,
    maps: Annotated[
        list[Path] | None, typer.Argument(metavar="[MAP.zarr]...", help="Maps of this cube.", show_default=False)
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", metavar="FOLDER", help="A bundle that gives class probabilities; repeatable."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in this machine's browser.")] = True,
) -> None:
    """A page in the browser, on this machine alone: look around, swipe between sensors, maps and labels, click a pixel.

    Example: `mdico explore my-region/cube.zarr my-region/maps/mdico-*.zarr`; on a machine without a screen:
    `mdico explore my-region/cube.zarr --no-open --port 8123`, and `ssh -L 8123:localhost:8123 THERE` from yours
    """
    mdico.explore(cube, maps or (), bundle or (), port, show)
