"""A recipe and a disk in, what a few layouts of the cube reach there out: writing, random patches, pixel series."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from zarr.core.sync import sync

from mdico_cube.cube.block import write_shards
from mdico_cube.cube.change import writing
from mdico_cube.cube.packing import LEVELS, packer
from mdico_cube.cube.shards import BlockReader
from mdico_cube.cube.target import Location, beside, cube_location, open_group, open_store
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Codec, Recipe
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.spec import Array, Modality

Choice = tuple[int, int, Codec, int]
"""Chunk, shard, codec and its level."""
LAYOUTS: tuple[Choice, ...] = (
    (32, 512, "lz4", 9),
    (64, 256, "lz4", 9),
    (64, 512, "lz4", 9),
    (64, 512, "lz4", 5),
    (64, 512, "zstd", 1),
    (64, 512, "zstd", 3),
    (64, 1024, "lz4", 9),
    (128, 512, "lz4", 9),
)
"""What is tried beside the recipe's own."""
_SMALLER = 1.1  # a layout may take this much more room than the smallest and still be advised


@dataclass(frozen=True, slots=True)
class Layout:
    """How one array lies in its store."""

    chunk: int
    shard: int
    codec: Codec
    level: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one layout reached: medians of interleaved rounds."""

    layout: Layout
    write: float
    """Megabytes of values written per second, before compression."""
    patches: float
    """Random windows read per second, every time step and band."""
    series: float
    """Random single pixels read per second, every time step and band."""
    ratio: float
    """Bytes of values per byte stored."""
    objects: int
    """Files, or objects."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Layouts side by side on one store."""

    place: str
    modality: str
    """Whose time steps, bands and type were used."""
    patch: int
    """Side of the windows in pixels."""
    megabytes: float
    """Values written per layout."""
    rows: tuple[Measured, ...]
    advice: Layout

    def lines(self) -> str:
        """The advice as lines of a recipe."""
        return "store:\n" + "".join(f"  {key}: {value}\n" for key, value in asdict(self.advice).items())


def tune_layout(
    recipe: Recipe,
    megabytes: float = 96,
    layouts: Iterable[Choice] = LAYOUTS,
    rounds: int = 3,
    seconds: float = 1,
) -> Tuning:
    """Measure layouts on the store where the recipe's cube is to lie, with values of its largest modality's shape.

    Arrays of about `megabytes` each are written beside the cube's place and removed again. On a disk of this machine
    files are dropped from the memory cache before they are read, as far as the system does so.

    Args:
        recipe: where the cube lies, its modalities, steps, and the windows' side.
        megabytes: values per layout.
        layouts: (chunk, shard, codec, level) to try beside the recipe's own.
        rounds: how often each is measured, by turns.
        seconds: that one measurement of reading lasts.

    Raises:
        MdicoError: the place cannot be written, or no layout fits the windows.
    """
    place, patch = cube_location(recipe), max(1, recipe.samples.patch)
    modality, steps = _largest(recipe)
    store = recipe.store
    own: Choice = (store.chunk, store.shard, store.codec, store.level or LEVELS[store.codec])
    wanted = [Layout(*one) for one in dict.fromkeys((own, *layouts)) if one[1] % one[0] == 0]
    lead = (steps, len(modality.bands))
    bytes_per_pixel = int(np.prod(lead)) * np.dtype(modality.storage.dtype).itemsize
    wanted = [one for one in wanted if one.shard**2 * bytes_per_pixel <= 2e6 * megabytes or one == wanted[0]]
    side = max(one.shard for one in wanted)
    side *= max(1, round((megabytes * 1e6 / bytes_per_pixel) ** 0.5 / side))
    values = likely_values((*lead, side, side), modality)
    work = beside(place, f"tune-{uuid4().hex[:8]}")
    try:
        with writing(work):
            return _tune(work, place, modality, values, wanted, patch, rounds, seconds)
    finally:
        _remove(work)


def _tune(
    work: Location,
    place: Location,
    modality: Modality,
    values: Array,
    wanted: Sequence[Layout],
    patch: int,
    rounds: int,
    seconds: float,
) -> Tuning:
    tries = [
        Try(work, f"{one.chunk}-{one.shard}-{one.codec}-{one.level}", values.shape, values.dtype, one) for one in wanted
    ]
    took: dict[str, list[list[float]]] = {kind: [[] for _ in tries] for kind in ("write", "patches", "series")}
    for _ in range(rounds):
        for found, one in zip(took["write"], tries, strict=True):
            found.append(values.nbytes / 1e6 / one.write(values))
    for turn in range(rounds):
        for kind, side in (("patches", patch), ("series", 1)):
            for found, one in zip(took[kind], tries, strict=True):
                found.append(one.read(side, turn, seconds))
    rows = tuple(
        Measured(
            one.layout,
            median(took["write"][i]),
            median(took["patches"][i]),
            median(took["series"][i]),
            values.nbytes / one.stored(),
            one.objects(),
        )
        for i, one in enumerate(tries)
    )
    return Tuning(str(place), modality.name, patch, values.nbytes / 1e6, rows, advise(rows))


def advise(rows: Sequence[Measured]) -> Layout:
    """The layout to choose: the one that reads most windows per second, and is no burden otherwise.

    It writes at least half as fast as the fastest and takes at most a tenth more room than the smallest; where none
    does both, all are in the race.

    Raises:
        MdicoError: nothing was measured.
    """
    if not rows:
        raise MdicoError("tune-layout: there is no layout to measure. Give shards that are multiples of their chunks.")
    fastest, smallest = max(row.write for row in rows), max(row.ratio for row in rows)
    fair = [row for row in rows if row.write >= fastest / 2 and row.ratio * _SMALLER >= smallest]
    return max(fair or rows, key=lambda row: row.patches).layout


class Try:
    """One array in one layout, written and read again and again."""

    def __init__(self, place: Location, name: str, shape: tuple[int, ...], dtype: Any, layout: Layout) -> None:
        self.layout, self._place, self._name = layout, place, name
        chunk, shard = (min(side, shape[-1]) for side in (layout.chunk, layout.shard))
        self.array: zarr.Array[Any] = open_group(place, "a").create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(*shape[:-2], chunk, chunk),
            shards=(*shape[:-2], shard, shard),
            compressors=[packer(layout.codec, layout.level)],
            fill_value=0,
        )

    def write(self, values: Array) -> float:
        """Write every shard; seconds."""
        side = self.array.shards[-1] if self.array.shards else self.array.chunks[-1]
        start = time.perf_counter()
        for y in range(0, values.shape[-2], side):
            for x in range(0, values.shape[-1], side):
                block = slice(y, min(y + side, values.shape[-2])), slice(x, min(x + side, values.shape[-1]))
                write_shards(self.array, *block, np.ascontiguousarray(values[..., block[0], block[1]]))
        if isinstance(self._place, Path):
            _through(self._place / self._name, os.fsync)
        return time.perf_counter() - start

    def read(self, side: int, seed: int, seconds: float) -> float:
        """Random windows of this side per second, with the reader that training uses, from the disk."""
        if isinstance(self._place, Path):
            _through(self._place / self._name, _drop)
        reader, rng = BlockReader(self.array), np.random.default_rng(seed)
        room = self.array.shape[-1] - side
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds or count < 1:
            y, x = (int(at) for at in rng.integers(0, room + 1, 2))
            reader(slice(y, y + side), slice(x, x + side))
            count += 1
        return count / spent

    def stored(self) -> int:
        """Bytes it takes."""
        return sync(self.array.store_path.store.getsize_prefix(self.array.store_path.path))

    def objects(self) -> int:
        """Files or objects it takes."""
        return self.array.nchunks_initialized if self.array.shards is None else int(_shards(self.array))


def _shards(array: zarr.Array[Any]) -> int:
    assert array.shards is not None
    return int(np.prod([-(-size // side) for size, side in zip(array.shape, array.shards, strict=True)]))


def _through(folder: Path, do: Callable[[int], object]) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                do(file)
            finally:
                os.close(file)


def _drop(file: int) -> None:
    """Forget what the memory cache holds of a file, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _remove(work: Location) -> None:
    with contextlib.suppress(OSError, MdicoError):
        sync(open_store(work, "r+").clear())
        if isinstance(work, Path):
            work.rmdir()


def _largest(recipe: Recipe) -> tuple[Modality, int]:
    """The modality on the grid with the most bytes per pixel, and its time steps."""
    steps = len(recipe.period.period.steps())
    found = []
    for name, section in recipe.modalities.items():
        sensor = get_sensor(name)
        modality = sensor.modality.select(section.bands or sensor.defaults)
        count = steps if modality.temporal else 1
        if not modality.coarse:
            size = count * len(modality.bands) * np.dtype(modality.storage.dtype).itemsize
            found.append((size, name, modality, count))
    if not found:
        raise MdicoError("tune-layout: the recipe has no modality on the grid of pixels. Add one.")
    _, _, modality, count = max(found, key=lambda one: one[:2])
    return modality, count


def likely_values(shape: tuple[int, ...], modality: Modality, seed: int = 0) -> Array:
    """Values that compress about as those of a sensor do: fields with edges, a season, and noise of the instrument."""
    rng = np.random.default_rng(seed)
    steps, bands, height, width = shape
    fields = rng.integers(0, 40, (-(-height // 24), -(-width // 24)))
    ground = np.kron(fields, np.ones((24, 24), dtype=np.int32))[:height, :width]
    out = np.empty(shape, dtype=modality.storage.dtype)
    for step in range(steps):
        season = 1 + 0.5 * np.sin(2 * np.pi * (step / max(1, steps) + ground / 40))
        for band in range(bands):
            noise = rng.normal(0, 25, (height, width))
            out[step, band] = (600 + 300 * band + 40 * ground * season + noise).clip(0, 12000)
    return out
