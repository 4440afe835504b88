"""One function, many jobs: the same results in a loop, in threads and on Dask, never many jobs in hand."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
from distributed import LocalCluster
from toy_world import SIZE

from mdico_cube.cube import clusters, dask_crew
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.clusters import dask_client
from mdico_cube.cube.dask_crew import DaskCrew
from mdico_cube.cube.execute import LoopCrew, ThreadCrew, cluster_for, crew_for, execute, threads_each
from mdico_cube.cube.ledger import DONE, Ledger
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console
from mdico_cube.recipe import ClusterSection, Recipe, parse_recipe

WHOLE = (slice(0, SIZE[0]), slice(0, SIZE[1]))
TICK = "distributed.admin.tick.interval"


def square(job: int) -> int:
    if job == 666:
        raise MdicoError("job 666 fails.")
    return job * job


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(params=["loop", "threads", "dask"])
def section(request: pytest.FixtureRequest) -> ClusterSection:
    if request.param == "dask":
        address = request.getfixturevalue("cluster").scheduler_address
        return ClusterSection(kind="scheduler", address=address)
    return ClusterSection(kind=request.param, workers=2, threads=1)


def test_every_job_is_done_once(section: ClusterSection) -> None:
    with crew_for(section) as crew:
        assert sorted(execute(crew, square, range(60))) == [(job, job * job) for job in range(60)]


def test_few_jobs_are_in_hand_at_once(section: ClusterSection) -> None:
    taken, most = 0, 0

    def jobs() -> Iterator[int]:
        nonlocal taken
        for job in range(200):
            taken += 1
            yield job

    with crew_for(section) as crew:
        for done, _ in enumerate(execute(crew, square, jobs()), start=1):
            most = max(most, taken - done)
    assert taken == 200
    assert most <= 4, "two workers with one thread each, and one job waiting for each"


def test_a_fault_ends_it_and_drops_the_rest(section: ClusterSection) -> None:
    jobs = iter([1, 2, 666, *range(1000)])
    with crew_for(section) as crew, pytest.raises(MdicoError, match="job 666 fails"):
        list(execute(crew, square, jobs))
    assert next(jobs) < 100


def test_jobs_that_are_not_to_be_had_yet_are_asked_for_again(section: ClusterSection) -> None:
    with crew_for(section) as crew:
        assert sorted(execute(crew, square, iter([1, None, 2, None, None, 3]))) == [(1, 1), (2, 4), (3, 9)]


def test_threads_really_work_at_once() -> None:
    gate = threading.Barrier(2, timeout=10)
    with crew_for(ClusterSection(kind="threads", workers=2)) as crew:
        assert len(list(execute(crew, lambda job: gate.wait(), range(2)))) == 2


def test_the_kind_is_settled_by_what_is_given() -> None:
    assert ClusterSection().settled == "loop"
    assert ClusterSection(workers=2).settled == "local"
    assert ClusterSection(adapt=(0, 4)).settled == "local"
    assert ClusterSection(address="tcp://there:8786").settled == "scheduler"
    assert cluster_for(ClusterSection(kind="slurm", adapt=(1, 9)), workers=3).workers == 3
    assert cluster_for(ClusterSection(kind="slurm"), scheduler="tcp://there:1").settled == "scheduler"
    assert threads_each(ClusterSection(threads=7)) == 7
    assert threads_each(ClusterSection(kind="threads", workers=3, threads=4)) == 12, "of the whole process"
    assert threads_each(ClusterSection(kind="threads", workers=3, threads=1)) == 1
    with crew_for(ClusterSection(threads=1)) as crew:
        assert isinstance(crew, LoopCrew)
    with crew_for(ClusterSection(threads=3)) as crew:
        assert isinstance(crew, ThreadCrew)
        assert [crew.room(flying) for flying in range(4)] == [True, True, True, False], "two at work, one at hand"
    with crew_for(ClusterSection(kind="threads")) as crew:
        assert isinstance(crew, ThreadCrew)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"kind": "scheduler"}, "needs the scheduler's address"),
        ({"adapt": [4, 2]}, r"adapt is \[fewest, most\]"),
        ({"kind": "threads", "adapt": [1, 2]}, "cannot adapt"),
        ({"kind": "cloud"}, "cluster.kind"),
    ],
)
def test_a_cluster_section_that_cannot_be(recipe_facts: dict[str, Any], facts: dict[str, Any], said: str) -> None:
    with pytest.raises(MdicoError, match=said):
        parse_recipe({**recipe_facts, "cluster": facts})


def test_a_scheduler_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT", "1s")
    with (
        pytest.raises(MdicoError, match=r"cannot be reached.*Check that it runs"),
        crew_for(ClusterSection(address="tcp://127.0.0.1:9", kind="scheduler")),
    ):
        pass


def test_without_the_scheduler_nothing_is_written(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT", "1s")
    with pytest.raises(MdicoError, match=r"cannot be reached.*Check that it runs"):
        build_cube(recipe, cluster=ClusterSection(address="tcp://127.0.0.1:9", kind="scheduler"))
    assert not recipe.output.exists()


@pytest.mark.parametrize("address", ["nonsense", "tcp://10.0.0.1", "10.0.0.1:"])
def test_an_address_without_a_port_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_connected", lambda *_: pytest.fail("no client is made"))
    with (
        pytest.raises(MdicoError, match=f"cluster {address}: has no port. Write its address as tcp://"),
        crew_for(ClusterSection(address=address, kind="scheduler")),
    ):
        pass


def test_a_missing_package_is_one_sentence() -> None:
    with pytest.raises(MdicoError, match="pip install dask-jobqueue"), dask_client(ClusterSection(kind="slurm")):
        pass


def test_a_batch_system_gets_its_options_as_they_are(monkeypatch: pytest.MonkeyPatch, cluster: LocalCluster) -> None:
    """A stand-in of dask-jobqueue: the workers that are there already, and notes of what it was told."""
    given: dict[str, Any] = {}

    class SLURMCluster:
        def __init__(self, **options: Any) -> None:
            given["options"] = options

        def scale(self, workers: int) -> None:
            given["workers"] = workers

        def close(self) -> None:
            given["closed"] = True

        def __getattr__(self, name: str) -> Any:
            return getattr(cluster, name)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=SLURMCluster))
    options = {"queue": "normal", "cores": 4, "memory": "16GB"}
    with crew_for(ClusterSection(kind="slurm", workers=7, options=options)) as crew:
        assert isinstance(crew, DaskCrew)
        assert [result for _, result in execute(crew, square, [3])] == [9]
        assert given == {"options": options, "workers": 7}
    assert given["closed"]


def test_a_batch_system_that_is_not_here_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class SLURMCluster:
        job_cls = SimpleNamespace(submit_command="sbatch-of-nowhere --parsable")

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=SLURMCluster))
    with pytest.raises(MdicoError, match=r"sbatch-of-nowhere.* is not found here"):
        dask_client(ClusterSection(kind="slurm")).__enter__()


def test_a_cluster_whose_workers_do_not_come_is_no_riddle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once, then more and more rarely, and no more once a worker is there."""
    monkeypatch.setattr(dask_crew, "_SILENCE", 0.0)
    monkeypatch.setattr(console, "quiet", False)
    clock = iter(range(1000))
    monkeypatch.setattr(dask_crew, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    workers: dict[str, Any] = {}
    crew = DaskCrew(SimpleNamespace(status="running", scheduler_info=lambda n_workers: {"workers": workers}))
    monkeypatch.setattr(crew, "_patience", 4.0)
    for _ in range(40):
        assert crew.collect(0) is None
    said = capsys.readouterr().err
    assert said.count("the cluster has had no worker for") == 3, "after 4, 16 and 64 seconds"
    assert "Ctrl-C loses nothing: go on with --resume" in said
    workers["tcp://there"] = {"nthreads": 1}
    for _ in range(400):
        crew.collect(0)
    assert capsys.readouterr().err == ""


def environment(job: str) -> str | None:
    return os.environ.get(job)


def test_an_adaptive_cluster_starts_workers_for_the_work_with_one_core_each() -> None:
    with crew_for(ClusterSection(kind="local", adapt=(0, 1))) as crew:
        found = dict(execute(crew, environment, ["OMP_NUM_THREADS", "GDAL_CACHEMAX", "MALLOC_TRIM_THRESHOLD_"]))
    assert found == {"OMP_NUM_THREADS": "1", "GDAL_CACHEMAX": "256", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def setting(job: str) -> Any:
    return dask.config.get(job)


@pytest.mark.parametrize("section", [{"adapt": (0, 1)}, {"workers": 1}], ids=["adaptive", "fixed"])
def test_the_workers_of_a_local_cluster_seldom_look_at_themselves(section: dict[str, Any]) -> None:
    """And what else runs on Dask in this process is left as it was."""
    before = setting(TICK)
    with crew_for(ClusterSection(kind="local", **section)) as crew:
        assert dict(execute(crew, setting, [TICK])) == {TICK: "500ms"}
    assert setting(TICK) == before != "500ms"


def test_the_same_cube_everywhere(recipe: Recipe, standing: Path, section: ClusterSection) -> None:
    first, second = standing, build_cube(recipe, cluster=section)
    one, other = open_reader(first), open_reader(second)
    for name in one.modalities:
        np.testing.assert_array_equal(one.stored(name, *WHOLE), other.stored(name, *WHOLE))
        assert (Ledger(second, name).states() == DONE).all()
        np.testing.assert_array_equal(Ledger(first, name).digests(), Ledger(second, name).digests())
    left = sorted(path.name for path in recipe.output.iterdir())
    assert left == ["cube.zarr", "items.parquet"], "nothing else is left beside the cube"


def test_a_cluster_is_not_remembered_in_the_cube(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["cluster"] = {"options": {"auth": "hush-hush"}}
    path = build_cube(parse_recipe(recipe_facts))
    assert not any(b"hush-hush" in file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_a_plan_read_back_is_the_same_plan(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    again = load_plan(dump_plan(plan))
    assert again.geobox == plan.geobox
    for layer, copy in zip(plan.layers, again.layers, strict=True):
        assert copy.digest(plan.geobox) == layer.digest(plan.geobox)
        for field in fields(layer):
            if field.name != "scenes":
                assert repr(getattr(copy, field.name)) == repr(getattr(layer, field.name)), field.name
        for scene, twin in zip(layer.scenes, copy.scenes, strict=True):
            assert (scene.step, scene.overpass, scene.footprint) == (twin.step, twin.overpass, twin.footprint)
            assert scene.item.properties == twin.item.properties
            assert twin.item.links == []


def test_a_plan_with_something_unknown_is_refused(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    strange = replace(plan.layers[0], access=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plan holds one object"):
        dump_plan(replace(plan, layers=(strange,)))
    for name in ("os:system", "mdico_cube.journey.cubes:build", "mdico_cube.cube.planning:plan_build"):
        with pytest.raises(ValueError, match="which no plan holds"):
            load_plan(json.dumps({"@": name, "=": {}}).encode())


def test_scenes_of_a_block_are_found_fast(recipe: Recipe) -> None:
    """The tree finds what a look at every footprint finds; thousands of scenes take no second."""
    plan = plan_build(recipe)
    layer = plan.layers[0]
    apart = [
        replace(scene, footprint=plan.geobox[y : y + 9, x : x + 9].extent)
        for scene in layer.scenes
        for y in range(0, 60, 4)
        for x in range(0, 90, 4)
    ]
    many = replace(layer, scenes=tuple(apart))
    start = time.process_time()
    for shard in plan.shards():
        block = plan.block(shard)
        assert many.scenes_of(block) == tuple(s for s in many.scenes if s.footprint.intersects(block.extent))
    many_blocks = [plan.geobox[y : y + 8, x : x + 8] for y in range(0, 56, 2) for x in range(0, 88, 2)]
    start = time.process_time()
    for block in many_blocks:
        many.scenes_of(block)
    assert time.process_time() - start < 10, f"{len(apart)} scenes, {len(many_blocks)} blocks"
