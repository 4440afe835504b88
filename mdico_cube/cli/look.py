"""Commands that show what stands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Cube, RecipeFile, app, out, print_json, share, size
from mdico_cube.cube.items import reasons
from mdico_cube.cube.stale import counted
from mdico_cube.cube.target import name_of
from mdico_cube.errors import some
from mdico_cube.progress import span
from mdico_cube.recipe import load_recipe


@app.command(rich_help_panel="Look")
def inspect(
    cube: Cube,
    as_json: AsJson = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Write a map of the shards as PNG.", metavar="OUT.png")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Count shards that the recipe in the cube would build anew.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="The same for this recipe.", metavar="RECIPE.yml")
    ] = None,
) -> None:
    """What stands in a cube: shards, what was observed, offsets applied, failures and why.

    Example: `mdico inspect my-region/cube.zarr --picture shards.png`, or `mdico inspect s3://bucket/region/cube.zarr
    --recipe region.yml` to see which shards that recipe makes stale
    """
    if picture is not None:
        mdico.ledger_picture(cube, picture)
    statuses = mdico.inspect_cube(cube)
    wanted = stale or recipe is not None
    due = mdico.stale_shards(cube, None if recipe is None else load_recipe(recipe)) if wanted else []
    if as_json:
        found = [asdict(status) for status in statuses]
        for one in found if wanted else ():
            shards_due = [each for each in due if each.modality == one["modality"]]
            one["stale"] = {f"{each.row},{each.column}": each.why for each in shards_due}
        print_json(found)
        return
    table = Table(
        Column("modality", no_wrap=True), "shards", "observed", "items", "written", "time", title=name_of(cube)
    )
    for status in statuses:
        counts = {"done": status.done, "with gaps": status.gaps, "failed": status.failed, "missing": status.missing}
        counts["stale"] = sum(one.modality == status.modality for one in due)
        shards = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        facts = (share(status.valid_fraction), f"{status.items:,}", size(status.bytes_written), span(status.seconds))
        table.add_row(status.modality, shards, *facts)
    out.print(table)
    for name, reasons_due in counted(due).items():
        for why, count in reasons_due.items():
            out.print(f"{name}: {some(count, 'shard')} {why}", soft_wrap=True, markup=False)
    if wanted and not due:
        out.print("nothing is stale")
    for status in statuses:
        for offset, items in status.offsets.items():
            out.print(f"{status.modality}: offset {offset}: {some(items, 'item')}")
        if status.watch():
            out.print(f"{status.modality}: offset check: {status.watch()}", soft_wrap=True)
        for doubt in dict.fromkeys(status.doubts.values()):
            ids = [item for item, other in status.doubts.items() if other == doubt]
            named = f"{', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}"
            out.print(
                f"{status.modality}: the offset of {some(len(ids), 'item')} looks wrong ({named}): {doubt}",
                soft_wrap=True,
            )
        for reason, count in reasons(status.left_out).items():
            out.print(f"{status.modality}: {some(count, 'item')} left out: {reason}", soft_wrap=True)
        for line in status.failures():
            out.print(f"{status.modality}: {line}", soft_wrap=True, markup=False)
        for item, other in status.stand_ins.items():
            out.print(f"{status.modality}: item {item} was read as {other}", soft_wrap=True, markup=False)
        for line in status.unread():
            out.print(f"{status.modality}: {line}", soft_wrap=True, markup=False)


@app.command(rich_help_panel="Look")
def export(
    cube: Cube,
    modality: Annotated[str, typer.Argument(metavar="MODALITY", help="A sensor of the cube.", show_default=False)],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="NAME.tif, NAME.zarr or NAME.json.", show_default=False)
    ],
    step: Annotated[str | None, typer.Option("--step", help="A time step, such as 2021-03.")] = None,
) -> None:
    """One sensor for GDAL and QGIS: a step as GeoTIFF, a Zarr v2 copy, or a reference file that copies nothing.

    Example: `mdico export my-region/cube.zarr sentinel2 march.tif --step 2021-03`; `... s2.json` is references into the
    cube (GDAL 3.11 and later), `... s2.zarr` a copy of every step (GDAL 3.4 and later)
    """
    out.print(f"export: {mdico.export(cube, modality, target, step)}", soft_wrap=True)


@app.command(rich_help_panel="Look")
def tune_layout(
    recipe: RecipeFile,
    megabytes: Annotated[float, typer.Option("--megabytes", min=1, help="Values written per layout.")] = 96,
    as_json: AsJson = False,
) -> None:
    """Which chunks, shards and compression suit your disk: a few layouts are written, read, timed and removed.

    Example: `mdico tune-layout region.yml`
    """
    tuning = mdico.tune_layout(load_recipe(recipe), megabytes)
    if as_json:
        print_json(asdict(tuning))
        return
    columns = ("chunk", "shard", "codec", "level", "write MB/s", f"{tuning.patch} px windows/s", "pixel series/s")
    table = Table(*columns, "smaller by", "files", title=f"{tuning.modality}, {tuning.megabytes:.0f} MB each")
    for row in tuning.rows:
        rates = (f"{row.write:.0f}", f"{row.patches:.0f}", f"{row.series:.0f}", f"{row.ratio:.2f}", str(row.objects))
        mark = "bold" if row.layout == tuning.advice else None
        table.add_row(*(str(value) for value in asdict(row.layout).values()), *rates, style=mark)
    out.print(table)
    out.print(f"advice for this store and recipe:\n{tuning.lines()}", highlight=False)
