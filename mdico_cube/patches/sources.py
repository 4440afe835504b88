"""A samples store or a cube in, the stored values of any windows out: every chunk is decoded once per request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Protocol

import numpy as np

from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.shards import ShardReader, shard_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.coarsen import coarsened
from mdico_cube.patches.samples import SampleStore
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.windows import Windows
from mdico_cube.recipe import Backend
from mdico_cube.spec import Array, Modality

HELD = 1 << 30
"""Samples stores up to so many bytes are held in memory, as they are stored."""
_SMALL = 8  # sides below this are cut out all at once, larger ones window by window

Part = tuple[Ints, dict[str, Array]]
"""(n,) places in the request, and stored values (n, T, C, h, w) of each modality there."""


@dataclass(frozen=True, slots=True)
class Group:
    """Windows that lie in the same chunks of the cube, so that each chunk is decoded once."""

    index: Ints
    """Which windows."""
    y: slice
    x: slice
    """Block of the cube that holds them all."""


class WindowSource(Protocol):
    """Where stored windows come from."""

    @property
    def modalities(self) -> dict[str, Modality]:
        """What each window holds."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """(T, C, h, w) of each modality."""

    @property
    def group(self) -> Ints:
        """(N,) number of the chunk each window is read with."""

    @property
    def group_bytes(self) -> int:
        """Bytes that are decoded to read the windows of one such number; 0 where nothing is."""

    @property
    def target(self) -> Array | None:
        """(N, h, w) stored class index, 255 = unlabelled, or float32 values, NaN = unlabelled."""

    def __len__(self) -> int:
        """How many windows there are."""

    def parts(self, index: Ints) -> Iterator[Part]:
        """These windows, chunk by chunk: every place of the request in exactly one part."""


class StoredWindows:
    """Windows of a samples store: held in memory where they are few, else read chunk by chunk."""

    def __init__(
        self, store: SampleStore, folds: Sequence[int], modalities: Sequence[str], hold: bool | None = None
    ) -> None:
        if not store.pixels:
            raise MdicoError(
                f"{store.path}: holds no pixels, they stay in the cube. Train with loader.source: cube, or cut them "
                "with loader.source: store and `mdico sample --resume`."
            )
        self._rows = store.where(*folds)
        self.modalities = {name: store.inputs[name].modality for name in modalities}
        self._arrays = {name: store.array(name) for name in modalities}
        self.shapes = {name: tuple(array.shape[1:]) for name, array in self._arrays.items()}
        self.target: Array | None = store.target(self._rows)
        self._row_bytes = sum(prod(self.shapes[n]) * array.dtype.itemsize for n, array in self._arrays.items())
        self._per_chunk = min((array.chunks[0] for array in self._arrays.values()), default=1)
        self._readers: dict[str, ShardReader | None] = {n: shard_reader(array) for n, array in self._arrays.items()}
        self._held: dict[str, Array] | None = None
        if self._row_bytes * len(self._rows) <= HELD if hold is None else hold:
            self._held = self._read_all()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def group(self) -> Ints:
        """See WindowSource; windows in memory are shuffled freely."""
        return np.arange(len(self)) if self._held is not None else self._rows // self._per_chunk

    @property
    def group_bytes(self) -> int:
        """See WindowSource."""
        return 0 if self._held is not None else self._row_bytes * self._per_chunk

    def parts(self, index: Ints) -> Iterator[Part]:
        """See WindowSource."""
        if self._held is not None:
            yield np.arange(len(index)), {name: values[index] for name, values in self._held.items()}
            return
        rows = self._rows[index]
        for run in _runs(rows // self._per_chunk):
            places = run[np.argsort(rows[run], kind="stable")]
            wanted = rows[places]
            span = slice(int(wanted[0]), int(wanted[-1]) + 1)
            read = {name: self._read(name, span) for name in self._arrays}
            unbroken = span.stop - span.start == len(wanted) == len(np.unique(wanted))
            yield places, read if unbroken else {name: values[wanted - span.start] for name, values in read.items()}

    def _read(self, name: str, rows: slice) -> Array:
        reader = self._readers[name]
        if reader is None:
            return np.asarray(self._arrays[name][rows])
        return reader.read(rows, *(slice(0, side) for side in self.shapes[name]))

    def _read_all(self) -> dict[str, Array]:
        held = {n: np.empty((len(self), *self.shapes[n]), array.dtype) for n, array in self._arrays.items()}
        for places, values in self.parts(np.arange(len(self))):
            for name, stored in values.items():
                held[name][places] = stored
        return held


@dataclass(frozen=True)
class CubeWindows:
    """Windows read from the cube when they are needed."""

    cube: Location
    windows: Windows
    names: tuple[str, ...]
    """Modalities."""
    target: Array | None = None
    """(N, side, side) stored class index, 255 = unlabelled, or float32 values, NaN = unlabelled."""
    backend: Backend = "auto"
    coarsen: dict[str, int] = field(default_factory=dict)
    """Modality -> side of the squares of pixels that become one; 1 where it is not named."""

    @property
    def reader(self) -> CubeReader:
        """The cube, opened once per process."""
        return open_reader(self.cube, self.backend)

    @cached_property
    def modalities(self) -> dict[str, Modality]:
        """See WindowSource."""
        return {name: self.reader.modalities[name] for name in self.names}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See WindowSource."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, modality in self.modalities.items():
            side = self.windows.side // self.coarsen.get(name, 1)
            shapes[name] = (len(self.reader.steps(name)), len(modality.bands), side, side)
        return shapes

    @cached_property
    def group(self) -> Ints:
        """See WindowSource."""
        return chunk_numbers(self.windows, self.reader.chunk)

    @cached_property
    def group_bytes(self) -> int:
        """See WindowSource; what a coarse modality is interpolated from is not counted."""
        plain = [m for m in self.modalities.values() if not m.coarse]
        pixel = sum(len(self.reader.steps(m.name)) * len(m.bands) * np.dtype(m.storage.dtype).itemsize for m in plain)
        return pixel * _group_side(self.windows, self.reader.chunk) ** 2

    def __len__(self) -> int:
        return len(self.windows)

    def parts(self, index: Ints) -> Iterator[Part]:
        """See WindowSource."""
        chosen, reader = self.windows.take(index), self.reader
        for group in group_windows(chosen, reader.chunk):
            if chosen.side >= _SMALL and not _overlapping(chosen, group, reader.chunk):
                yield from self._one_by_one(reader, chosen, group)
                continue
            y, x = chosen.y[group.index] - group.y.start, chosen.x[group.index] - group.x.start
            blocks = {name: reader.stored(name, group.y, group.x) for name in self.names}  # (T, C, h, w) each
            if chosen.side < _SMALL:
                yield group.index, {n: self._thin(n, cut(block, y, x, chosen.side)) for n, block in blocks.items()}
                continue
            for place, row, column in zip(group.index, y, x, strict=True):
                here = slice(row, row + chosen.side), slice(column, column + chosen.side)
                parts = {name: self._thin(name, block[None, :, :, *here]) for name, block in blocks.items()}
                yield np.array([place]), parts

    def _one_by_one(self, reader: CubeReader, chosen: Windows, group: Group) -> Iterator[Part]:
        """Windows that share no chunk, each read by itself."""
        for place in group.index:
            y, x = int(chosen.y[place]), int(chosen.x[place])
            block = slice(y, y + chosen.side), slice(x, x + chosen.side)
            values = {name: self._thin(name, reader.stored(name, *block)[None]) for name in self.names}
            yield np.array([place]), values

    def _thin(self, name: str, stored: Array) -> Array:
        return coarsened(self.modalities[name], stored, self.coarsen.get(name, 1))


def window_source(
    store: SampleStore,
    folds: Sequence[int],
    modalities: Sequence[str],
    cube: Location | None = None,
    backend: Backend = "auto",
    hold: bool | None = None,
) -> StoredWindows | CubeWindows:
    """The samples of some folds: from the samples store, or from the cube where it is named.

    Raises:
        MdicoError: the store holds no pixels and no cube is named.
    """
    if cube is None:
        return StoredWindows(store, folds, modalities, hold)
    rows = store.where(*folds)
    return CubeWindows(cube, store.windows(rows), tuple(modalities), store.target(rows), backend, store.coarsen)


def cut(block: Array, y: Ints, x: Ints, side: int) -> Array:
    """Windows (N, T, C, side, side) at rows y and columns x of a block (T, C, h, w)."""
    if side == 1:
        return _pixels(block, y, x)
    rows = y[:, None, None] + np.arange(side)[None, :, None]
    columns = x[:, None, None] + np.arange(side)[None, None, :]
    return np.moveaxis(block[:, :, rows, columns], 2, 0)


def _pixels(block: Array, y: Ints, x: Ints) -> Array:
    """Series (N, T, C, 1, 1) of pixels of a block (T, C, h, w): the fast way, plane by plane."""
    steps, bands, height, width = block.shape
    planes, place = block.reshape(steps * bands, height * width), y * width + x
    many = 4 * len(place) > height * width
    chosen = planes if many else np.take(planes, place, axis=1)  # (T*C, N)
    series = np.empty(chosen.shape[::-1], dtype=block.dtype)
    for number, plane in enumerate(chosen):
        series[:, number] = plane
    found = np.take(series, place, axis=0) if many else series
    return found.reshape(len(place), steps, bands, 1, 1)


def _overlapping(windows: Windows, group: Group, chunk: int) -> bool:
    """True where reading the whole block decodes fewer chunks than reading each window by itself."""
    y, x = windows.y[group.index], windows.x[group.index]
    last = windows.side - 1
    alone = (((y + last) // chunk - y // chunk + 1) * ((x + last) // chunk - x // chunk + 1)).sum()
    block = [(span.stop - 1) // chunk - span.start // chunk + 1 for span in (group.y, group.x)]
    return bool(block[0] * block[1] < alone)


def gather(source: WindowSource, index: Ints) -> dict[str, Array]:
    """Stored values (N, T, C, h, w) of these windows, in order."""
    out: dict[str, Array] = {}
    for places, values in source.parts(index):
        for name, stored in values.items():
            if name not in out:
                out[name] = np.empty((len(index), *stored.shape[1:]), dtype=stored.dtype)
            out[name][places] = stored
    return out


def chunk_numbers(windows: Windows, chunk: int) -> Ints:
    """(N,) one number for all windows that begin in the same chunk, or, if they are large, in the same few chunks."""
    side = _group_side(windows, chunk)
    return (windows.y // side) * (1 << 32) + windows.x // side


def _group_side(windows: Windows, chunk: int) -> int:
    return max(chunk, 2 * windows.side if windows.side > 1 else 1)


def group_windows(windows: Windows, chunk: int) -> list[Group]:
    """Windows by the chunk that holds their first pixel, with the block of the cube that covers each group."""
    groups = []
    for index in _runs(chunk_numbers(windows, chunk)):
        y, x = windows.y[index], windows.x[index]
        rows = slice(int(y.min()), int(y.max()) + windows.side)
        groups.append(Group(index, rows, slice(int(x.min()), int(x.max()) + windows.side)))
    return groups


def _runs(key: Ints) -> list[Ints]:
    """Positions of equal keys, key by key in ascending order."""
    if key.size == 0:
        return []
    order = np.argsort(key, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
