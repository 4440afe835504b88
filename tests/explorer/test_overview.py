"""Overviews are the means of what was observed; they stand beside the cube, whole, and follow the shards."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from odc.geo.geobox import GeoBox

import mdico_cube as mdico
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import forget_readers
from mdico_cube.cube.store import create_cube
from mdico_cube.explorer.layers import layers_of
from mdico_cube.explorer.overview import Maker, MissingBlockError, Overview
from mdico_cube.explorer.pyramid import levels
from mdico_cube.explorer.sensor_layers import SensorLayer
from mdico_cube.explorer.shrink import FACTOR, mean_of, nearest_of
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1

SHAPE = (2070, 2100)
SHARD = 64
STEPS = ("2021-05-01", "2021-06-01")


def write(path: Path, row: int, column: int, digest: str, seed: int) -> np.ndarray:
    """One shard (T, C, h, w) of decibels, with gaps."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-25, -5, (2, 2, SHARD, SHARD))
    values[:, :, :20, :20] = np.nan
    stored = SENTINEL1.storage.pack(values)
    array = zarr.open_group(path, mode="r+")["sentinel1/backscatter"]
    y, x = slice(row * SHARD, (row + 1) * SHARD), slice(column * SHARD, (column + 1) * SHARD)
    stored = stored[:, :, : min(SHARD, SHAPE[0] - y.start), : min(SHARD, SHAPE[1] - x.start)]
    array[:, :, y, x] = stored
    Ledger(path, "sentinel1", "r+").record(row, column, Entry(DONE, digest=digest * 64))
    return stored


@pytest.fixture
def cube(tmp_path: Path, grid: GeoBox) -> Path:
    """Three shards of a large cube stand, one of them at its lower right edge."""
    path = tmp_path / "cube.zarr"
    shards = (-(-SHAPE[0] // SHARD), -(-SHAPE[1] // SHARD))
    create_cube(path, GeoBox(SHAPE, grid.affine, grid.crs), [Layer(SENTINEL1, STEPS)], 16, SHARD, {}, shards)
    write(path, 0, 0, "a", 1)
    write(path, 9, 10, "b", 2)
    write(path, 32, 32, "c", 3)
    return path


def opened(path: Path) -> tuple[SensorLayer, Maker]:
    forget_readers()
    maker = Maker()
    layer = layers_of(mdico.open_reader(path), [], maker)["sentinel1"]
    assert isinstance(layer, SensorLayer)
    return layer, maker


def overview_of(layer: SensorLayer) -> Overview:
    assert layer.far is not None
    return layer.far.overview


def reference(stored: np.ndarray) -> np.ndarray:
    """Means of what was observed in 8 x 8 pixels, decibels as power, in plain loops."""
    steps, bands, height, width = stored.shape
    out = np.full((steps, bands, -(-height // 8), -(-width // 8)), np.nan)
    for at in np.ndindex(out.shape):
        y, x = slice(8 * at[2], 8 * at[2] + 8), slice(8 * at[3], 8 * at[3] + 8)
        part = stored[at[0], at[1], y, x]
        known = part[part != SENTINEL1.storage.missing] * SENTINEL1.storage.scale
        if known.size:
            out[at] = 10 * np.log10(np.mean(10 ** (known / 10)))
    return out


def physical(stored: np.ndarray) -> np.ndarray:
    return np.where(stored == SENTINEL1.storage.missing, np.nan, stored * SENTINEL1.storage.scale)


def test_a_block_is_the_mean_of_what_was_observed() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-25, -5, (2, 2, 19, 24))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, :, :8, :8] = np.nan
    stored = SENTINEL1.storage.pack(values)
    assert np.allclose(physical(mean_of(SENTINEL1, stored)), reference(stored), atol=0.006, equal_nan=True)
    assert np.array_equal(nearest_of(stored), stored[..., ::8, ::8])


def test_far_tiles_are_cut_from_the_overviews(cube: Path) -> None:
    layer, _ = opened(cube)
    overview, place = overview_of(layer), (-levels(SHAPE), 0, 0)
    assert levels(SHAPE) == 4
    with pytest.raises(MissingBlockError):
        overview.tile(place, 1)
    assert overview.missing(place) == [(1, 0, 0), (1, 9, 10), (1, 32, 32)]
    for block in overview.missing(place):
        overview.make(block)
    assert overview.missing(place) == []
    tile = overview.tile(place, 1)
    assert tile is not None
    side, step = SHARD // FACTOR, 2
    whole = np.full((2, -(-SHAPE[0] // 8), -(-SHAPE[1] // 8)), np.nan)
    reader = layer.reader
    for row, column in ((0, 0), (9, 10), (32, 32)):
        y, x = (slice(at * SHARD, min((at + 1) * SHARD, end)) for at, end in zip((row, column), SHAPE, strict=True))
        part = reference(reader.stored("sentinel1", y, x))[1]
        whole[:, row * side :, column * side :][:, : part.shape[1], : part.shape[2]] = part
    assert np.allclose(physical(tile), whole[:, ::step, ::step], atol=0.006, equal_nan=True)


def test_the_next_level_is_made_of_the_one_before(cube: Path) -> None:
    layer, _ = opened(cube)
    overview = overview_of(layer)
    overview.levels = 2  # as of a cube of 16,384 pixels
    overview.make((2, 0, 0))
    below = overview._gathered(1, slice(0, 64), slice(0, 64), None)
    assert np.array_equal(overview._gathered(2, slice(0, 8), slice(0, 8), None), mean_of(SENTINEL1, below))


def test_nothing_is_read_from_the_cube_once_they_stand(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, maker = opened(cube)
    layer.limits("one:vv")
    place = (-levels(SHAPE), 0, 0)
    rough = layer.image(place, "one:vv", 0)
    assert rough is not None, "a rough picture until they stand"
    assert maker.wait(30)
    monkeypatch.setattr(layer.reader, "stored", lambda *_: pytest.fail("the cube was read"))
    fine = layer.image(place, "one:vv", 0)
    assert fine is not None
    assert fine.shape == rough.shape
    assert (fine != rough).any()


def test_they_stand_beside_the_cube_and_follow_its_shards(cube: Path) -> None:
    before = {path for path in cube.rglob("*") if path.is_file()}
    overview = overview_of(opened(cube)[0])
    overview.make((1, 0, 0))
    folder = cube.parent / ".cube.zarr.overviews" / "sentinel1" / "1"
    (old,) = folder.iterdir()
    assert {path for path in cube.rglob("*") if path.is_file()} == before
    stored = write(cube, 0, 0, "d", 7)
    overview = overview_of(opened(cube)[0])
    assert (1, 0, 0) in overview.missing((-4, 0, 0))
    overview.make((1, 0, 0))
    (new,) = folder.iterdir()
    assert new != old
    assert np.allclose(physical(np.load(new)), reference(stored), atol=0.006, equal_nan=True)


def test_a_damaged_file_is_made_again(cube: Path) -> None:
    overview = overview_of(opened(cube)[0])
    for block in overview.missing((-4, 0, 0)):
        overview.make(block)
    (path,) = (cube.parent / ".cube.zarr.overviews" / "sentinel1" / "1").glob("9-10-*")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MissingBlockError):
        overview.tile((-4, 0, 0), 0)
    assert overview.missing((-4, 0, 0)) == [(1, 9, 10)]


def test_a_stop_leaves_no_half_written_file(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overview = overview_of(opened(cube)[0])

    def full(file: object, pixels: np.ndarray, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        overview.make((1, 0, 0))
    assert [path for path in cube.parent.rglob("*") if ".overviews/" in str(path) and path.is_file()] == []


def test_where_nothing_can_be_kept_far_views_stay_rough(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cube.parent / ".cube.zarr.overviews").write_text("in the way")
    layer, maker = opened(cube)
    assert layer.image((-4, 0, 0), "one:vv", 0) is not None
    assert maker.wait(30)
    assert layer.image((-4, 0, 0), "one:vv", 1) is not None
    assert maker.left == 0, "nobody asks again"


def test_the_maker_makes_what_was_asked_last_first(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, maker = opened(cube)
    overview, made, begun, go = overview_of(layer), [], threading.Event(), threading.Event()

    def make(block: tuple[int, int, int]) -> None:
        begun.set()
        go.wait(30)
        made.append(block)

    monkeypatch.setattr(overview, "make", make)
    maker.ask(overview, [(1, 0, 0)])
    assert begun.wait(30)
    maker.ask(overview, [(1, 9, 10), (1, 32, 32)])
    go.set()
    assert maker.wait(30)
    assert made == [(1, 0, 0), (1, 32, 32), (1, 9, 10)]
