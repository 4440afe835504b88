"""Commands that look into a map or hand it on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import mdico_cube as mdico
from mdico_cube.cli.door import app, out


@app.command(rich_help_panel="Look")
def polygons(
    source: Annotated[Path, typer.Argument(metavar="MAP.zarr", help="A map of a run.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.gpkg", help="A .gpkg or .geojson file.", show_default=False)],
    smallest: Annotated[int, typer.Option("--smallest", min=1, help="Leave out patches of fewer pixels.")] = 1,
) -> None:
    """A map's classes as polygons, one per connected patch.

    Example: `mdico polygons my-region/maps/mdico-sentinel2-seed0.zarr fields.gpkg --smallest 10`
    """
    out.print(f"polygons: {mdico.write_polygons(source, target, smallest)}", soft_wrap=True)


@app.command(rich_help_panel="Look", name="map-status")
def map_status(
    source: Annotated[Path, typer.Argument(metavar="MAP.zarr", help="A map of a run.", show_default=False)],
) -> None:
    """What stands of a map: its shards by state, and why the failed ones failed, as JSON.

    Example: `mdico map-status my-region/maps/mdico-sentinel2-seed0.zarr`
    """
    sys.stdout.write(json.dumps(mdico.map_status(source), indent=1) + "\n")
