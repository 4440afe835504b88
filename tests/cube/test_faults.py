"""Whatever stops a build, resume gives the cube of an undisturbed one, and reads no finished shard again."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr.storage._local as local_store
from distributed import LocalCluster
from odc.geo.geobox import GeoBox
from toy_world import SIZE

from mdico_cube.cube import build as build_module
from mdico_cube.cube import claims as claims_module
from mdico_cube.cube import dask_crew
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.ledger import DONE, FAILED, Ledger
from mdico_cube.cube.plan import LayerPlan
from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console
from mdico_cube.recipe import ClusterSection, Recipe, parse_recipe

WHOLE = (slice(0, SIZE[0]), slice(0, SIZE[1]))
JOBS = 12
SEEDS = (0, 1, 2)
ONE_AT_ONCE = (0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:]))
"""The same seeds where one takes seconds: the first in every run of the tests."""
Place = tuple[str, int, int]


@pytest.fixture
def facts(recipe_facts: dict[str, Any]) -> dict[str, Any]:
    """A recipe of twelve jobs."""
    modalities = {"sentinel2": {"bands": ["B04"]}, "sentinel1": {"bands": ["vv"]}}
    return {**recipe_facts, "modalities": modalities}


@pytest.fixture
def path(facts: dict[str, Any]) -> Path:
    return Path(facts["output"]) / "cube.zarr"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("undisturbed")}


@pytest.fixture
def real(facts: dict[str, Any], undisturbed: dict[str, Path]) -> Path:
    """The cube of a build that nothing stopped."""
    return undisturbed.setdefault("real", _undisturbed(facts, undisturbed["folder"] / "real"))


@pytest.fixture
def whole(facts: dict[str, Any], undisturbed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with pixels that are quickly computed instead of read; so are those of the test."""
    monkeypatch.setattr(build_module, "compute_block", quick_block)
    return undisturbed.setdefault("quick", _undisturbed(facts, undisturbed["folder"] / "quick"))


def _undisturbed(facts: dict[str, Any], folder: Path) -> Path:
    return folder / "cube.zarr" if folder.exists() else build_cube(parse_recipe({**facts, "output": str(folder)}))


def quick_block(layer: LayerPlan, block: GeoBox, threads: int = 1, notes: Any = None) -> Any:
    """Pixels (T, C, h, w) made of the scenes' names and of where the block lies."""
    shape = (len(layer.steps), len(layer.modality.bands), *block.shape)
    out = np.full(shape, layer.modality.storage.missing, dtype=layer.modality.storage.dtype)
    for scene in layer.scenes_of(block):
        seed = zlib.crc32(f"{scene.item.id} {_place(block)}".encode())
        out[scene.step] = np.random.default_rng(seed).integers(1, 9999, shape[1:])
    return out


def _nothing(layer: LayerPlan, pixels: Any) -> Any:
    return np.full_like(pixels, layer.modality.storage.missing)


def finished(path: Path) -> set[Place]:
    if not path.exists():
        return set()
    states = {name: Ledger(path, name).states() for name in ("sentinel1", "sentinel2")}
    return {(name, int(r), int(c)) for name, state in states.items() for r, c in np.argwhere(state == DONE)}


def check_same(path: Path, whole: Path) -> None:
    one, other = CubeReader(path), CubeReader(whole)
    for name in other.modalities:
        np.testing.assert_array_equal(one.stored(name, *WHOLE), other.stored(name, *WHOLE))
        np.testing.assert_array_equal(Ledger(path, name).states(), Ledger(whole, name).states())
        np.testing.assert_array_equal(Ledger(path, name).digests(), Ledger(whole, name).digests())


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Which shards are computed from now on."""
    read, compute = [], build_module.compute_block

    def counting(layer: Any, block: Any, *rest: Any, **more: Any) -> Any:
        read.append((layer.modality.name, *_place(block)))
        return compute(layer, block, *rest, **more)

    monkeypatch.setattr(build_module, "compute_block", counting)
    return read


def _place(block: Any) -> tuple[int, int]:
    """Row and column of a shard, from its corner in the toy grid."""
    return round((5600640 - block.affine.f) / 320), round((block.affine.c - 700000) / 320)


def check_resume(facts: dict[str, Any], path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = finished(path)
    read = count_reads(monkeypatch)
    build_cube(parse_recipe(facts), resume=True)
    assert set(read) == finished(path) - before, "exactly what was not finished is read"
    assert len(read) == JOBS - len(before)
    check_same(path, whole)
    assert sorted(file.name for file in path.parent.iterdir()) == ["cube.zarr", "items.parquet"], (
        "nothing is left beside the cube"
    )


def child_build(facts: dict[str, Any], log: str, pause: float, cluster: dict[str, Any]) -> None:
    """A build in a process of its own that notes every shard it begins."""
    console.quiet = True

    def noting(layer: Any, block: Any, *rest: Any, **more: Any) -> Any:
        with Path(log).open("a") as file:
            file.write(".")
        time.sleep(pause)
        return quick_block(layer, block)

    build_module.compute_block = noting
    clock = random.Random(0)
    time.time = lambda: clock.uniform(0, 4e9)  # a clock that jumps
    build_cube(parse_recipe(facts), resume=True, cluster=ClusterSection(**cluster))


@pytest.fixture(scope="module")
def spawn() -> Callable[..., Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mdico_cube.cube.build", "pytest", "distributed", "yaml"])

    def start(target: Callable[..., None], *args: Any) -> Any:
        process = context.Process(target=target, args=args)
        process.start()
        return process

    return start


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["loop", "threads"])
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_any_moment(
    facts: dict[str, Any], path: Path, whole: Path, tmp_path: Path, spawn: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, seed: int, kind: str,
) -> None:  # fmt: skip
    """SIGKILL, under a clock that jumps; the dead builder's claims hold nobody up."""
    chance, log = random.Random(seed), tmp_path / "log"
    process = spawn(child_build, facts, str(log), 0.05, {"kind": kind, "workers": 2})
    shards = chance.randrange(JOBS - 3)
    wait_until(lambda: log.exists() and log.stat().st_size > shards)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check_resume(facts, path, whole, monkeypatch)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_that_jumps_changes_nothing(
    facts: dict[str, Any], path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Back by years and forth by decades at every look, also for what is stamped on files."""
    chance, count, run = random.Random(seed), [0], build_module.run_job
    last = chance.randrange(1, JOBS)

    def stopping(*args: Any) -> Any:
        count[0] += 1
        if count[0] > last:
            raise KeyboardInterrupt
        built = run(*args)
        for file in path.rglob("c/**/*"):
            if file.is_file():
                os.utime(file, (chance.uniform(0, 4e9),) * 2)
        return built

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: chance.uniform(0, 4e9))
        patch.setattr(build_module, "run_job", stopping)
        with pytest.raises(KeyboardInterrupt):
            build_cube(parse_recipe(facts))
    monkeypatch.setattr(time, "time", lambda: chance.uniform(0, 4e9))
    check_resume(facts, path, whole, monkeypatch)


def test_two_builders_share_the_work(
    facts: dict[str, Any], path: Path, whole: Path, tmp_path: Path, spawn: Callable[..., Any]
) -> None:
    log = tmp_path / "log"
    builders = [spawn(child_build, facts, str(log), 0.05, {"kind": "loop"}) for _ in range(2)]
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert log.stat().st_size == JOBS, "no shard was read twice"
    check_same(path, whole)
    assert sorted(file.name for file in path.parent.iterdir()) == ["cube.zarr", "items.parquet"]


def test_the_second_builder_finishes_what_the_first_dies_over(
    facts: dict[str, Any], path: Path, whole: Path, tmp_path: Path, spawn: Callable[..., Any]
) -> None:
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    first = spawn(child_build, facts, str(slow), 3600.0, {"kind": "loop", "threads": 1})
    wait_until(slow.exists)
    second = spawn(child_build, facts, str(fast), 0.0, {"kind": "loop", "threads": 1})
    wait_until(lambda: len(finished(path)) == JOBS - 1)
    time.sleep(0.3)
    assert second.is_alive(), "it waits for the shard that the first has in hand"
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second.join(60)
    assert second.exitcode == 0
    check_same(path, whole)


def test_readers_refuse_a_cube_that_is_being_built(facts: dict[str, Any], path: Path, tmp_path: Path) -> None:
    seen = []
    run = build_module.run_job

    def looking(*args: Any) -> Any:
        with pytest.raises(MdicoError, match=r"lacks \d shards? of sentinel1"):
            CubeReader(path).check_complete(["sentinel1", "sentinel2"])
        seen.append(1)
        return run(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "compute_block", quick_block)
        patch.setattr(build_module, "run_job", looking)
        build_cube(parse_recipe(facts))
    assert len(seen) == JOBS
    CubeReader(path).check_complete(["sentinel1", "sentinel2"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_in_the_midst_of_a_write(
    facts: dict[str, Any], path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, seed: int, fault: int
) -> None:
    """Half of the bytes get there, then the disk is full, read-only or broken, for pixels and ledger alike."""
    chance, put = random.Random(seed), local_store._put
    left = [chance.randrange(1, 2 * JOBS)]

    def failing(file: Path, value: Any, *rest: Any, **more: Any) -> Any:
        left[0] -= "cube.zarr/" in str(file)
        if left[0] < 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".half.partial").write_bytes(value.to_bytes()[: len(value) // 2])
            raise OSError(fault, os.strerror(fault))
        return put(file, value, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(local_store, "_put", failing)
        with pytest.raises(MdicoError, match=f"{os.strerror(fault)}.*--resume"):
            build_cube(parse_recipe(facts))
    check_resume(facts, path, whole, monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_real_disk_that_is_full_and_then_larger(
    facts: dict[str, Any], small_disk: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {**facts, "output": str(small_disk)}
    path = small_disk / "cube.zarr"
    with pytest.raises(MdicoError, match=r"No space left on device.*--resume"):
        build_cube(parse_recipe(facts))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    check_resume(facts, path, whole, monkeypatch)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MdicoError, match=r"Read-only file system.*choose another place"):
        build_cube(parse_recipe(facts), resume=True)
    check_same(path, whole)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_source_that_fails_for_ever_at_one_shard(
    facts: dict[str, Any], path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    compute, chance = build_module.compute_block, random.Random(seed)
    row, column = chance.randrange(2), chance.randrange(3)

    def failing(layer: Any, block: Any, *rest: Any, **more: Any) -> Any:
        if (layer.modality.name, *_place(block)) == ("sentinel2", row, column):
            raise MdicoError("item S2: asset B04 cannot be read for ever.")
        return compute(layer, block, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "compute_block", failing)
        for attempt in range(2):
            with pytest.raises(MdicoError, match=rf"1 of {1 if attempt else JOBS} shards could not be built.*for ever"):
                build_cube(parse_recipe(facts), resume=bool(attempt))
    assert len(finished(path)) == JOBS - 1
    entry = Ledger(path, "sentinel2").read(row, column)
    assert (entry.state, entry.error) == (FAILED, "item S2: asset B04 cannot be read for ever.")
    check_resume(facts, path, whole, monkeypatch)


@pytest.mark.parametrize("seed", SEEDS)
def test_files_that_somebody_removed_are_built_again_and_no_others(
    facts: dict[str, Any], path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    build_cube(parse_recipe(facts))
    gone = set(random.Random(seed).sample(sorted(finished(path)), 1 + seed))
    for name, row, column in gone:
        variable = CubeReader(path).modalities[name].variable
        (path / name / variable / "c" / "0" / "0" / str(row) / str(column)).unlink()
    name = min(gone)[0]
    with pytest.raises(MdicoError, match=rf"{sum(each[0] == name for each in gone)} shards? of {name}\. .*--resume"):
        CubeReader(path).check_complete([name])
    assert {one.modality: one.missing for one in inspect_cube(path) if one.missing} == Counter(n for n, _, _ in gone)
    assert JOBS - len(finished(path)) == len(gone)
    check_resume(facts, path, whole, monkeypatch)


def test_a_shard_in_which_nothing_was_observed_needs_no_file(
    facts: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "compute_block", lambda layer, *rest: _nothing(layer, quick_block(layer, *rest)))
    build_cube(parse_recipe(facts))
    variables = [path / name / modality.variable for name, modality in CubeReader(path).modalities.items()]
    assert not [file for folder in variables for file in folder.glob("c/*/*/*/*")], "only missing pixels: no file"
    assert len(finished(path)) == JOBS
    read = count_reads(monkeypatch)
    build_cube(parse_recipe(facts), resume=True)
    assert not read


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_dask_worker_is_killed(
    facts: dict[str, Any], path: Path, real: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Its shard is done by another worker; nothing fails, and nothing is left to do."""
    chance = random.Random(seed)
    after, victim = chance.randrange(6), chance.randrange(2)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        section = ClusterSection(kind="scheduler", address=cluster.scheduler_address)

        def kill() -> None:
            wait_until(lambda: len(finished(path)) > after)
            os.kill(cluster.workers[victim].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        build_cube(parse_recipe(facts), cluster=section)
        killer.join()
    check_resume(facts, path, real, monkeypatch)


def child_cluster(address: str) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        draft = Path(address).with_suffix(".draft")
        draft.write_text(cluster.scheduler_address)
        draft.rename(address)
        time.sleep(600)


@pytest.mark.parametrize("seed", ONE_AT_ONCE)
def test_the_scheduler_is_lost(
    facts: dict[str, Any], path: Path, real: Path, tmp_path: Path, spawn: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, seed: int,
) -> None:  # fmt: skip
    after = random.Random(seed).randrange(7)
    address = tmp_path / "address"
    process = spawn(child_cluster, str(address))
    wait_until(address.exists)
    monkeypatch.setattr(dask_crew, "_GRACE", 0.5)
    monkeypatch.setattr(claims_module, "LEASE", 0.5)

    def kill() -> None:
        wait_until(lambda: len(finished(path)) > after)
        os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(MdicoError, match=r"scheduler is lost.*--resume"):
        build_cube(parse_recipe(facts), cluster=ClusterSection(address=address.read_text()))
    killer.join()
    process.join()
    check_resume(facts, path, real, monkeypatch)


SLOW_DOOR = """
import signal
import time
import mdico_cube.cube.build as build
from mdico_cube.cli import main

compute = build.compute_block

def slowly(*arguments, **options):
    time.sleep(0.4)
    return compute(*arguments, **options)

build.compute_block = slowly
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""The command line, with shards that take their time; interrupted as on a terminal, even where a script that runs the
tests behind itself has them ignore Ctrl-C."""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "seed"), [(1, 0), (1, 1), (1, 2), (2, 0)])
def test_ctrl_c_says_what_is_kept_and_can_be_resumed(
    facts: dict[str, Any], path: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int,
    seed: int,
) -> None:  # fmt: skip
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump(facts))
    command = [sys.executable, "-c", SLOW_DOOR, "build", str(recipe), "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    chance = random.Random(seed)
    after = chance.randrange(1, 5)
    wait_until(lambda: len(finished(path)) > after, seconds=180)  # a busy machine starts workers slowly
    time.sleep(chance.uniform(0, 0.4))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process in front
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "shards are finished and kept" in said
    assert "go on with --resume" in said
    assert "Traceback" not in said
    check_resume(facts, path, real, monkeypatch)


def test_a_recipe_is_checked_against_the_cube(recipe: Recipe) -> None:
    """A builder of another recipe is refused while one is at work, and the cube stays as it was."""
    run, refused = build_module.run_job, []

    def other(*args: Any) -> Any:
        if not refused:
            changed = recipe.modalities["sentinel2"].model_copy(update={"reducer": "first"})
            update = {"modalities": {**recipe.modalities, "sentinel2": changed}}
            with pytest.raises(MdicoError, match="another recipe is at work"):
                build_cube(recipe.model_copy(update=update), resume=True)
            with pytest.raises(MdicoError, match="so it is not replaced"):
                build_cube(recipe, overwrite=True)
            refused.append(1)
        return run(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "compute_block", quick_block)
        patch.setattr(build_module, "run_job", other)
        path = build_cube(recipe)
    assert refused
    assert (Ledger(path, "sentinel2").states() == DONE).all()
