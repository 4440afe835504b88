from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from mdico_cube.colearn.bundle import add_scores
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.mapstore import LAYER, inner_side, map_status
from mdico_cube.maps.plan import MapPlan, plan_map
from mdico_cube.maps.predict import lazy_stack, predict_map
from mdico_cube.maps.write import find_maps, is_stale, map_path, open_map, read_map, write_map


@pytest.fixture
def target(run) -> Path:
    return map_path(run.out, "mdico", "sentinel2", 0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Counter:
    """Counts predicted shards and can stop the run at one of them."""

    def __init__(self, monkeypatch, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.seen: list[tuple[int, int]] = []
        compute = MapPlan.compute

        def counted(plan, found, known=None):
            if stop_at is not None and len(self.seen) == stop_at:
                raise error(28, "No space left on device") if error is OSError else error
            self.seen.append((found.y.start, found.x.start))
            return compute(plan, found, known)

        monkeypatch.setattr(MapPlan, "compute", counted)


def test_the_written_map_is_the_predicted_map(run, target):
    assert write_map(run.cube, run.bundle(), target, pixels=64) == target
    assert find_maps(run.out) == [target]
    written, predicted = open_map(target), predict_map(run.cube, run.bundle(), pixels=64).compute()
    for name in ("class", "confidence"):
        assert written[name].dtype == np.uint8
        assert np.array_equal(written[name], predicted[name])
    assert written.odc.geobox == predicted.odc.geobox
    assert written.attrs["legend"][2] == {"name": "forest", "value": 4, "color": "#2e7d32"}
    array = zarr.open_group(target)["class"]
    assert (array.chunks, array.shards) == ((run.shard, run.shard), (run.shard, run.shard))


@pytest.mark.parametrize(
    ("shard", "chunk", "side"), [(512, 64, 256), (256, 64, 256), (640, 64, 128), (512, 512, 512), (192, 64, 192)]
)
def test_an_inner_chunk_of_a_map_is_as_large_as_pays_and_parts_the_shard(shard, chunk, side):
    assert inner_side(shard, chunk) == side


def test_strips_keep_workers_busy_and_change_nothing(run, target):
    plan = plan_map(run.cube, run.bundle(), pixels=64)
    whole, cut = lazy_stack(plan), lazy_stack(plan, strips=2)
    assert cut.chunks[1] == (8, 8, 8, 8, 8, 4)
    assert np.array_equal(whole.compute(), cut.compute())
    write_map(run.cube, run.bundle(), target, pixels=64)
    before = files(target)
    Ledger(target, LAYER, "r+").forget(1, 1)
    write_map(run.cube, run.bundle(), target, pixels=64, resume=True, workers=2)  # one shard, two workers
    assert files(target) == before


def test_one_file_per_shard_and_variable(run, target):
    write_map(run.cube, run.bundle(), target)
    assert len([path for path in (target / "class" / "c").rglob("*") if path.is_file()]) == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_resume_gives_the_same_bytes_and_recomputes_no_finished_shard(run, target, monkeypatch, workers):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr", pixels=64)
    with monkeypatch.context() as patch:
        Counter(patch, stop_at=5)
        with pytest.raises(KeyboardInterrupt):
            write_map(run.cube, run.bundle(), target, workers=workers, pixels=64)
    ledger = Ledger(target, LAYER).states()
    done = {(i * run.shard, j * run.shard) for i, j in np.argwhere(ledger == DONE)}
    assert done
    with pytest.raises(MdicoError, match=r"lacks .* shards?: .*--resume"):
        read_map(target)
    counter = Counter(monkeypatch)
    write_map(run.cube, run.bundle(), target, resume=True, workers=workers, pixels=64)
    assert not done & set(counter.seen)
    assert len(done) + len(counter.seen) == 12
    assert files(target) == files(whole)


def test_extras_are_written_resumed_and_named(run, target, monkeypatch):
    outputs = ("probabilities", "entropy", "observations")
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr", pixels=64, outputs=outputs)
    with monkeypatch.context() as patch:
        Counter(patch, stop_at=5)
        with pytest.raises(KeyboardInterrupt):
            write_map(run.cube, run.bundle(), target, pixels=64, outputs=outputs)
    write_map(run.cube, run.bundle(), target, pixels=64, outputs=outputs, resume=True)
    assert files(target) == files(whole)
    written = open_map(target)
    predicted = predict_map(run.cube, run.bundle(), pixels=64, outputs=outputs).compute()
    assert set(written.data_vars) == set(predicted.data_vars)
    for name in predicted.data_vars:
        assert np.array_equal(written[name], predicted[name])
        assert written[name].dims == predicted[name].dims
    assert written["label"].values.tolist() == [1, 2, 4]
    assert written.attrs["outputs"] == sorted(outputs)
    with pytest.raises(MdicoError, match="begun with another outputs than entropy"):
        write_map(run.cube, run.bundle(), target, resume=True, outputs=("entropy",))


def test_resume_refuses_another_precision(run, target):
    write_map(run.cube, run.bundle(), target)
    with pytest.raises(MdicoError, match="begun with another precision than bf16"):
        write_map(run.cube, run.bundle(), target, resume=True, precision="bf16")


def test_a_map_in_bf16_says_so_and_is_nearly_the_same(run, target):
    add_scores(run.bundle(), {"bf16_changed_classes": 0.004})
    exact, rough = (
        open_map(write_map(run.cube, run.bundle(), run.out / "maps" / f"{precision}.zarr", precision=precision))
        for precision in ("32-true", "bf16")
    )
    assert rough.attrs["precision"] == "bf16"
    assert rough.attrs["bf16_changed_classes"] == 0.004
    assert "bf16_changed_classes" not in exact.attrs
    assert (exact["confidence"] != rough["confidence"]).mean() > 0
    assert (exact["class"] != rough["class"]).mean() < 0.05


def test_a_shard_counts_only_when_both_variables_are_written(run, target, monkeypatch):
    write = zarr.Array.__setitem__

    def broken(array, selection, value):
        if array.basename == "confidence":
            raise OSError(28, "No space left on device")
        write(array, selection, value)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", broken)
        with pytest.raises(MdicoError, match=r"No space left on device.*--resume"):
            write_map(run.cube, run.bundle(), target)
    assert not Ledger(target, LAYER).states().any()


def test_resuming_a_complete_map_computes_nothing(run, target, monkeypatch):
    write_map(run.cube, run.bundle(), target)
    before = files(target)
    counter = Counter(monkeypatch)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert not counter.seen
    assert files(target) == before


def test_resume_refuses_another_bundle(run, target):
    write_map(run.cube, run.bundle(), target)
    before = files(target)
    with pytest.raises(MdicoError, match="begun with another bundle"):
        write_map(run.cube, run.bundle(seed=1), target, resume=True)
    assert files(target) == before


def test_shards_whose_pixels_the_cube_has_anew_are_made_again_and_no_others(run, target, monkeypatch):
    write_map(run.cube, run.bundle(), target)
    array = zarr.open_group(run.cube, mode="r+")["sentinel2/reflectance"]
    array[:, :, 16:32, 32:48] = array[:, :, 16:32, 32:48][::-1]
    Ledger(run.cube, "sentinel2", "r+").record(1, 2, Entry(DONE, digest="anew"))
    assert not is_stale(run.cube, run.bundle(), target)
    with monkeypatch.context() as patch:
        counter = Counter(patch)
        write_map(run.cube, run.bundle(), target, resume=True)
        assert counter.seen == [(16, 32)]
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    assert files(target) == files(whole)


def test_a_stale_map_never_passes_for_a_finished_one(run, target, monkeypatch):
    write_map(run.cube, run.bundle(), target)
    for column in (0, 3):
        Ledger(run.cube, "sentinel2", "r+").record(2, column, Entry(DONE, digest="anew"))
    Counter(monkeypatch, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        write_map(run.cube, run.bundle(), target, resume=True, workers=1)
    with pytest.raises(MdicoError, match="lacks 1 shard:"):
        read_map(target)


def test_resume_refuses_a_cube_on_another_grid(run, target, monkeypatch):
    write_map(run.cube, run.bundle(), target)
    monkeypatch.setattr("mdico_cube.maps.origin.grid_digest", lambda *_: "other")
    monkeypatch.setattr("mdico_cube.maps.predict.grid_digest", lambda *_: "other")
    with pytest.raises(MdicoError, match="begun with another cube"):
        write_map(run.cube, run.bundle(), target, resume=True)
    assert is_stale(run.cube, run.bundle(), target)


def test_a_shard_the_cube_lacks_is_recorded_as_failed_and_made_once_it_is_there(run, target):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    cube_ledger = Ledger(run.cube, "sentinel2", "r+")
    entry = cube_ledger.read(1, 1)
    cube_ledger.forget(1, 1)
    with pytest.raises(MdicoError, match=r"1 of 12 shards could not be made \(the cube lacks .*--resume"):
        write_map(run.cube, run.bundle(), target)
    status = map_status(target)
    assert (status["done"], status["failed"], status["missing"]) == (11, 1, 0)
    assert "the cube lacks" in status["errors"]["1,1"]
    assert (open_map(target)["class"].values[16:32, 16:32] == 255).all()
    with pytest.raises(MdicoError, match="lacks 1 shard: 1 of them could not be made"):
        read_map(target)
    cube_ledger.record(1, 1, entry)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert files(target) == files(whole)


def test_a_removed_file_of_the_cube_counts_as_lacking_and_one_of_the_map_is_written_again(run, target):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    shard = run.cube / "sentinel2" / "reflectance" / "c" / "0" / "0" / "1" / "1"
    ledger = Ledger(run.cube, "sentinel2", "r+")
    ledger.record(1, 1, replace(ledger.read(1, 1), valid_fraction=0.5))
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(MdicoError, match=r"1 of 12 shards could not be made \(the cube lacks .*--resume"):
        write_map(run.cube, run.bundle(), target)
    shard.write_bytes(content)
    write_map(run.cube, run.bundle(), target, resume=True)
    (target / "class" / "c" / "2" / "3").unlink()
    with pytest.raises(MdicoError, match="lacks 1 shard: writing was stopped or its file was removed"):
        read_map(target)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert files(target) == files(whole)


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_shard_of_the_cube_fails_alone(run, target, seed):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    rng = np.random.default_rng(seed)
    row, column = int(rng.integers(3)), int(rng.integers(4))
    shard = next((run.cube / "sentinel2" / "reflectance" / "c").glob(f"0/0/{row}/{column}"))
    sound = shard.read_bytes()
    shard.write_bytes(sound[: int(rng.integers(1, 200))])
    with pytest.raises(MdicoError, match=r"1 of 12 shards could not be made \(.*no whole shard"):
        write_map(run.cube, run.bundle(), target, workers=2)
    states = Ledger(target, LAYER).states()
    assert states[row, column] == FAILED
    assert (states == DONE).sum() == 11
    shard.write_bytes(sound)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert files(target) == files(whole)


def test_a_shard_without_any_observation_is_done_and_empty(run, target):
    array = zarr.open_group(run.cube, mode="r+")["sentinel2/reflectance"]
    array[:, :, 16:32, 16:32] = array.fill_value
    write_map(run.cube, run.bundle(), target, outputs=("observations",))
    entry = Ledger(target, LAYER).read(1, 1)
    assert (entry.state, entry.valid_fraction) == (DONE, 0.0)
    written = open_map(target)
    assert (written["class"].values[16:32, 16:32] == 255).all()
    assert (written["observations"].values[16:32, 16:32] == 0).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(run, target, seed):
    """A process of its own is killed with SIGKILL while it writes."""
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr", pixels=64)
    left = int(np.random.default_rng(seed).integers(1, 11))
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import mdico_cube.maps.crew as module\n"
        "from mdico_cube.maps.write import write_map\n"
        "made, make = [], module.write_shard\n"
        "def mortal(*args):\n"
        f"    if len(made) == {left}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    made.append(0)\n"
        "    return make(*args)\n"
        "module.write_shard = mortal\n"
        "write_map(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), pixels=64, workers=1)\n"
    )
    found = subprocess.run([sys.executable, "-c", program, run.cube, run.bundle(), target], check=False)
    assert found.returncode == -signal.SIGKILL
    assert (Ledger(target, LAYER).states() == DONE).sum() <= left
    write_map(run.cube, run.bundle(), target, pixels=64, resume=True)
    assert files(target) == files(whole)


def test_an_existing_map_is_refused_or_replaced(run, target):
    write_map(run.cube, run.bundle(), target)
    with pytest.raises(MdicoError, match=r"exists already.*--overwrite"):
        write_map(run.cube, run.bundle(), target)
    write_map(run.cube, run.bundle(seed=1), target, overwrite=True)
    assert open_map(target).attrs["seed"] == 1


def test_a_folder_that_is_no_map_is_never_removed(run, target):
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(MdicoError, match="something else than a map"):
        write_map(run.cube, run.bundle(), target, overwrite=True)
    assert (target / "thesis.txt").exists()


def test_a_misfit_writes_nothing(run, target, tmp_path):
    with pytest.raises(MdicoError):
        write_map(run.cube, tmp_path / "nothing", target)
    assert not target.parent.exists()


def test_an_unwritable_place_is_one_sentence(run):
    (run.out / "maps").write_text("a file, not a folder")
    with pytest.raises(MdicoError, match=r"cannot be written .*choose a folder"):
        write_map(run.cube, run.bundle(), run.out / "maps" / "a.zarr")


def test_workers_times_torch_threads_stay_within_the_cores(run, target, monkeypatch):
    monkeypatch.setattr("mdico_cube.maps.crew.processors", lambda: 2)
    used, before = set(), torch.get_num_threads()
    compute = MapPlan.compute

    def noting(plan, found, known=None):
        used.add(torch.get_num_threads())
        return compute(plan, found, known)

    monkeypatch.setattr(MapPlan, "compute", noting)
    write_map(run.cube, run.bundle(), target, workers=8)
    assert used == {1}
    assert torch.get_num_threads() == before
    used.clear()
    write_map(run.cube, run.bundle(), target, workers=1, overwrite=True)
    assert used == {2}
    assert torch.get_num_threads() == before


def test_a_bundle_swapped_half_way_stops_the_map(run, target, monkeypatch):
    run.make_bundles(run.out / "other", "mdico", 7)
    compute, seen = MapPlan.compute, []

    def swapping(plan, found, known=None):
        if len(seen) == 3:
            for name in ("weights.safetensors", "applicability.safetensors", "bundle.json"):
                (run.bundle() / name).write_bytes((run.out / "other" / "sentinel2" / name).read_bytes())
        seen.append(found)
        return compute(plan, found, known)

    monkeypatch.setattr(MapPlan, "compute", swapping)
    with pytest.raises(MdicoError, match="changed while"):
        write_map(run.cube, run.bundle(), target, workers=1)
    assert (Ledger(target, LAYER).states() == DONE).sum() <= 3  # the last of them may still wait to be written


@pytest.mark.parametrize("seed", range(3))
def test_a_bundle_damaged_half_way_stops_the_map_and_no_pixel_is_wrong(run, target, monkeypatch, seed):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    rng = np.random.default_rng(seed)
    name = ("weights.safetensors", "bundle.json")[seed % 2]
    sound, at = (run.bundle() / name).read_bytes(), int(rng.integers(1, 10))
    compute, seen = MapPlan.compute, []

    def damaging(plan, found, known=None):
        if len(seen) == at:
            (run.bundle() / name).write_bytes(sound[: int(rng.integers(len(sound)))])
        seen.append(found)
        return compute(plan, found, known)

    with monkeypatch.context() as patch:
        patch.setattr(MapPlan, "compute", damaging)
        with pytest.raises(MdicoError, match=r"^bundle "):
            write_map(run.cube, run.bundle(), target, workers=1 + seed % 2)
    states = Ledger(target, LAYER).states()
    assert not (states == FAILED).any()  # it is the bundle's fault, not the shards'
    assert (states == DONE).sum() <= at + 2
    (run.bundle() / name).write_bytes(sound)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert files(target) == files(whole)


@pytest.mark.parametrize("seed", range(3))
def test_a_disk_that_fills_up_at_any_write_loses_nothing(run, target, monkeypatch, seed):
    whole = write_map(run.cube, run.bundle(), run.out / "maps" / "whole.zarr")
    left, write = [int(np.random.default_rng(seed).integers(0, 30))], zarr.Array.__setitem__

    def full(array, selection, value):
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        write(array, selection, value)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(MdicoError, match=r"No space left on device.*--resume"):
            write_map(run.cube, run.bundle(), target, workers=2)
    write_map(run.cube, run.bundle(), target, resume=True)
    assert files(target) == files(whole)


@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_a_map_that_another_run_writes_is_refused_and_left_as_it_is(run, target, monkeypatch, how):
    """The first run stops in the middle of a shard until the second one was refused."""
    refused, compute = [], MapPlan.compute

    def meanwhile(plan, found, known=None):
        if not refused:
            refused.append(True)
            with pytest.raises(MdicoError, match=r"another process writes a map there"):
                write_map(run.cube, run.bundle(), target, **{how: True})
        return compute(plan, found, known)

    monkeypatch.setattr(MapPlan, "compute", meanwhile)
    write_map(run.cube, run.bundle(), target, pixels=64, workers=1)
    assert refused
    assert np.array_equal(open_map(target)["class"], predict_map(run.cube, run.bundle(), pixels=64)["class"])
