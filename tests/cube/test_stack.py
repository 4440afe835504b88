"""The second engine against the first: the same pixels on aligned grids, the same faults named."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from mdico_cube.cube import stack
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.lazy import lazy_scenes
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe


def layers(facts: dict[str, Any], engine: str) -> tuple[dict[str, LayerPlan], GeoBox]:
    plan = plan_build(parse_recipe({**facts, "read": {"engine": engine}}))
    return {layer.modality.name: layer for layer in plan.layers}, plan.geobox


@pytest.mark.parametrize("modality", ["sentinel2", "sentinel1"])
def test_both_engines_build_the_same_pixels_on_aligned_grids(recipe_facts: dict[str, Any], modality: str) -> None:
    first, grid = layers(recipe_facts, "odc-stac")
    second, _ = layers(recipe_facts, "stackstac")
    assert first[modality].digest(grid) != second[modality].digest(grid)
    for block in (grid, grid[3:40, 50:96]):
        np.testing.assert_array_equal(compute_block(second[modality], block, 2), compute_block(first[modality], block))


def test_grids_beyond_the_scenes_are_filled_the_same(recipe_facts: dict[str, Any]) -> None:
    first, grid = layers(recipe_facts, "odc-stac")
    second, _ = layers(recipe_facts, "stackstac")
    wide = grid.pad(20)
    one = compute_block(first["sentinel2"], wide)
    assert (one == 65535).any()
    np.testing.assert_array_equal(compute_block(second["sentinel2"], wide), one)


def test_lazy_scenes_of_both_engines(recipe_facts: dict[str, Any]) -> None:
    found = []
    for engine in ("odc-stac", "stackstac"):
        planned, grid = layers(recipe_facts, engine)
        lazy = lazy_scenes(planned["sentinel2"], grid, 32)
        assert lazy["B04"].chunks is not None
        found.append(lazy.compute())
    one, other = found
    assert list(one.item.values) == list(other.item.values)
    for name in ("B04", "B08", "SCL"):
        np.testing.assert_array_equal(one[name].values, other[name].values)
    np.testing.assert_array_equal(one.x.values, other.x.values)
    np.testing.assert_array_equal(one.time.values, other.time.values)


def test_a_recipe_builds_with_the_second_engine(recipe_facts: dict[str, Any]) -> None:
    recipe = parse_recipe({**recipe_facts, "read": {"engine": "stackstac"}, "store": {"chunk": 64, "shard": 128}})
    assert build_cube(recipe)


def test_a_broken_file_is_named_by_the_second_engine_too(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    planned, grid = layers(recipe_facts, "stackstac")
    scene = planned["sentinel2"].scenes[4]
    copy = tmp_path / "broken.tif"
    copy.write_bytes(Path(scene.item.assets["B08"].href).read_bytes()[:3000])
    scene.item.assets["B08"].href = str(copy)
    with pytest.raises(MdicoError, match=f"item {scene.item.id}, asset B08 cannot be read"):
        compute_block(planned["sentinel2"], grid)


def test_what_is_no_raster_file_is_not_opened(recipe_facts: dict[str, Any], tmp_path: Path) -> None:
    planned, grid = layers(recipe_facts, "stackstac")
    scene = planned["sentinel2"].scenes[0]
    trick = tmp_path / "trick.tif"
    trick.write_text(
        f"<VRTDataset rasterXSize='4' rasterYSize='4'><VRTRasterBand dataType='Byte' band='1'><SimpleSource>"
        f"<SourceFilename>{scene.item.assets['SCL'].href}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    scene.item.assets["B08"].href = str(trick)
    with pytest.raises(MdicoError, match="asset B08 cannot be read"):
        compute_block(planned["sentinel2"], grid)


def test_a_missing_package_is_named(recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name.startswith("stackstac"):
            raise ImportError(name)
        return importlib.import_module(name)

    planned, grid = layers(recipe_facts, "stackstac")
    monkeypatch.setattr(stack, "import_module", absent)
    with pytest.raises(MdicoError, match="pip install stackstac"):
        compute_block(planned["sentinel2"], grid)


def test_nothing_imports_stackstac_by_itself() -> None:
    code = "import sys, mdico_cube, mdico_cube.cube.build, mdico_cube.cli; sys.exit('stackstac' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
