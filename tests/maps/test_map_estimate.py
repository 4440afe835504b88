"""What a map will cost is counted from the ledgers and the mask, and foreseen from a corner that is really mapped."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import box

from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.maps.estimate import map_cost
from mdico_cube.maps.gathered import read_input
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.plan import MapPlan, plan_map
from mdico_cube.maps.write import write_map
from mdico_cube.recipe import ClusterSection


def test_counts_follow_the_ledgers(run):
    plan, target = plan_map(run.cube, run.bundle()), run.out / "map.zarr"
    fresh = map_cost(plan, target, ClusterSection(workers=1))
    assert (fresh.shards, fresh.done, fresh.skipped, fresh.lacking) == (12, 0, 0, 0)
    assert fresh.pixels == run.shape[0] * run.shape[1]
    assert fresh.seconds == pytest.approx(fresh.pixels / fresh.rate)
    write_map(run.cube, run.bundle(), target)
    Ledger(target, LAYER, "r+").forget(0, 0)
    ledger = Ledger(run.cube, "sentinel2", "r+")
    ledger.record(1, 1, Entry(DONE, digest="new", valid_fraction=0.0, version="1"))
    ledger.forget(2, 2)
    cost = map_cost(plan, target)
    assert (cost.done, cost.skipped, cost.lacking) == (9, 1, 1)
    assert cost.pixels == run.shard**2
    assert not (run.out / "other.zarr").exists()


def test_nothing_left_is_foreseen_without_a_model_run(run, monkeypatch):
    target = write_map(run.cube, run.bundle(), run.out / "map.zarr")
    monkeypatch.setattr(MapPlan, "predict", None)
    cost = map_cost(plan_map(run.cube, run.bundle()), target)
    assert (cost.done, cost.pixels, cost.rate, cost.seconds) == (12, 0, None, None)


def test_a_mask_and_workers_count(run):
    geobox = run.reader.geobox
    left, _, _, top = geobox.boundingbox
    mask = run.out / "mask.geojson"
    shape = box(left, top - 160, left + 320, top)  # the first two shards of the first row
    gpd.GeoDataFrame(geometry=[shape], crs=str(geobox.crs)).to_crs(4326).to_file(mask)
    plan = plan_map(run.cube, run.bundle(), mask=mask)
    cost = map_cost(plan, run.out / "map.zarr", ClusterSection(kind="local", workers=3))
    inside = plan.mask.inside(geobox, slice(0, run.shape[0]), slice(0, run.shape[1]))
    assert cost.pixels == int(inside.sum()) > 400
    assert cost.skipped >= 6
    assert cost.workers == 3
    assert cost.seconds == pytest.approx(cost.pixels / cost.rate / 3)
    assert replace(cost, workers=6).seconds == pytest.approx(cost.seconds / 2)


def test_memory_holds_the_blocks_in_hand(run):
    plan = plan_map(run.cube, run.bundle())
    one, two = (map_cost(plan, run.out / "m.zarr", ClusterSection(kind="local", workers=n)) for n in (1, 2))
    block = read_input(run.reader, "sentinel2", slice(0, 16), slice(0, 16))
    held = block.values.nbytes + block.valid.nbytes
    assert held <= two.memory - one.memory < 3 * held
    assert json.dumps([one.memory, one.rate, one.seconds])
    assert np.isfinite(one.rate)
