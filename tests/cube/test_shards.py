"""Every way to read a block gives the bytes zarr gives, also while shards come and go."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

from mdico_cube.cube.shards import BlockReader, shard_reader
from mdico_cube.errors import MdicoError

BACKENDS = ("auto", "zarr", "tensorstore")


def write(path: Path, shape: tuple[int, ...] = (2, 3, 20, 30), written: slice = slice(None), **options: Any) -> Any:
    root = zarr.open_group(path, mode="w", zarr_format=3)
    facts = {"chunks": (1, 3, 4, 4), "shards": (2, 3, 8, 8), "compressors": [ZstdCodec(level=1)], **options}
    array = root.create_array("a", shape=shape, dtype="uint16", fill_value=9, **facts)
    values = np.random.default_rng(0).integers(0, 50, shape).astype("uint16")
    array[..., written, :] = values[..., written, :]
    return zarr.open_group(path, mode="r")["a"]


@settings(max_examples=20)
@given(data=st.data())
def test_every_backend_gives_the_same_values(data: st.DataObject) -> None:
    chunk = tuple(data.draw(st.integers(1, 5)) for _ in range(4))
    shard = tuple(side * data.draw(st.integers(1, 3)) for side in chunk)
    shape = tuple(data.draw(st.integers(1, 12)) for _ in range(4))
    codec = data.draw(st.sampled_from([ZstdCodec(level=1), BloscCodec(cname="lz4"), BloscCodec(cname="zstd")]))
    with tempfile.TemporaryDirectory() as folder:
        rows = data.draw(st.integers(0, shape[2]))
        array = write(Path(folder), shape, slice(0, rows), chunks=chunk, shards=shard, compressors=[codec])
        reader = shard_reader(array)
        assert reader is not None
        for _ in range(4):
            block = []
            for side in shape:
                start = data.draw(st.integers(0, side))
                block.append(slice(start, data.draw(st.integers(start, side))))
            np.testing.assert_array_equal(reader.read(*block), array[tuple(block)])
            y, x = block[2:]
            for backend in BACKENDS:
                np.testing.assert_array_equal(BlockReader(array, backend)(y, x), array[..., y, x])


def test_open_ends_are_the_array_s_own(tmp_path: Path) -> None:
    array = write(tmp_path)
    for backend in BACKENDS:
        np.testing.assert_array_equal(BlockReader(array, backend)(slice(3, None), slice(None, 99)), array[..., 3:, :])


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": [GzipCodec()]},
        {"compressors": None},
        {"shards": None},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
)
def test_other_forms_are_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    array = write(tmp_path, **options)
    assert shard_reader(array) is None
    np.testing.assert_array_equal(BlockReader(array)(slice(1, 9), slice(2, 17)), array[..., 1:9, 2:17])


def test_an_array_elsewhere_is_left_to_zarr() -> None:
    array = zarr.create_array(MemoryStore(), shape=(2, 8, 8), chunks=(2, 4, 4), shards=(2, 8, 8), dtype="int16")
    array[:] = 7
    assert shard_reader(array) is None
    assert (BlockReader(array)(slice(0, 3), slice(0, 8)) == 7).all()
    with pytest.raises(MdicoError, match="disk of this machine"):
        BlockReader(array, "tensorstore")


def test_a_shard_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    reader = shard_reader(write(tmp_path))
    assert reader is not None
    block = (slice(0, 2), slice(0, 3), slice(2, 14), slice(2, 14))
    reader.read(*block)
    array = zarr.open_group(tmp_path, mode="r+")["a"]
    assert isinstance(array, zarr.Array)
    array[..., 0:16, 0:16] = 4321
    assert (reader.read(*block) == 4321).all()
    (tmp_path / "a" / "c" / "0" / "0" / "0" / "0").unlink()
    assert (reader.read(*block)[..., :6, :6] == 9).all()


def test_threads_share_a_reader(tmp_path: Path) -> None:
    array = write(tmp_path, (2, 3, 64, 64))
    reader = shard_reader(array)
    assert reader is not None
    whole = array[:]

    def right(corner: int) -> bool:
        y, x = slice(corner, corner + 11), slice(49 - corner, 60 - corner)
        return bool((reader.read(slice(0, 2), slice(0, 3), y, x) == whole[..., y, x]).all())

    with ThreadPoolExecutor(8) as crew:
        assert all(crew.map(right, [*range(40)] * 10))


@pytest.mark.parametrize("codec", [ZstdCodec(), BloscCodec(cname="lz4")])
@pytest.mark.parametrize("fault", ["cut", "garbled"])
def test_a_damaged_shard_is_named(tmp_path: Path, fault: str, codec: Any) -> None:
    array = write(tmp_path, compressors=[codec])
    path = tmp_path / "a" / "c" / "0" / "0" / "0" / "0"
    data = path.read_bytes()
    path.write_bytes(data[:10] if fault == "cut" else bytes(len(data) - 200) + data[-200:])
    reader = shard_reader(array)
    assert reader is not None
    with pytest.raises(MdicoError, match="again"):
        reader.read(slice(0, 2), slice(0, 3), slice(0, 8), slice(0, 8))


def test_without_tensorstore_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.cube.shards.find_spec", lambda name: None)
    with pytest.raises(MdicoError, match="fast-read"):
        BlockReader(write(tmp_path), "tensorstore")
