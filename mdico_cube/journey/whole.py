"""A recipe in, every stage of it in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mdico_cube.cube.build import check_free
from mdico_cube.cube.change import writing
from mdico_cube.cube.target import cube_location
from mdico_cube.journey.cubes import build
from mdico_cube.journey.mapping import evaluate, predict, report
from mdico_cube.journey.timings import read_timings, timings_path
from mdico_cube.journey.training import train
from mdico_cube.journey.windows import sample
from mdico_cube.maps.evaluate import AnyScores
from mdico_cube.recipe import Recipe

Stage = tuple[str, Callable[[], object]]


def run(
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    items: Path | str | None = None,
    refresh: bool = False,
) -> AnyScores:
    """Every stage in order. With resume, finished work is skipped and named; `items` and `refresh` are as in `build`.

    Raises:
        MdicoError: what any stage raises; what was finished before it is kept.
    """
    recipe.check_whole()
    resume = resume or refresh
    if not (overwrite or resume):
        check_free(cube_location(recipe), overwrite, resume)
        for name in ("samples.zarr", "bundles", "maps", "scores.json", "report.html"):
            check_free(recipe.output / name, overwrite, resume)
    stages: Sequence[Stage] = (
        ("build", lambda: build(recipe, overwrite, resume, items=items, refresh=refresh)),
        ("sample", lambda: sample(recipe, overwrite, resume)),
        ("train", lambda: train(recipe, overwrite, resume)),
        ("predict", lambda: predict(recipe, overwrite, resume)),
        ("evaluate", lambda: evaluate(recipe, overwrite, resume)),
        ("report", lambda: report(recipe, overwrite, resume)),
    )
    seconds: dict[str, float] = {} if overwrite else read_timings(recipe)
    results: dict[str, object] = {}
    for name, stage in stages:
        start = time.monotonic()
        results[name] = stage()
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 2)
        with writing(recipe.output):
            timings_path(recipe).write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    scores = results["evaluate"]
    assert isinstance(scores, AnyScores)
    return scores
