"""Batches: equal to direct slicing, whoever reads them, from the cube as from the samples store."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from zarr.codecs import ZstdCodec

from mdico_cube.batch import Batch
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.patches import dataset as dataset_module
from mdico_cube.patches.augment import make_augment
from mdico_cube.patches.dataset import WindowDataset, WindowLoader, make_loader
from mdico_cube.patches.order import Pool
from mdico_cube.patches.samples import SampleStore
from mdico_cube.patches.sources import CubeWindows, Part, StoredWindows, WindowSource, gather
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.windows import Windows
from mdico_cube.recipe import AugmentSection
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass, Modality, Storage

MODALITIES = {
    "radar": Modality("radar", "v", (Band("a", "dB"), Band("b", "dB")), Storage("int16", 0.01, -32768)),
    "optical": Modality("optical", "v", tuple(Band(b, "1") for b in "abc"), Storage("uint16", 1e-4, 65535)),
    "terrain": Modality("terrain", "v", (Band("h", "m"),), Storage("float32", 1.0, float("nan")), temporal=False),
}
NAMES = tuple(MODALITIES)
SIZE, CHUNK = (40, 56), 8
STEPS = ("2021-01-01", "2021-02-01", "2021-03-01")


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random values with gaps in every modality."""
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    geobox = GeoBox(SIZE, Affine(10, 0, 600000, 0, -10, 5600000), "EPSG:32631")
    layers = [Layer(m, STEPS if m.temporal else ("",)) for m in MODALITIES.values()]
    create_cube(path, geobox, layers, CHUNK, 2 * CHUNK, {}, (3, 4))
    draw = np.random.default_rng(0)
    for name, modality in MODALITIES.items():
        array = zarr.open_group(path, mode="r+")[f"{name}/v"]
        assert isinstance(array, zarr.Array)
        values = draw.integers(-300, 300, array.shape) + 400
        array[:] = np.where(draw.random(array.shape) < 0.2, modality.storage.missing, values).astype(array.dtype)
    return path


def windows(side: int, count: int, seed: int = 0) -> Windows:
    draw = np.random.default_rng(seed)
    y, x = (draw.integers(0, axis - side + 1, count) for axis in SIZE)
    return Windows(y, x, np.ones(count, np.uint8), np.zeros(count, np.int64), side)


def direct(cube: Path, side: int, count: int = 60, seed: int = 0) -> CubeWindows:
    target = np.random.default_rng(seed).choice([0, 1, 255], (count, side, side)).astype(np.uint8)
    return CubeWindows(cube, windows(side, count, seed), NAMES, target)


def stored(folder: Path, source: CubeWindows) -> SampleStore:
    """The same windows as a samples store."""
    root = zarr.open_group(folder, mode="w", zarr_format=3)
    for name, values in gather(source, np.arange(len(source))).items():
        chunk = (4, *values.shape[1:])
        shards = (16, *values.shape[1:])
        kind = values.dtype
        array = root.create_array(
            name, shape=values.shape, chunks=chunk, shards=shards, dtype=kind, compressors=[ZstdCodec(level=1)]
        )
        array[:] = values
    assert source.target is not None
    root.create_array("target", data=source.target)
    inputs = {
        n: InputSpec(m, source.reader.steps(n), BandStats((0.0,) * len(m.bands), (1.0,) * len(m.bands), 1))
        for n, m in MODALITIES.items()
    }
    window = source.windows
    return SampleStore(folder, inputs, (LabelClass("a", 1, "#000000"),), window.fold, window.label, window.side)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(side=st.integers(1, 20), seed=st.integers(0, 50), picked=st.lists(st.integers(0, 29), min_size=1, max_size=20))
def test_a_batch_equals_direct_slicing_of_the_cube(cube: Path, side: int, seed: int, picked: list[int]) -> None:
    source, reader = direct(cube, side, 30, seed), open_reader(cube)
    batch = WindowDataset(source).__getitems__(picked)
    assert source.target is not None
    assert batch.target is not None
    for name in NAMES:
        for place, number in enumerate(picked):
            y, x = source.windows.y[number], source.windows.x[number]
            values, observed = reader.read(name, slice(y, y + side), slice(x, x + side))
            np.testing.assert_array_equal(batch.images[name][place], values)
            np.testing.assert_array_equal(batch.valid[name][place], observed)
    known = source.target[picked].astype(int)
    np.testing.assert_array_equal(batch.target, np.where(known == 255, -1, known))


@pytest.mark.parametrize("backend", ["zarr", "tensorstore"])
def test_every_backend_gives_the_same_windows(cube: Path, backend: str) -> None:
    one = direct(cube, 5)
    two = CubeWindows(one.cube, one.windows, one.names, one.target, backend)  # type: ignore[arg-type]
    index = np.arange(len(one))
    for name, values in gather(one, index).items():
        np.testing.assert_array_equal(values, gather(two, index)[name])


@pytest.mark.parametrize("hold", [True, False])
def test_the_store_gives_what_the_cube_gives(cube: Path, tmp_path: Path, hold: bool) -> None:
    source = direct(cube, 3)
    kept = StoredWindows(stored(tmp_path / "s", source), (1,), NAMES, hold)
    draw = np.random.default_rng(1).permutation(len(source))[:33]
    for name, values in gather(kept, draw).items():
        np.testing.assert_array_equal(values, gather(source, draw)[name])


def changed(batch: Batch, draw: np.random.Generator) -> Batch:
    """An augmentation that leaves a trace of every number it drew."""
    noise = torch.from_numpy(draw.random(len(batch), dtype=np.float32))
    return Batch(
        {n: image + noise.view(-1, 1, 1, 1, 1) for n, image in batch.images.items()}, batch.valid, batch.target
    )


def epochs(source: WindowSource, workers: int) -> Iterator[Batch]:
    loader = make_loader(source, 7, 5, workers, 1, changed)
    loader.order.buffer = 20  # several pools
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        yield from loader


def assert_same(one: Batch, two: Batch) -> None:
    for name in one.images:
        assert torch.equal(one.images[name], two.images[name])
        assert torch.equal(one.valid[name], two.valid[name])
    assert one.target is not None
    assert two.target is not None
    assert torch.equal(one.target, two.target)


@pytest.mark.parametrize("kind", ["cube", "store"])
def test_any_number_of_workers_gives_the_same_batches(cube: Path, tmp_path: Path, kind: str) -> None:
    source: WindowSource = direct(cube, 4, 61)
    if kind == "store":
        assert isinstance(source, CubeWindows)
        source = StoredWindows(stored(tmp_path / "s", source), (1,), NAMES, hold=False)
    first = list(epochs(source, 1))
    assert len(first) == 2 * 9
    for workers in (2, 5):
        for one, two in zip(first, epochs(source, workers), strict=True):
            assert_same(one, two)
    assert not torch.equal(first[0].images["radar"], first[9].images["radar"])  # another epoch, another order


def test_an_epoch_holds_every_window_once(cube: Path) -> None:
    source = direct(cube, 1, 61)
    for seed in (None, 3):
        loader = make_loader(source, 8, seed)
        found = torch.cat([batch.images["radar"] for batch in loader]).flatten(1)
        expected = WindowDataset(source).__getitems__(list(range(61))).images["radar"].flatten(1)
        assert len(loader) == 8
        assert sorted(found.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("kind", ["cube", "store"])
def test_threads_share_a_pool(cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Each of its chunks is read by one of them, and the batch is what one thread makes of it."""
    source: WindowSource = direct(cube, 6, 61)
    if kind == "store":
        assert isinstance(source, CubeWindows)
        source = StoredWindows(stored(tmp_path / "s", source), (1,), NAMES, hold=False)
    one = WindowDataset(source, changed)
    whole = Pool(np.random.default_rng(3).permutation(61), (0, 61), (1, 2))
    expected = one[whole]
    monkeypatch.setattr(dataset_module, "_TASK", 1)
    reading = one.reading(whole, 4)
    assert len(reading.tasks) == 4
    for task in reversed(reading.tasks):
        task()
    assert_same(reading.finish(), expected)
    monkeypatch.setattr(dataset_module, "_TASK", 1 << 40)
    assert len(one.reading(whole, 4).tasks) == 1, "not worth it"
    monkeypatch.setattr(dataset_module, "_window_bytes", lambda _: 1)
    monkeypatch.setattr(dataset_module, "_TASK", source.group_bytes)
    assert len(one.reading(whole, 4).tasks) == 4, "little is taken, but of much that is decoded"


@given(count=st.integers(1, 60), groups=st.integers(1, 9), parts=st.integers(1, 12), seed=st.integers(0, 9))
def test_shares_hold_every_window_once_and_part_no_chunk(count: int, groups: int, parts: int, seed: int) -> None:
    group = np.random.default_rng(seed).integers(0, groups, count)
    shares = dataset_module._shares(group, parts)
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    assert 1 <= len(shares) <= parts
    assert all(share.size for share in shares)
    homes = [set(group[share].tolist()) for share in shares]
    assert len(set().union(*homes)) == sum(map(len, homes))


def in_another_process(loader: WindowLoader) -> list[float]:
    """What each batch of the third epoch adds up to."""
    loader.set_epoch(2)
    return [float(image.sum()) for batch in loader for image in batch.images.values()]


@pytest.mark.parametrize("kind", ["cube", "store", "held"])
def test_a_loader_can_be_sent_to_a_process_that_was_not_forked(cube: Path, tmp_path: Path, kind: str) -> None:
    """Also one that has begun to read: the other process begins anew."""
    source: WindowSource = direct(cube, 4, 61)
    if kind != "cube":
        assert isinstance(source, CubeWindows)
        source = StoredWindows(stored(tmp_path / "s", source), (1,), NAMES, hold=kind == "held")
    section = AugmentSection(flip=True, rotate=True, shift_days=3, drop_steps=0.2, drop_sensor=0.2)
    loader = make_loader(source, 10, 5, 2, augment=make_augment(section, {"radar": STEPS, "terrain": ("",)}))
    loader.begin(0)
    expected = in_another_process(pickle.loads(pickle.dumps(loader)))
    loader.set_epoch(0)
    list(loader)
    if kind == "cube":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            assert process.submit(in_another_process, loader).result() == expected
    assert in_another_process(loader) == expected


def readers() -> set[threading.Thread]:
    """Threads that read."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("windows")}


def test_a_pass_that_is_left_early_ends_its_thread(cube: Path) -> None:
    before = readers()
    loader = make_loader(direct(cube, 2), 4)
    loader.order.buffer = 4
    batches = iter(loader)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not readers() - before


def test_a_fault_of_a_reader_reaches_the_trainer(cube: Path) -> None:
    source = direct(cube, 2)
    beyond = CubeWindows(Path("/nowhere"), source.windows, NAMES, source.target)
    object.__setattr__(beyond, "modalities", MODALITIES)
    object.__setattr__(beyond, "shapes", source.shapes)
    object.__setattr__(beyond, "group", source.group)
    object.__setattr__(beyond, "group_bytes", source.group_bytes)
    with pytest.raises(MdicoError, match=r"^/nowhere: is no cube"):
        list(make_loader(beyond, 4))


class Watched:
    """A source that counts what is read of it."""

    def __init__(self, source: WindowSource) -> None:
        self.source, self.reads = source, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def parts(self, index: Ints) -> Iterator[Part]:
        self.reads += 1
        return self.source.parts(index)


def named(source: WindowSource, workers: int = 2) -> WindowLoader:
    loader = make_loader(source, 10, 5, workers)
    loader.order.buffer = 10  # a pool for each batch
    return loader


def test_the_next_epoch_is_begun_while_one_still_trains(cube: Path) -> None:
    """It is what it would have been, no pool is read twice, and no more are held than within an epoch."""
    source = Watched(direct(cube, 2, 61))
    loader, depth, pools = named(source), 3, 7
    loader.set_epoch(0)
    assert len(list(loader)) == pools
    loader.set_epoch(1)
    fresh = named(direct(cube, 2, 61))
    fresh.set_epoch(1)
    for one, two in zip(fresh, loader, strict=True):
        assert_same(one, two)
    loader._ahead._begun[1].close()  # type: ignore[index]  # joins its threads
    assert 2 * pools < source.reads <= 2 * pools + depth


def test_an_epoch_that_was_not_expected_is_read_all_the_same(cube: Path) -> None:
    loader, fresh = named(direct(cube, 2, 61)), named(direct(cube, 2, 61))
    loader.set_epoch(0)
    list(loader)
    for epoch in (7, 7, 0):
        loader.set_epoch(epoch)
        fresh = named(direct(cube, 2, 61))
        fresh.set_epoch(epoch)
        for one, two in zip(fresh, loader, strict=True):
            assert_same(one, two)


def test_nothing_is_read_ahead_for_nobody(cube: Path) -> None:
    """Without a trainer that names epochs, and in validation, a pass ends with its last batch."""
    before = readers()
    for seed in (5, None):
        source = Watched(direct(cube, 2, 61))
        loader = make_loader(source, 10, seed)
        loader.order.buffer = 10
        if seed is None:
            loader.set_epoch(0)
        list(loader)
        assert source.reads == 7
    assert not readers() - before


def test_the_first_epoch_is_begun_before_it_is_asked_for(cube: Path) -> None:
    source = Watched(direct(cube, 2, 61))
    loader, fresh = named(source), named(direct(cube, 2, 61))
    loader.begin(4)
    deadline = time.monotonic() + 10
    while source.reads < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.reads == 3
    for one in (loader, fresh):
        one.set_epoch(4)
    for one, two in zip(fresh, loader, strict=True):
        assert_same(one, two)
