"""`mdico plan`: what a build would do, as a table or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

import mdico_cube as mdico
from mdico_cube.cli.door import AsJson, Items, RecipeFile, Workers, app, out, print_json, size
from mdico_cube.cube.items import reasons
from mdico_cube.errors import some
from mdico_cube.progress import span
from mdico_cube.recipe import load_recipe


@app.command(rich_help_panel="Stages")
def plan(
    recipe: RecipeFile,
    as_json: AsJson = False,
    items: Items = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Say what is new, changed or gone since the build.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Read a little of each modality to foresee the time.")
    ] = False,
    maps: Annotated[
        bool, typer.Option("--maps", help="What the maps will cost instead, from mapping a corner with each model.")
    ] = False,
    workers: Workers = None,
) -> None:
    """What a build would read and write, before any pixel is read; where a cube stands, what is stale and why.

    Example: `mdico plan region.yml --json`, or `mdico plan region.yml --refresh` to see what the catalog has now;
    `mdico plan region.yml --maps` once models are trained.
    """
    facts = load_recipe(recipe)
    if maps:
        _plan_maps(mdico.foresee_maps(facts, workers), as_json)
        return
    changes: list[Any] | None = None
    if refresh:
        planned, changes = mdico.refresh(facts)
    else:
        planned = mdico.plan(facts, items)
    summary = {**planned.summary(), "estimate": mdico.foresee(facts, planned, calibrate)}
    if changes is not None:
        summary["changes"] = [asdict(change) for change in changes]
    if as_json:
        print_json(summary)
    else:
        _print_plan(summary)


def _plan_maps(costs: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({name: {**asdict(cost), "seconds": cost.seconds} for name, cost in costs.items()})
        return
    titles = ("map", "shards", "done", "skipped", "lacking", "pixels", "pixels/s", "workers", "memory", "time")
    table = Table(*titles, title="maps")
    for name, cost in costs.items():
        rate, time = ("-", "-") if cost.rate is None else (f"{cost.rate:,.0f}", span(cost.seconds))
        counts = (f"{count:,}" for count in (cost.shards, cost.done, cost.skipped, cost.lacking, cost.pixels))
        table.add_row(name, *counts, rate, str(cost.workers), size(cost.memory), time)
    out.print(table)


def _print_plan(summary: Mapping[str, Any]) -> None:
    height, width = summary["shape"]
    out.print(
        f"grid: {width} x {height} pixels of {summary['resolution']:g} in {summary['crs']}, "
        f"{some(summary['shards'], 'shard')}, {some(summary['jobs'], 'job')}"
    )
    table = Table("modality", "bands", "steps", "scenes", "per step", "to read", "in the cube", title="plan")
    for name, facts in summary["modalities"].items():
        counts = facts["scenes_per_step"]
        table.add_row(
            name,
            str(len(facts["bands"])),
            str(len(facts["steps"])),
            str(facts["scenes"]),
            str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}",
            size(facts["bytes_read"]),
            size(facts["bytes_stored"]),
        )
    out.print(table)
    for name, steps in summary["gaps"].items():
        out.print(f"gap: {name} has no scene in {', '.join(steps)}")
    for name, facts in summary["modalities"].items():
        for offset, count in facts["offsets"].items():
            out.print(f"{name}: offset {offset}: {some(count, 'scene')}", soft_wrap=True)
        for reason, count in reasons(facts["left_out"]).items():
            out.print(f"{name}: {some(count, 'item')} left out: {reason}", soft_wrap=True)
    _print_costs(summary["estimate"])
    for change in summary.get("changes", ()):
        out.print(f"{change['modality']}: {change['item']} is {change['kind']}", soft_wrap=True)
    if "changes" in summary:
        out.print(f"since the last build: {len(summary['changes'])} changes")


def _print_costs(costs: Mapping[str, Any]) -> None:
    table = Table(
        "modality", "found", "scenes by month", "tasks", "reads", "requests", "memory per task", title="costs"
    )
    for name, cost in costs["modalities"].items():
        months = ", ".join(f"{month}: {count}" for month, count in cost["months"].items())
        numbers = (f"{cost[key]:,}" for key in ("tasks", "reads", "requests"))
        table.add_row(name, str(cost["found"]), months, *numbers, size(cost["memory"]))
    out.print(table)
    if costs["seconds"] is not None:
        workers = "1 worker" if costs["workers"] == 1 else f"{costs['workers']} workers"
        out.print(f"time: about {span(costs['seconds'])} with {workers} at the speed of a first read")
    for modality, reasons_of in (costs["due"] or {}).items():
        for why, count in reasons_of.items():
            out.print(f"{modality}: {some(count, 'shard')} {why}", soft_wrap=True, markup=False)
    if costs["due"] == {}:
        out.print("the cube stands: nothing is stale")
    for warning in costs["warnings"]:
        out.print(f"warning: {warning}", soft_wrap=True)
