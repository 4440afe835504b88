"""Maps made in threads, in worker processes and by a scheduler hold the same bytes; a worker loads a bundle once."""

from __future__ import annotations

import pickle
import threading
import time

import numpy as np
import pytest
from test_write import files

from mdico_cube.errors import MdicoError
from mdico_cube.maps import crew
from mdico_cube.maps.crew import MakeShards, workers_of
from mdico_cube.maps.plan import MapPlan, plan_map
from mdico_cube.maps.write import open_map, write_map
from mdico_cube.recipe import ClusterSection


def test_every_crew_writes_the_same_bytes(run):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr", pixels=64)
    loop = write_map(
        run.cube, run.bundle(), run.out / "maps" / "loop.zarr", pixels=64, cluster=ClusterSection(kind="loop")
    )
    assert files(loop) == files(whole)
    section = ClusterSection(kind="local", workers=2)
    local = write_map(run.cube, run.bundle(), run.out / "maps" / "local.zarr", pixels=64, cluster=section)
    assert files(local) == files(whole)


def test_a_running_scheduler_makes_the_map_on_one_torch_thread_per_worker_thread(run, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        section = ClusterSection(kind="scheduler", address=cluster.scheduler_address)
        target = write_map(run.cube, run.bundle(), run.out / "maps" / "far.zarr", pixels=64, cluster=section)

        def facts() -> tuple[int, int]:
            import torch

            from mdico_cube.maps import forms

            return torch.get_num_threads(), len(forms._bundles)

        assert client.submit(facts).result() == (1, 1)
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr", pixels=64)
    assert files(target) == files(whole)


def test_a_task_carries_no_model(run):
    weights = (run.bundle() / "weights.safetensors").stat().st_size
    task = pickle.dumps(MakeShards(plan_map(run.cube, run.bundle()), run.out / "map.zarr"))
    assert len(task) < min(3000, weights)


def test_reading_runs_ahead_of_computing_by_one_block(run, monkeypatch):
    """While one shard is computed the next one is read, and no more than that."""
    gather, compute, lock = MapPlan.gather, MapPlan.compute, threading.Lock()
    state, most, together = {"read": 0, "done": 0}, [], []

    def reading(plan, y, x):
        found = gather(plan, y, x)
        with lock:
            state["read"] += 1
            most.append(state["read"] - state["done"])
        return found

    def computing(plan, found, known=None):
        before = state["read"]
        time.sleep(0.05)
        with lock:
            together.append(state["read"] > before)
            state["done"] += 1
        return compute(plan, found, known)

    monkeypatch.setattr(MapPlan, "gather", reading)
    monkeypatch.setattr(MapPlan, "compute", computing)
    write_map(run.cube, run.bundle(), run.out / "map.zarr", workers=1)
    assert sum(together) >= 8  # of 12 shards
    assert max(most) <= 3


def test_writing_that_fails_stops_the_map(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(crew, "write_shard", full)
    with pytest.raises(MdicoError, match="No space left on device"):
        write_map(run.cube, run.bundle(), run.out / "map.zarr", workers=2)


def test_no_more_workers_than_shards_or_processors(monkeypatch):
    monkeypatch.setattr(crew, "processors", lambda: 4)
    assert workers_of(ClusterSection(), 100) == 4
    assert workers_of(ClusterSection(workers=3), 100) == 3
    assert workers_of(ClusterSection(workers=9), 100) == 4
    assert workers_of(ClusterSection(), 2) == 2
    assert workers_of(ClusterSection(kind="loop"), 100) == 1
    assert workers_of(ClusterSection(), 0) == 1


def test_what_cannot_compute_is_said_before_anything_is_written(run):
    target = run.out / "maps" / "none.zarr"
    for options, said in (
        ({"backend": "compile", "precision": "int8"}, "compile computes in fp32, bf16, fp16, not in int8"),
        ({"precision": "int8"}, "not calibrated"),
        ({"backend": "nothing"}, "maps.backend"),
    ):
        with pytest.raises(MdicoError, match=said):
            write_map(run.cube, run.bundle(), target, **options)
        assert not target.exists()


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_map_by_another_backend_is_the_same_map(run, backend):
    plain = open_map(write_map(run.cube, run.bundle(), run.out / "maps" / "plain.zarr"))
    target = write_map(run.cube, run.bundle(), run.out / "maps" / "other.zarr", backend=backend, workers=2)
    other = open_map(target)
    assert (plain["class"].values == other["class"].values).mean() > 0.999
    assert len(np.unique(plain["class"].values)) > 2
    assert np.abs(plain["confidence"].values.astype(int) - other["confidence"].values).max() <= 1
    with pytest.raises(MdicoError, match="begun with another backend than torch"):
        write_map(run.cube, run.bundle(), target, resume=True)
