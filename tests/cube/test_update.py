"""A cube grows in time, over its region and by modalities: what stands is kept, and it equals a new build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from s3_server import KINDS
from toy_world import BOUNDS

from mdico_cube.cube import build as build_module
from mdico_cube.cube import change as change_module
from mdico_cube.cube import update as update_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.target import Location, exists, keys_under, open_store
from mdico_cube.cube.update import cover
from mdico_cube.errors import MdicoError
from mdico_cube.journey.cubes import _grid
from mdico_cube.recipe import Area, parse_recipe

LEFT, BOTTOM, RIGHT, TOP = BOUNDS


def grow(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Location, list[tuple[str, GeoBox, set[int]]]]:
    """Update the cube to the recipe; returns it and what was read: modality, block, time steps."""
    read: list[tuple[str, GeoBox, set[int]]] = []
    compute, recipe = build_module.compute_block, parse_recipe(facts)

    def noting(layer: Any, block: GeoBox, *rest: Any) -> Any:
        read.append((layer.modality.name, block, {scene.step for scene in layer.scenes}))
        return compute(layer, block, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "compute_block", noting)
        path = build_cube(recipe, update=True, plan=plan_build(recipe, geobox=_grid(recipe, True)))
    return path, read


def check_new(path: Location, facts: dict[str, Any], folder: Path) -> None:
    """The grown cube holds what a new build on the same grid holds."""
    grown = CubeReader(path)
    store = {name: value for name, value in facts["store"].items() if name != "target"}
    recipe = parse_recipe({**facts, "output": str(folder), "store": store})
    geobox = cover(grown.geobox, grid_for(recipe.area), grown.shard)
    new = CubeReader(build_cube(recipe, plan=plan_build(recipe, geobox=geobox)))
    whole = (slice(0, new.shape[0]), slice(0, new.shape[1]))
    assert grown.geobox == new.geobox
    for name in new.modalities:
        assert grown.steps(name) == new.steps(name)
        np.testing.assert_array_equal(grown.stored(name, *whole), new.stored(name, *whole))
        np.testing.assert_array_equal(Ledger(path, name).digests(), Ledger(new.path, name).digests())
    if isinstance(path, Path):
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
    with pytest.raises(MdicoError, match=r"has no dem yet\. Use --update to add it"):
        build_cube(parse_recipe(recipe_facts), resume=True)
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


@pytest.fixture
def small(recipe_facts: dict[str, Any]) -> Callable[[Location], tuple[dict[str, Any], dict[str, Any]]]:
    """A place -> recipes of a cube there: February of the middle, and three months of all of it."""

    def make(place: Location) -> tuple[dict[str, Any], dict[str, Any]]:
        facts = {**recipe_facts, "store": {**recipe_facts["store"], "target": str(place)}}
        facts["modalities"] = {"sentinel2": {"bands": ["B04"]}, "sentinel1": {"bands": ["vv"]}, "dem": {}}
        bounds = [LEFT + 320, BOTTOM, RIGHT, TOP - 320]
        area = {**facts["area"], "bounds": bounds}
        return {**facts, "area": area, "period": {"start": "2021-02-01", "end": "2021-02-28"}}, facts

    return make


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_cube_grows_wherever_it_lies(
    kind: str, small: Any, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, facts = small(place(kind))
    build_cube(parse_recipe(before))
    path, read = grow(facts, monkeypatch)
    assert path == place(kind) or "icechunk" in kind
    assert len([name for name, _, _ in read if name == "dem"]) == 6 - 2, "terrain that stands is not read again"
    check_new(path, facts, tmp_path / "new")


@pytest.mark.parametrize("after", range(4))
def test_an_update_in_a_bucket_that_is_stopped_is_finished_by_the_next(
    after: int, small: Any, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making the larger cube, marking it whole, removing the old one and copying."""
    where = place("s3")
    before, facts = small(where)
    build_cube(parse_recipe(before))
    steps = [
        (update_module, "write_key"), (update_module, "put_objects"), (change_module, "copy_keys"),
        (update_module, "delete_keys"),
    ]  # fmt: skip
    module, name = steps[after]
    real, calls = getattr(module, name), []

    def stopping(*args: Any) -> Any:
        calls.append(1)
        idle = (name == "copy_keys" and len(calls) == 1) or (name == "delete_keys" and not args[1])
        if not idle:  # idle: making the larger cube, clearing what is clear
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stopping)
        with pytest.raises(KeyboardInterrupt):
            grow(facts, monkeypatch)
    assert exists(where) is (name != "copy_keys")
    if name in ("put_objects", "copy_keys", "delete_keys"):  # the larger one is whole and goes to its place
        assert update_module.recover(where) is True
        assert CubeReader(where).steps("sentinel2") == ("2021-01-01", "2021-02-01", "2021-03-01")
    path, _ = grow(facts, monkeypatch)
    check_new(path, facts, tmp_path / "new")
    beside = str(where).replace("cube.zarr", ".cube.zarr.grown")
    assert keys_under(open_store(beside)) == []
    assert [key for key in keys_under(open_store(where)) if "mdico-" in key] == []


def test_a_plain_cube_grows(recipe_facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {**recipe_facts, "modalities": {"sentinel2": {"bands": ["B04"]}, "sentinel1": {"bands": ["vv"]}}}
    facts["store"] = {**recipe_facts["store"], "layout": "plain"}
    build_cube(parse_recipe({**facts, "area": {**facts["area"], "bounds": [LEFT + 320, BOTTOM, RIGHT, TOP - 320]}}))
    path, read = grow(facts, monkeypatch)
    assert len(read) == 2 * 4
    assert not CubeReader(path).sharded
    check_new(path, facts, tmp_path / "new")


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
