"""A folder in, the embedded region and its recipe out."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mdico_cube.cube.build import check_free
from mdico_cube.cube.catalog import catalog_folder
from mdico_cube.cube.change import writing
from mdico_cube.demo.region import DemoRegion, write_region
from mdico_cube.recipe import Recipe, load_recipe


def prepare_demo(
    folder: Path | str, region: DemoRegion | None = None, overwrite: bool = False, resume: bool = False
) -> Recipe:
    """Write the embedded region and its recipe into a folder: files as a catalog would hold them.

    Raises:
        MdicoError: the folder holds a region already and neither overwrite nor resume was asked for.
    """
    folder = Path(folder)
    recipe_path = folder / "demo.yml"
    check_free(recipe_path, overwrite, resume)
    if overwrite or not recipe_path.exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_region(folder / "region", region or DemoRegion())
            template = (pipeline_folder() / "demo.yml").read_text(encoding="utf-8")
            recipe_path.write_text(_fitted(template, folder / "region"), encoding="utf-8")
    return load_recipe(recipe_path)


def _fitted(template: str, region: Path) -> str:
    """The demo's recipe with the bounds and the year of a region."""
    card = json.loads((region / "region.json").read_text(encoding="utf-8"))
    bounds = ", ".join(f"{edge:.0f}" for edge in card["bounds"])
    text = re.sub(r"bounds: \[.*?\]", f"bounds: [{bounds}]", template)
    return re.sub(r"\b\d{4}(-\d\d-\d\d)", rf"{card['year']:04d}\1", text)


def pipeline_folder() -> Path:
    """The folder of the recipes that come with the project."""
    return catalog_folder().parent / "pipelines"
