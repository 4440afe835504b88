"""A cube grows in time, over its region and by modalities: what stands is kept, and it equals a new build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from toy_world import BOUNDS

from mdico_cube.cube import build as build_module
from mdico_cube.cube import update as update_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.update import cover
from mdico_cube.errors import MdicoError
from mdico_cube.journey.cubes import _grid
from mdico_cube.recipe import Area, parse_recipe

LEFT, BOTTOM, RIGHT, TOP = BOUNDS


def grow(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[tuple[str, GeoBox, set[int]]]]:
    """Update the cube to the recipe; returns it and what was read: modality, block, time steps."""
    read: list[tuple[str, GeoBox, set[int]]] = []
    compute, recipe = build_module.compute_block, parse_recipe(facts)

    def noting(layer: Any, block: GeoBox, *rest: Any) -> Any:
        read.append((layer.modality.name, block, {scene.step for scene in layer.scenes}))
        return compute(layer, block, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "compute_block", noting)
        path = build_cube(recipe, update=True, plan=plan_build(recipe, geobox=_grid(recipe, True)))
    assert isinstance(path, Path)
    return path, read


def check_new(path: Path, facts: dict[str, Any], folder: Path) -> None:
    """The grown cube holds what a new build on the same grid holds."""
    grown = CubeReader(path)
    recipe = parse_recipe({**facts, "output": str(folder)})
    geobox = cover(grown.geobox, grid_for(recipe.area), grown.shard)
    new = CubeReader(build_cube(recipe, plan=plan_build(recipe, geobox=geobox)))
    whole = (slice(0, new.shape[0]), slice(0, new.shape[1]))
    assert grown.geobox == new.geobox
    for name in new.modalities:
        assert grown.steps(name) == new.steps(name)
        np.testing.assert_array_equal(grown.stored(name, *whole), new.stored(name, *whole))
        np.testing.assert_array_equal(Ledger(path, name).digests(), Ledger(new.path, name).digests())
    assert sorted(file.name for file in path.parent.iterdir()) == ["cube.zarr", "items.parquet"]


def test_time_steps_are_appended_and_no_finished_one_is_read_again(
    recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    february = {**recipe_facts, "period": {"start": "2021-02-01", "end": "2021-02-28"}}
    build_cube(parse_recipe(february))
    path, read = grow(recipe_facts, monkeypatch)
    assert {name for name, _, _ in read} == {"sentinel1", "sentinel2"}, "terrain stands"
    assert all(steps == {0, 2} for _, _, steps in read), "January and March; February stands"
    check_new(path, recipe_facts, tmp_path / "new")


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ((LEFT, BOTTOM, RIGHT - 320, TOP), 4),
        ((LEFT, BOTTOM + 320, RIGHT, TOP), 3),
        ((LEFT + 320, BOTTOM, RIGHT, TOP), 4),
        ((LEFT + 320, BOTTOM, RIGHT - 320, TOP - 320), 1),
        ((LEFT + 320, BOTTOM + 40, RIGHT - 350, TOP), 0),
    ],
)
def test_the_region_grows_on_any_side(
    recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: Any, kept: int
) -> None:
    recipe_facts["modalities"] = {"sentinel2": {"bands": ["B04"]}, "sentinel1": {"bands": ["vv"]}}
    small = {**recipe_facts, "area": {**recipe_facts["area"], "bounds": list(bounds)}}
    build_cube(parse_recipe(small))
    path, read = grow(recipe_facts, monkeypatch)
    assert len(read) == 2 * (6 - kept), "whole shards that stood are not read"
    check_new(path, recipe_facts, tmp_path / "new")


def test_a_modality_is_added(recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {
        **recipe_facts,
        "modalities": {name: recipe_facts["modalities"][name] for name in ("sentinel1", "sentinel2")},
    }
    build_cube(parse_recipe(fewer))
    path, read = grow(recipe_facts, monkeypatch)
    assert [name for name, _, _ in read] == ["dem"] * 6
    check_new(path, recipe_facts, tmp_path / "new")


def test_an_update_stopped_at_any_moment_leaves_a_cube(
    recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before, between and after the two renames that put the larger cube in place."""
    february = {**recipe_facts, "period": {"start": "2021-02-01", "end": "2021-02-28"}}
    path = build_cube(parse_recipe(february))
    assert isinstance(path, Path)
    rename, left = Path.rename, [0]

    def stopping(self: Path, target: Path) -> Path:
        if ".grown" in self.name + Path(target).name or ".old" in self.name + Path(target).name:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return rename(self, target)

    for allowed in (0, 1, 2):
        left[0] = allowed
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", stopping)
            with pytest.raises(KeyboardInterrupt):
                grow(recipe_facts, monkeypatch)
        update_module.recover(path)
        assert CubeReader(path).steps("sentinel2") == ("2021-02-01",)
        CubeReader(path).check_complete(["sentinel1", "sentinel2", "dem"])
    path, read = grow(recipe_facts, monkeypatch)
    assert len(read) == 12
    check_new(path, recipe_facts, tmp_path / "new")


def test_growth_keeps_shards_aligned() -> None:
    stands = grid_for(Area(bounds=(1000, 1000, 2000, 2000), crs="EPSG:32631"))
    wanted = grid_for(Area(bounds=(900, 900, 2500, 2100), crs="EPSG:32631"))
    grown = cover(stands, wanted, 32)
    assert grown.affine.c == 1000 - 320
    assert grown.affine.f == 2000 + 320
    assert grown.boundingbox.right == 2500
    assert grown.boundingbox.bottom == 900
    assert cover(grown, wanted, 32) == grown
    assert cover(stands, grid_for(Area(bounds=(1200, 1200, 1300, 1300), crs="EPSG:32631")), 32) == stands
    for other in (
        Area(bounds=(1000, 1000, 2000, 2000), crs="EPSG:32632"),
        Area(bounds=(1000, 1000, 2000, 2000), crs="EPSG:32631", resolution=20),
    ):
        with pytest.raises(MdicoError, match="another CRS, size or place"):
            cover(stands, grid_for(other), 32)
