"""A sharded Zarr array on this disk in, decoded blocks out: one read and one decompression per inner chunk.

zarr-python spends more time per inner chunk on its own steps than on the bytes. The arrays of a cube and of a samples
store have one known form (Zarr v3, sharding_indexed, little-endian bytes, Zstandard or Blosc), so a block of them can
be read with four plain calls: find the shard's index, read the chunk's bytes, decompress them, copy what lies in the
block. Whatever has another form, or lies elsewhere, is left to zarr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc, zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import LocalStore

from mdico_cube.cube.memory import MEMORY
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Backend
from mdico_cube.spec import Array

NOWHERE = np.uint64(2**64 - 1)  # offset of an inner chunk that was never written
_OPEN = 128  # shards whose file and index are held
_TRIES = 3  # a shard that is replaced while it is looked at is opened anew

Stamp = tuple[int, int, int]
"""Inode, time of change and size of a file: another one means that it was written again."""


def _unblosc(raw: bytes, out: Array) -> None:
    """Blosc fills what its header says, which may be less than was asked for."""
    if len(raw) < 16 or int.from_bytes(raw[4:8], "little") != out.nbytes:
        raise ValueError("not the length of an inner chunk")
    blosc.decompress(raw, out)


_DECODERS: dict[type, Callable[[Any, Array], Any]] = {ZstdCodec: zstd.decompress, BloscCodec: _unblosc}
"""Codec -> bytes in, array filled; both without the interpreter's lock."""


class _Shard:
    """An open shard and where its inner chunks lie; the file is closed with the last reference."""

    def __init__(self, path: Path, place: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.place = place
        self.file = os.open(path, os.O_RDONLY)
        facts = os.fstat(self.file)
        self.stamp: Stamp = stamp(facts)
        length = 16 * prod(chunks)
        tail = os.pread(self.file, length, max(0, facts.st_size - length - 4))  # four bytes of checksum follow
        if len(tail) != length:
            raise MdicoError(f"{path}: is no whole shard ({facts.st_size} bytes). Build it again.")
        self.index: npt.NDArray[np.uint64] = np.frombuffer(tail, dtype="<u8").reshape(*chunks, 2)
        """(chunks of the shard ..., 2) offset and length in bytes."""
        if (self.index[self.index[..., 0] != NOWHERE] > facts.st_size).any():
            raise MdicoError(f"{path}: is no whole shard (its index points beyond its end). Build it again.")

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


def stamp(facts: os.stat_result) -> Stamp:
    """What tells one writing of a file from the next."""
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


class ShardReader:
    """Blocks of one sharded array; threads may share it."""

    def __init__(self, array: zarr.Array[Any], folder: Path) -> None:
        self.shape: tuple[int, ...] = array.shape
        self.dtype = np.dtype(array.dtype)
        self.inner: tuple[int, ...] = array.chunks
        """Shape of an inner chunk: what is decompressed at once."""
        shard = array.shards or array.chunks
        self._per_shard = tuple(whole // part for whole, part in zip(shard, self.inner, strict=True))
        self._fill = np.asarray(array.fill_value, dtype=array.dtype)
        self._decode = _DECODERS[type(_inner_codecs(array)[-1])]
        self._folder = folder
        self._files = f"{folder}/c/"
        self._shards: dict[tuple[int, ...], _Shard] = {}

    def read(self, *block: slice) -> Array:
        """The values of a block given by one slice (start, stop) per axis; every inner chunk in it is decoded once.

        A block that lies in one inner chunk is handed out as it was decoded, without a copy: not to be written to.

        Raises:
            MdicoError: a shard is damaged.
        """
        starts, stops = [one.start for one in block], [one.stop for one in block]
        places = list(self._chunks(starts, stops))
        if len(places) == 1:
            first = [number * side for number, side in zip(places[0], self.inner, strict=True)]
            there = tuple(slice(a - at, b - at) for a, b, at in zip(starts, stops, first, strict=True))
            return self._decoded(places[0])[there]
        out = MEMORY.empty(tuple(stop - start for start, stop in zip(starts, stops, strict=True)), self.dtype)
        for place in places:
            first = [number * side for number, side in zip(place, self.inner, strict=True)]
            here = tuple(
                slice(max(begin, at) - begin, min(end, at + side) - begin)
                for begin, end, at, side in zip(starts, stops, first, self.inner, strict=True)
            )
            there = tuple(
                slice(one.start + begin - at, one.stop + begin - at)
                for one, begin, at in zip(here, starts, first, strict=True)
            )
            out[here] = self._decoded(place)[there]
        return out

    def _home(self, place: tuple[int, ...]) -> tuple[_Shard | None, tuple[int, ...]]:
        """The shard that an inner chunk lies in, if it was written, and where in it."""
        home = tuple(at // count for at, count in zip(place, self._per_shard, strict=True))
        return self._shard(home), tuple(at % count for at, count in zip(place, self._per_shard, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens its own files."""
        return {**self.__dict__, "_shards": {}}

    def _chunks(self, starts: Sequence[int], stops: Sequence[int]) -> Iterator[tuple[int, ...]]:
        spans = zip(starts, stops, self.inner, strict=True)
        return product(*(range(start // side, -(-stop // side)) for start, stop, side in spans))

    def _decoded(self, place: tuple[int, ...]) -> Array:
        """One inner chunk, not to be written to; the fill value where it was never written."""
        raw = self._bytes(place)
        if raw is None:
            return np.broadcast_to(self._fill, self.inner)
        found = MEMORY.empty(self.inner, self.dtype)
        try:
            self._decode(raw, found)
        except (RuntimeError, ValueError) as error:
            raise MdicoError(f"{self._folder}: the inner chunk {place} is damaged. Build the cube again.") from error
        found.flags.writeable = False
        return found

    def _bytes(self, place: tuple[int, ...]) -> bytes | None:
        """The compressed bytes of an inner chunk; None where it was never written."""
        for _ in range(_TRIES):
            shard, inside = self._home(place)
            if shard is None:
                return None
            offset, length = shard.index[inside]
            if offset == NOWHERE:
                return None
            found = os.pread(shard.file, int(length), int(offset))
            if len(found) == length:
                return found
            self._shards.pop(shard.place, None)
        raise MdicoError(f"{self._folder}: the inner chunk {place} cannot be read. Build it again.")

    def _shard(self, place: tuple[int, ...]) -> _Shard | None:
        path = self._files + "/".join(map(str, place))
        try:
            facts = os.stat(path)  # noqa: PTH116  # a Path costs as much as a small chunk
            held = self._shards.get(place)
            if held is None or held.stamp != stamp(facts):
                held = _Shard(Path(path), place, self._per_shard)
        except FileNotFoundError:
            return None
        self._shards[place] = held
        if len(self._shards) > _OPEN:
            self._shards.pop(next(iter(self._shards)), None)
        return held


def shard_reader(array: zarr.Array[Any]) -> ShardReader | None:
    """A reader of this array, or None where its form or place is not the one this file knows."""
    store, facts = array.store_path.store, array.metadata
    if not isinstance(store, LocalStore) or not isinstance(facts, ArrayV3Metadata) or sys.byteorder != "little":
        return None
    if facts.chunk_key_encoding != DefaultChunkKeyEncoding(separator="/"):
        return None
    codecs = _inner_codecs(array)
    if len(codecs) != 2 or not isinstance(codecs[0], BytesCodec) or type(codecs[1]) not in _DECODERS:
        return None
    return ShardReader(array, Path(store.root) / array.path)


def _inner_codecs(array: zarr.Array[Any]) -> tuple[Any, ...]:
    """What inner chunks went through; nothing where there are none, or where their index has an odd form."""
    facts = array.metadata
    (codec, *more) = facts.codecs if isinstance(facts, ArrayV3Metadata) else (None,)
    if more or not isinstance(codec, ShardingCodec) or str(codec.index_location).rsplit(".", 1)[-1] != "end":
        return ()
    if [type(each) for each in codec.index_codecs] != [BytesCodec, Crc32cCodec]:
        return ()
    return codec.codecs


class BlockReader:
    """Rows and columns of an array (..., y, x) to its stored values (..., h, w); threads may share it."""

    def __init__(self, array: zarr.Array[Any], backend: Backend = "auto") -> None:
        """`backend` auto decodes known forms itself and leaves the others to zarr; every one gives the same values.

        Raises:
            MdicoError: tensorstore is asked for and not installed, or cannot read the array.
        """
        self._array = array
        self._lead = [slice(0, count) for count in array.shape[:-2]]
        self._shards = shard_reader(array) if backend == "auto" else None
        self._opened = _tensorstore(array) if backend == "tensorstore" else None

    def __call__(self, y: slice, x: slice) -> Array:
        """The values of a block; open ends are the array's own."""
        rows, columns = self._within(y, x)
        if self._shards is not None:
            return self._shards.read(*self._lead, rows, columns)
        if self._opened is not None:
            return np.asarray(self._opened[..., rows, columns].read().result())
        return np.asarray(self._array[..., rows, columns])

    def _within(self, y: slice, x: slice) -> tuple[slice, slice]:
        rows, columns = self._array.shape[-2:]
        return slice(*y.indices(rows)[:2]), slice(*x.indices(columns)[:2])


def _tensorstore(array: zarr.Array[Any]) -> Any:
    store = array.store_path.store
    if find_spec("tensorstore") is None:
        raise MdicoError(
            "samples.backend is tensorstore, which is not installed: pip install 'mdico-cube[fast-read]', or use auto."
        )
    if not isinstance(store, LocalStore):
        raise MdicoError("samples.backend tensorstore reads cubes on a disk of this machine. Use auto or zarr.")
    library = import_module("tensorstore")
    place = {"driver": "file", "path": f"{Path(store.root) / array.path}/"}
    return library.open({"driver": "zarr3", "kvstore": place}, open=True, read=True).result()
