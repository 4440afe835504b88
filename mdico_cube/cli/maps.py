"""`mdico maps`: what stands of a map, and its classes as polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, app, out, print_json

maps_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look into a map, or hand it on.\n\nExample: `mdico maps status my-region/maps/mdico-sentinel2-seed0.zarr`",
)
app.add_typer(maps_app, name="maps", rich_help_panel="Look")

Map = Annotated[
    Path, typer.Argument(metavar="MAP.zarr", help="A map of a run.", show_default=False, exists=True, file_okay=False)
]


@maps_app.command("status")
def status(source: Map, as_json: AsJson = False) -> None:
    """What stands of a map: its shards by state, and why the failed ones failed.

    Example: `mdico maps status my-region/maps/mdico-sentinel2-seed0.zarr`
    """
    facts = mdico.map_status(source)
    if as_json:
        print_json(facts)
        return
    table = Table("done", "failed", "missing", title=source.name)
    table.add_row(*(f"{facts[state]:,}" for state in ("done", "failed", "missing")))
    out.print(table)
    for shard, error in facts["errors"].items():
        out.print(f"shard {shard} failed: {error}", soft_wrap=True, markup=False)


@maps_app.command("polygons")
def polygons(
    source: Map,
    target: Annotated[Path, typer.Argument(metavar="OUT.gpkg", help="A .gpkg or .geojson file.", show_default=False)],
    smallest: Annotated[int, typer.Option("--smallest", min=1, help="Leave out patches of fewer pixels.")] = 1,
) -> None:
    """A map's classes as polygons, one per connected patch.

    Example: `mdico maps polygons my-region/maps/mdico-sentinel2-seed0.zarr fields.gpkg --smallest 10`
    """
    out.print(f"polygons: {mdico.write_polygons(source, target, smallest)}", soft_wrap=True)
