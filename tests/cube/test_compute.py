"""Computing a block: what is read for it, and what is not."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from toy_world import SIZE

from mdico_cube.cube import driver
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.scenes import Notes
from mdico_cube.recipe import Reducer, parse_recipe

CLOUD = "S2_20210215"


@pytest.fixture
def layer(toy_catalog: Path, recipe_facts: dict[str, Any], tmp_path: Path) -> LayerPlan:
    """Sentinel-2, one scene of which sees nothing at all."""
    folder = tmp_path / "copy"
    shutil.copytree(toy_catalog.parent, folder)
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(str(toy_catalog.parent), str(folder)))
    with rasterio.open(folder / f"sentinel-2-l2a/{CLOUD}/SCL.tif", "r+") as file:
        file.write(np.full((1, *file.shape), 9, dtype="uint8"))
    found = plan_build(parse_recipe({**recipe_facts, "href": str(folder / "catalog.json")})).layer("sentinel2")
    assert isinstance(found, LayerPlan)
    return found


@pytest.mark.parametrize("reducer", ["median", "mean", "medoid", "first", "count"])
def test_a_scene_that_is_hidden_is_not_read_and_changes_nothing(
    layer: LayerPlan, recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, reducer: Reducer
) -> None:
    layer = replace(layer, reducer=reducer)
    block = plan_build(parse_recipe(recipe_facts)).geobox
    opened: Counter[str] = Counter()
    plain = driver.read_file

    def watched(path: str, *options: Any) -> Any:
        opened["/".join(Path(path).parts[-2:])] += 1
        return plain(path, *options)

    monkeypatch.setattr(driver, "read_file", watched)
    notes = Notes()
    got = compute_block(layer, block, notes=notes)
    assert opened[f"{CLOUD}/SCL.tif"] == 1
    assert not {name for name in opened if name.startswith(CLOUD)} - {f"{CLOUD}/SCL.tif"}
    assert set(opened.values()) == {1}, "no file is read twice"
    assert CLOUD in notes.rules, "its offset is decided all the same"
    without = replace(layer, scenes=tuple(scene for scene in layer.scenes if scene.item.id != CLOUD))
    np.testing.assert_array_equal(got, compute_block(without, block))
    assert got.shape[-2:] == SIZE
