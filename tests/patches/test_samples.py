"""From cube to batches: extraction equals direct reading, and both equal slicing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.patches.dataset import make_loader
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.draw import split_path
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.sources import CubeWindows, StoredWindows
from mdico_cube.patches.stats import RunningStats
from mdico_cube.patches.windows import Windows
from mdico_cube.recipe import Recipe, SampleSection

NAMES = ("sentinel1", "sentinel2", "dem")


def extracted(cube: Path, folder: Path, **options: Any) -> SampleStore:
    section = SampleSection(**{"block": 16, "guard": 1, "per_class": 80, **options})
    return open_samples(extract_samples(cube, folder / "samples.zarr", NAMES, section))


def windows_of(store: SampleStore) -> Windows:
    row, column = (np.asarray(store.array(name)[:]) for name in ("row", "column"))
    return Windows(row, column, store.fold, store.label, store.side)


@pytest.mark.parametrize("patch", [1, 4, 5])
def test_extraction_equals_slicing_the_cube(cube: Path, tmp_path: Path, patch: int) -> None:
    store, reader = extracted(cube, tmp_path, patch=patch, block=16), open_reader(cube)
    whole = (slice(0, reader.shape[0]), slice(0, reader.shape[1]))
    windows, folds = windows_of(store), open_split(split_path(store.path.parent)).folds(reader, *whole)
    assert len(windows) > 10
    for name in NAMES:
        values = np.asarray(store.array(name)[:])
        for i, (y, x) in enumerate(zip(windows.y, windows.x, strict=True)):
            direct = reader.stored(name, slice(y, y + patch), slice(x, x + patch))
            np.testing.assert_array_equal(values[i], direct)
    targets = np.asarray(store.array("target")[:])
    for i, (y, x) in enumerate(zip(windows.y, windows.x, strict=True)):
        here = (slice(y, y + patch), slice(x, x + patch))
        label = reader.labels(*here)
        own = (folds[here] == windows.fold[i]) & (label >= 0)
        assert (targets[i] == np.where(own, label, 255)).all()


def test_a_batch_equals_direct_slicing(cube: Path, tmp_path: Path) -> None:
    store, reader = extracted(cube, tmp_path, patch=4), open_reader(cube)
    windows = windows_of(store)
    rows = store.where(1)
    for batch, index in zip(
        make_loader(StoredWindows(store, (1,), NAMES), 16), np.split(rows, range(16, len(rows), 16)), strict=True
    ):
        for name in NAMES:
            values, observed = zip(
                *(
                    reader.read(name, slice(windows.y[i], windows.y[i] + 4), slice(windows.x[i], windows.x[i] + 4))
                    for i in index
                ),
                strict=True,
            )
            np.testing.assert_array_equal(batch.images[name].numpy(), np.stack(values))
            np.testing.assert_array_equal(batch.valid[name].numpy(), np.stack(observed))
        assert batch.target is not None
        assert batch.target.dtype == torch.int64
        assert set(batch.target.unique().tolist()) <= {-1, 0, 1}


def test_reading_the_cube_directly_gives_the_same_batches(cube: Path, tmp_path: Path) -> None:
    store = extracted(cube, tmp_path)
    rows = store.where(1)
    targets = np.asarray(store.array("target").oindex[rows])
    direct = CubeWindows(cube, windows_of(store).take(rows), NAMES, targets)
    for one, two in zip(make_loader(StoredWindows(store, (1,), NAMES), 32), make_loader(direct, 32), strict=True):
        for name in NAMES:
            assert torch.equal(one.images[name], two.images[name])
            assert torch.equal(one.valid[name], two.valid[name])
        assert one.target is not None
        assert two.target is not None
        assert torch.equal(one.target, two.target)


def test_unobserved_windows_are_left_out(cube: Path, tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match=r"passes the filters: lower samples\.min_valid"):
        extracted(cube, tmp_path, min_valid=0.9)
    assert not (tmp_path / "samples.zarr").exists()
    assert len(extracted(cube, tmp_path, min_valid=0.7).fold) > 0


def test_statistics_are_those_of_observed_training_pixels(cube: Path, tmp_path: Path) -> None:
    store = extracted(cube, tmp_path)
    rows = store.where(1)
    for name in NAMES:
        storage = store.inputs[name].modality.storage
        values, observed = storage.unpack(np.asarray(store.array(name).oindex[rows]))
        pixels = np.moveaxis(values, 2, -1)[observed.all(axis=2)].astype(float)
        np.testing.assert_allclose(store.inputs[name].stats.mean, pixels.mean(axis=0), rtol=1e-6)
        spread = pixels.std(axis=0)
        np.testing.assert_allclose(store.inputs[name].stats.std, np.where(spread > 1e-9, spread, 1), rtol=1e-4)


def test_running_statistics_do_not_depend_on_the_parts() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(5, 3, (40, 3, 2, 1, 1)).astype(np.float32)
    observed = generator.random((40, 3, 1, 1)) < 0.7
    whole, parts = RunningStats(2), RunningStats(2)
    whole.add(values, observed)
    for cut in np.split(np.arange(40), [1, 2, 17]):
        parts.add(values[cut], observed[cut])
    np.testing.assert_allclose(whole.result().mean, parts.result().mean)
    np.testing.assert_allclose(whole.result().std, parts.result().std)
    assert whole.result().count == observed.sum()


def test_samples_are_refused_or_replaced(cube: Path, tmp_path: Path) -> None:
    store = extracted(cube, tmp_path)
    with pytest.raises(MdicoError, match="exists already"):
        extracted(cube, tmp_path)
    section = SampleSection(block=16, guard=1, per_class=5)
    extract_samples(cube, store.path, NAMES, section, overwrite=True)
    assert open_samples(store.path).class_counts(1) == (5, 5)


@pytest.mark.parametrize("what", ["nothing", "other"])
def test_what_is_no_samples_store(tmp_path: Path, what: str) -> None:
    path = tmp_path / "samples.zarr"
    if what == "other":
        zarr.open_group(path, mode="w")
    with pytest.raises(MdicoError, match="mdico sample"):
        open_samples(path)


def test_a_cube_without_the_modality(cube: Path, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(MdicoError, match="has no landsat"):
        extract_samples(cube, tmp_path / "s.zarr", ["landsat"], recipe.samples)


def test_resume_keeps_what_is_current_and_draws_again_what_is_not(cube: Path, tmp_path: Path) -> None:
    section = SampleSection(block=16, guard=1, per_class=30)
    path = extract_samples(cube, tmp_path / "samples.zarr", NAMES, section)
    stamp = (path / "zarr.json").stat().st_mtime_ns
    extract_samples(cube, path, NAMES, section, resume=True)
    assert (path / "zarr.json").stat().st_mtime_ns == stamp
    extract_samples(cube, path, NAMES, section.model_copy(update={"per_class": 7}), resume=True)
    assert open_samples(path).class_counts(1) == (7, 7)
    extract_samples(cube, path, NAMES[:2], section, resume=True)
    assert set(open_samples(path).inputs) == set(NAMES[:2])
