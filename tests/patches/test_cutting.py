"""The samples store: what stands beside the pixels, going on after a stop, coarser modalities, centre labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from pyproj import Transformer
from test_samples import NAMES, extracted

from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.patches import cutting
from mdico_cube.patches.coarsen import coarsened
from mdico_cube.patches.dataset import make_loader
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.sources import CubeWindows, window_source
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import Band, Modality, Storage


def everything(store: SampleStore) -> dict[str, Any]:
    with xr.open_zarr(store.path, consolidated=False, mask_and_scale=False) as found:
        return {str(name): found[name].values for name in found.variables}


def test_xarray_opens_a_samples_store_with_all_that_is_known(cube: Path, tmp_path: Path) -> None:
    store, reader = extracted(cube, tmp_path, patch=4), open_reader(cube)
    found = everything(store)
    assert found["sentinel2"].shape[1:] == (4, 2, 4, 4)
    to_degrees = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    for i in (0, len(store.fold) // 2, -1):
        row, column = found["row"][i], found["column"][i]
        x, y = 700000 + 10 * (column + 2.5), 5600640 - 10 * (row + 2.5)
        assert (found["x"][i], found["y"][i]) == (x, y)
        np.testing.assert_allclose((found["lon"][i], found["lat"][i]), to_degrees.transform(x, y), atol=1e-9)
        assert found["label"][i] == reader.labels(slice(row + 2, row + 3), slice(column + 2, column + 3))
        assert found["block"][i] == (row + 2) // 16 * 6 + (column + 2) // 16
        for name in NAMES:
            _, seen = reader.read(name, slice(row, row + 4), slice(column, column + 4))
            assert found[f"observed_{name}"][i] == pytest.approx(seen.mean())
    assert not store.missing("dem").any()
    assert (np.diff(store.fold.astype(int)) >= 0).all()  # a fold's rows lie together


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_and_gives_the_same(
    cube: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    monkeypatch.setattr(cutting, "_SHARD", 1)
    monkeypatch.setattr(cutting, "_ROWS", 16)
    section = SampleSection(block=16, guard=1, per_class=40)
    whole = everything(open_samples(extract_samples(cube, tmp_path / "whole" / "samples.zarr", NAMES, section)))
    done: list[int] = []
    real: Callable[..., Any] = cutting.cut_shard

    def failing(plan: Any, first: int, windows: Any) -> Any:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(first)
        return real(plan, first, windows)

    def one_by_one(function: Any, jobs: Any, title: str) -> Any:
        return (function(*job) for job in jobs)

    monkeypatch.setattr(cutting, "in_waves", one_by_one)
    monkeypatch.setattr(cutting, "cut_shard", failing)
    target = tmp_path / "samples.zarr"
    with pytest.raises(KeyboardInterrupt):
        extract_samples(cube, target, NAMES, section)
    assert not target.exists()
    notes = target.with_name(".samples.zarr.draft") / "progress.jsonl"
    assert len(notes.read_text().splitlines()) == stop
    with notes.open("a") as file:
        file.write('{"first": 16, "sta')  # a line that was cut off
    done.clear()
    monkeypatch.setattr(cutting, "cut_shard", lambda *job: (done.append(job[1]), real(*job))[1])
    extract_samples(cube, target, NAMES, section, resume=True)
    assert len(done) == -(-len(whole["row"]) // 16) - stop
    again = everything(open_samples(target))
    assert again.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)
    stats = [open_samples(path).inputs["sentinel2"].stats for path in (target, tmp_path / "whole" / "samples.zarr")]
    assert stats[0] == stats[1]


def test_without_pixels_training_reads_the_cube_and_sees_the_same(cube: Path, tmp_path: Path) -> None:
    section = SampleSection(block=16, guard=1, per_class=40, patch=4)
    full = open_samples(extract_samples(cube, tmp_path / "a" / "samples.zarr", NAMES, section))
    bare = open_samples(extract_samples(cube, tmp_path / "b" / "samples.zarr", NAMES, section, pixels=False))
    assert not bare.pixels
    assert bare.inputs == full.inputs
    with pytest.raises(MdicoError, match=r"loader\.source: cube"):
        window_source(bare, (1,), NAMES)
    one = make_loader(window_source(full, (1,), NAMES), 16)
    two = make_loader(window_source(bare, (1,), NAMES, cube), 16)
    for a, b in zip(one, two, strict=True):
        for name in NAMES:
            assert torch.equal(a.images[name], b.images[name])
            assert torch.equal(a.valid[name], b.valid[name])
        assert a.target is not None
        assert b.target is not None
        assert torch.equal(a.target, b.target)


def test_asking_for_the_other_kind_draws_again(cube: Path, tmp_path: Path) -> None:
    section = SampleSection(block=16, guard=1, per_class=10)
    path = extract_samples(cube, tmp_path / "samples.zarr", NAMES, section, pixels=False)
    extract_samples(cube, path, NAMES, section, resume=True)
    assert open_samples(path).pixels


def test_centre_labels_leave_the_rest_unlabelled(cube: Path, tmp_path: Path) -> None:
    dense = extracted(cube, tmp_path / "a", patch=4)
    centre = extracted(cube, tmp_path / "b", patch=4, target="centre")
    targets = np.asarray(centre.array("target")[:])
    assert (targets[:, 2, 2] == centre.label).all()
    assert ((targets != 255).sum(axis=(1, 2)) == 1).all()
    np.testing.assert_array_equal(targets[:, 2, 2], np.asarray(dense.array("target")[:])[:, 2, 2])


def test_a_coarser_modality_is_the_mean_of_what_was_observed(cube: Path, tmp_path: Path) -> None:
    fine = extracted(cube, tmp_path / "a", patch=4)
    coarse = extracted(cube, tmp_path / "b", patch=4, coarsen={"sentinel2": 2, "sentinel1": "patch"})
    assert coarse.array("sentinel2").shape[3:] == (2, 2)
    assert coarse.array("sentinel1").shape[3:] == (1, 1)
    assert coarse.array("dem").shape[3:] == (4, 4)
    for name, factor in (("sentinel2", 2), ("sentinel1", 4)):
        storage = fine.inputs[name].modality.storage
        values, seen = storage.unpack(np.asarray(fine.array(name)[:]))
        found, known = storage.unpack(np.asarray(coarse.array(name)[:]))
        for i, t, c in np.ndindex(*found.shape[:3]):
            for y, x in np.ndindex(*found.shape[3:]):
                square = (i, t, c, slice(y * factor, (y + 1) * factor), slice(x * factor, (x + 1) * factor))
                part = values[square][seen[square]]
                assert known[i, t, c, y, x] == bool(part.size)
                if part.size:
                    mean = 10 * np.log10((10 ** (part / 10)).mean()) if name == "sentinel1" else part.mean()
                    assert found[i, t, c, y, x] == pytest.approx(mean, abs=0.6 * storage.scale + 1e-5)
        if i > 40:
            break
    direct = window_source(coarse, (1,), NAMES, cube)
    assert isinstance(direct, CubeWindows)
    for a, b in zip(make_loader(direct, 16), make_loader(window_source(coarse, (1,), NAMES), 16), strict=True):
        for name in NAMES:
            assert torch.equal(a.images[name], b.images[name])
        assert a.on_one_grid().images["sentinel1"].shape[-2:] == (4, 4)


def test_one_is_as_it_is() -> None:
    modality = Modality("m", "v", (Band("a", "dB"),), Storage("int16", 0.01, -32768))
    stored = np.array([[[[[100, -32768], [300, 400]]]]], dtype=np.int16)
    assert coarsened(modality, stored, 1) is stored
    whole = coarsened(modality, np.full_like(stored, -32768), 2)
    assert whole.tolist() == [[[[[-32768]]]]]


def test_the_patch_must_be_a_multiple() -> None:
    with pytest.raises(ValueError, match="no multiple of 3"):
        SampleSection(patch=4, coarsen={"landsat": 3})


def test_a_missing_modality_is_a_mask_and_its_window_is_used_where_the_recipe_says_so(
    cube: Path, tmp_path: Path
) -> None:
    torn = tmp_path / "cube.zarr"
    shutil.copytree(cube, torn)
    array = zarr.open_group(torn, mode="r+")["sentinel2/reflectance"]
    assert isinstance(array, zarr.Array)
    ledger = Ledger(torn, "sentinel2", "r+")
    for place, entry in ledger.entries().items():
        ledger.record(*place, replace(entry, valid_fraction=0.0))
    array[..., 48:] = 65535
    strict = extracted(torn, tmp_path / "a", patch=4)
    assert not strict.missing("sentinel2").any()
    loose = extracted(torn, tmp_path / "b", patch=4, min_valid={"sentinel1": 0.25, "sentinel2": 0})
    gone = loose.missing("sentinel2")
    assert gone.any()
    assert (gone == (loose.column("column") >= 48)).all()
    assert not loose.missing("sentinel1").any()
    rows = loose.where(1)
    (batch,) = make_loader(window_source(loose, (1,), NAMES), len(rows))
    assert (batch.valid["sentinel2"].flatten(1).any(dim=1).numpy() == ~gone[rows]).all()
    assert not batch.images["sentinel2"][torch.from_numpy(gone[rows])].any()
    assert batch.valid["sentinel1"].flatten(1).any(dim=1).all()


def test_patch_labels_are_what_most_pixels_carry(cube: Path, tmp_path: Path) -> None:
    dense = extracted(cube, tmp_path / "a", patch=4)
    whole = extracted(cube, tmp_path / "b", patch=4, target="patch")
    every, one = (np.asarray(store.array("target")[:]) for store in (dense, whole))
    assert (one != 255).sum() == len(one), "one label each"
    mixed = 0
    for pixels, label in zip(every, one[:, 2, 2], strict=True):
        found = np.bincount(pixels[pixels != 255])
        assert label == found.argmax()
        mixed += (found > 0).sum() > 1
    assert mixed, "otherwise nothing was voted on"
