"""What a plan foretells: costs that hold, warnings where the machine will not do, and why shards are stale."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mdico_cube.cube import estimate as estimate_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.estimate import costs, estimate
from mdico_cube.cube.ledger import DONE, FAILED, GAPS, Entry, FailedRead, Ledger, Origin
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.stale import counted, due_shards, why_stale
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ClusterSection, Recipe, parse_recipe


def test_costs_count_scenes_shards_and_requests(recipe: Recipe) -> None:
    found = costs(plan_build(recipe))
    s2 = found["sentinel2"]
    assert s2.found == 9
    assert s2.months == {"2021-01": 3, "2021-02": 3, "2021-03": 3}
    assert (s2.tasks, s2.reads) == (6, 54), "nine scenes cover all six shards"
    assert s2.requests == 54 * 3 * (2 + 1 + 1), "two bands and the classification; head, directory, rows of blocks"
    assert found["dem"].months == {"2021-01": 1}
    assert s2.seconds is None


def test_a_task_takes_no_more_memory_than_foretold(recipe_facts: dict[str, Any]) -> None:
    """One shard over the whole area; numpy's memory is traced."""
    recipe_facts["store"] = {"chunk": 64, "shard": 1024}
    recipe_facts["area"]["resolution"] = 1.0
    plan = plan_build(parse_recipe(recipe_facts))
    for name, cost in costs(plan).items():
        layer = plan.layer(name)
        assert isinstance(layer, LayerPlan)
        tracemalloc.start()
        compute_block(layer, plan.geobox)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * cost.memory, name
        assert cost.memory < 6 * peak, name


def test_a_calibration_read_foretells_time(recipe: Recipe) -> None:
    found = estimate(plan_build(recipe), recipe, calibrate=True)
    assert 0 < found["seconds"] < 600
    assert found["seconds"] == pytest.approx(sum(cost["seconds"] for cost in found["modalities"].values()), abs=0.1)
    twice = recipe.model_copy(update={"cluster": ClusterSection(workers=4)})
    assert estimate(plan_build(recipe), twice)["workers"] == 4


def test_a_calibration_read_that_fails_leaves_the_plan(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(layer: LayerPlan, *rest: Any) -> None:
        if layer.modality.name == "sentinel2":
            raise MdicoError("S2_1: cannot be read.")
        compute_block(layer, *rest)

    monkeypatch.setattr(estimate_module, "compute_block", failing)
    found = estimate(plan_build(recipe), recipe, calibrate=True)
    assert found["warnings"] == ["time: sentinel2 is not in it: S2_1: cannot be read."]
    assert found["modalities"]["sentinel2"]["seconds"] is None
    assert found["seconds"] > 0, "of the others"


def test_a_machine_that_will_not_do_is_warned_of(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_build(recipe)
    assert estimate(plan, recipe)["warnings"] == []
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    recipe = recipe.model_copy(update={"cluster": ClusterSection(threads=2)})
    memory, disk = estimate(plan, recipe)["warnings"]
    assert memory.startswith("memory: 2 tasks of")
    assert "Use fewer workers or a smaller store.shard" in memory
    assert disk.startswith("disk: the cube takes up to")
    (recipe.output / "cube.zarr").mkdir(parents=True)
    with (recipe.output / "cube.zarr" / "shard").open("wb") as standing:
        standing.truncate(1 << 34)
    assert len(estimate(plan, recipe)["warnings"]) == 1, "what stands is not written again"


def test_every_stale_shard_is_named_with_its_reason(recipe: Recipe) -> None:
    path = build_cube(recipe)
    plan = plan_build(recipe)
    assert due_shards(path, plan) == []
    ledger = Ledger(path, "dem", mode="r+")
    ledger.forget(0, 0)
    ledger.record(0, 1, replace(ledger.read(0, 1), state=FAILED, error="no such file"))
    gap = FailedRead("DEM", "data", (0, 0, 1, 1), "gone")
    ledger.record(0, 2, replace(ledger.read(0, 2), state=GAPS, failed_reads=(gap,)))
    s1, s2, dem = plan.layers
    fewer = replace(s2, scenes=tuple(s for s in s2.scenes if s.item.id != "S2_20210225"))
    due = due_shards(path, replace(plan, layers=(replace(s1, reducer="median"), fewer, dem)))
    assert counted(due) == {
        "sentinel1": {'stale: reducer was "mean", is "median"': 6},
        "sentinel2": {"stale: scenes of 2021-02-01: -1 (S2_20210225 ...)": 6},
        "dem": {"missing: not built yet": 1, "failed: no such file": 1, "with gaps: 1 read failed for good": 1},
    }
    assert {(one.row, one.column) for one in due if one.modality == "dem"} == {(0, 0), (0, 1), (0, 2)}


def test_a_modality_the_cube_lacks_is_to_be_built(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    path = build_cube(recipe, plan=replace(plan, layers=plan.layers[:1]))
    assert {one.modality: one.why for one in due_shards(path, plan)} == {
        "sentinel2": "not built yet",
        "dem": "not built yet",
    }


def test_a_cube_on_another_area_is_told_how_to_grow(recipe_facts: dict[str, Any]) -> None:
    path = build_cube(parse_recipe(recipe_facts))
    larger = {**recipe_facts, "area": {**recipe_facts["area"], "bounds": [700000, 5599680, 700960, 5600640]}}
    due = due_shards(path, plan_build(parse_recipe(larger)))
    assert {(one.kind, one.why) for one in due} == {
        ("missing", "the cube stands on another area; --update lets it grow")
    }


def test_why_a_shard_without_time_is_stale_names_no_step() -> None:
    before = Entry(DONE, settings={}, grid="g", steps={"": "old"}, items=("a",))
    assert why_stale(before, Origin({}, "g", {"": "new"}), ["a"]) == "scenes: other offsets or addresses"
    before = Entry(DONE, settings={}, grid="g", steps={"2021-01-01": "old"}, items=("a",))
    said = why_stale(before, Origin({}, "g", {"2021-01-01": "new"}), ["a"])
    assert said == "scenes of 2021-01-01: other offsets or addresses"
