"""A layer's shards in, small pictures of them out, kept beside the cube: far views are drawn from them."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mdico_cube.errors import MdicoError
from mdico_cube.explorer.pyramid import BUDGET, Kept, Place, Raster, cut, levels, window
from mdico_cube.explorer.shrink import FACTOR
from mdico_cube.progress import say
from mdico_cube.spec import Array

HALVINGS = 3
"""The same in zoom levels: 2**3 = 8."""
_STAMP = 16  # characters of a digest that tell one writing of a shard from the next
_HASTY = 64  # chunks that are read for a tile while its overview is made
Block = tuple[int, int, int]
"""Level, row and column. A block of level 1 is a shard, one of level 2 is eight by eight of those, and so on."""
Stamps = npt.NDArray[np.str_]


class MissingBlockError(Exception):
    """Some blocks of a tile do not stand."""


@dataclass(frozen=True)
class Source:
    """What overviews are made of."""

    folder: Path
    """Where they are kept."""
    shape: tuple[int, int]
    """Rows and columns."""
    shard: int
    """Pixels a side of what is read at once."""
    stamps: Callable[[], Stamps]
    """(shards along y, shards along x): another text means other pixels; empty where none stand."""
    read: Callable[[slice, slice], Array]
    """(y, x) -> (T, C, h, w)."""
    shrink: Callable[[Array], Array]
    """(..., h, w) -> (..., h / 8, w / 8), rounded up."""
    form: tuple[int, int, str]
    """Steps, bands and type of what is read."""
    blank: float
    """Value of pixels that nobody has."""


class Overview:
    """The levels of one layer. A block is a file, named after what it was made from, written in one piece."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.levels = 0 if source.shard % FACTOR else levels(source.shape) // HALVINGS
        """How many there are."""
        self._stamped: dict[int, Stamps] = {}
        self._blank: dict[tuple[int, ...], Array] = {}

    def tile(self, place: Place, step: int) -> Array | None:
        """One tile of one step (C, h, w); None outside the raster.

        Raises:
            MissingBlockError: `missing` says which blocks it lacks.
        """
        level = self.level(place)
        zoom, column, row = place
        shape = tuple(-(-size // FACTOR**level) for size in self.source.shape)
        raster = Raster((shape[0], shape[1]), self._side, lambda y, x: self._gathered(level, y, x, step))
        return cut(raster, zoom + HALVINGS * level, column, row, budget=math.inf)

    def level(self, place: Place) -> int:
        """Which level a tile is cut from; 0 = the layer itself."""
        return min(self.levels, -place[0] // HALVINGS)

    def missing(self, place: Place) -> list[Block]:
        """Blocks of a tile that have to be made."""
        level = self.level(place)
        side = self._side * FACTOR**level
        rows, columns = (range(part.start // side, -(-part.stop // side)) for part in window(place, self.source.shape))
        return [(level, *at) for at in product(rows, columns) if not self._stands((level, *at))]

    def make(self, block: Block) -> None:
        """Make a block, and those it is made of; one that stands is left alone.

        Raises:
            MdicoError: its shard is damaged.
            OSError: it cannot be kept.
        """
        if self._stands(block):
            return
        level, row, column = block
        if level == 1:
            y, x = self._window(row, column)
            whole = self.source.read(y, x)
        else:
            for part in self._parts(block):
                self.make(part)
            y, x = self._window(row, column, level - 1)
            whole = self._gathered(level - 1, y, x, None)
        self._keep(block, self.source.shrink(whole))

    def _parts(self, block: Block) -> Iterator[Block]:
        level, row, column = block
        height, width = self._stamps(level - 1).shape
        for down, right in product(range(FACTOR), repeat=2):
            at = (row * FACTOR + down, column * FACTOR + right)
            if at[0] < height and at[1] < width:
                yield (level - 1, *at)

    def _window(self, row: int, column: int, level: int = 0) -> tuple[slice, slice]:
        """Rows and columns that a block of the next level covers, in pixels of a level."""
        side, shape = self.source.shard, (-(-size // FACTOR**level) for size in self.source.shape)
        y, x = (slice(at * side, min((at + 1) * side, end)) for at, end in zip((row, column), shape, strict=True))
        return y, x

    @property
    def _side(self) -> int:
        """Pixels a side of a block, on its own level."""
        return self.source.shard // FACTOR

    def _gathered(self, level: int, y: slice, x: slice, step: int | None) -> Array:
        """(C, h, w) of one step, or (T, C, h, w) of all, from the blocks of a level."""
        rows = []
        for row in range(y.start // self._side, -(-y.stop // self._side)):
            columns = range(x.start // self._side, -(-x.stop // self._side))
            rows.append(np.concatenate([self._read((level, row, column), step) for column in columns], axis=-1))
        top, left = y.start % self._side, x.start % self._side
        whole = np.concatenate(rows, axis=-2)
        return whole[..., top : top + y.stop - y.start, left : left + x.stop - x.start]

    def _read(self, block: Block, step: int | None) -> Array:
        path = self._path(block)
        if path is None:
            return self._nothing(block, step)
        try:
            held = np.load(path, mmap_mode="r")
        except OSError as error:
            raise MissingBlockError from error
        except (ValueError, EOFError) as error:  # not written by us, or damaged since
            path.unlink(missing_ok=True)
            raise MissingBlockError from error
        return np.asarray(held if step is None else held[step])

    def _nothing(self, block: Block, step: int | None) -> Array:
        """A block of which no shard stands."""
        y, x = self._window(*block[1:], block[0] - 1)
        shape = (-(-(y.stop - y.start) // FACTOR), -(-(x.stop - x.start) // FACTOR))
        steps, bands, kind = self.source.form
        return np.full((*(() if step is not None else (steps,)), bands, *shape), self.source.blank, kind)

    def _keep(self, block: Block, pixels: Array) -> None:
        path = self._path(block)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.save(file, pixels)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        for other in path.parent.glob(f"{block[1]}-{block[2]}-*"):
            if other != path:
                other.unlink(missing_ok=True)

    def _stands(self, block: Block) -> bool:
        path = self._path(block)
        return path is None or path.exists()

    def _path(self, block: Block) -> Path | None:
        """Where a block is kept; None where none of its shards stand."""
        level, row, column = block
        stamp = str(self._stamps(level)[row, column])
        return self.source.folder / str(level) / f"{row}-{column}-{stamp}.npy" if stamp else None

    def _stamps(self, level: int) -> Stamps:
        """(rows, columns) of the blocks of a level, as they were when first asked for."""
        if level not in self._stamped:
            if level == 1:
                found = np.array([text[:_STAMP] for text in self.source.stamps().ravel()], f"U{_STAMP}")
                self._stamped[level] = found.reshape(self.source.stamps().shape)
            else:
                below = self._stamps(level - 1)
                shape = tuple(-(-size // FACTOR) for size in below.shape)
                self._stamped[level] = np.array(
                    [[_joined(below, row, column) for column in range(shape[1])] for row in range(shape[0])],
                    f"U{_STAMP}",
                )
        return self._stamped[level]


def _joined(stamps: Stamps, row: int, column: int) -> str:
    part = stamps[row * FACTOR : (row + 1) * FACTOR, column * FACTOR : (column + 1) * FACTOR]
    text = "\n".join(part.ravel().tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:_STAMP] if text.strip() else ""


class Maker:
    """Makes blocks in the background, those asked for last first; ends with the program."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[Overview, Block], None] = {}
        self._given_up: set[tuple[Overview, Block]] = set()
        self._closed: set[Overview] = set()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def ask(self, overview: Overview, blocks: list[Block]) -> None:
        """Put blocks on the list."""
        with self._news:
            for block in blocks if overview not in self._closed else ():
                if (overview, block) not in self._given_up:
                    self._wanted.pop((overview, block), None)
                    self._wanted[overview, block] = None
            if self._thread is None and self._wanted:
                self._thread = threading.Thread(target=self._work, daemon=True, name="overviews")
                self._thread.start()
            self._news.notify_all()

    @property
    def left(self) -> int:
        """Blocks on the list, the one in hand among them."""
        return len(self._wanted)

    def wait(self, seconds: float) -> bool:
        """Wait until the list is empty; False where that takes longer."""
        with self._news:
            return self._news.wait_for(lambda: not self._wanted, seconds)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._wanted))
                overview, block = next(reversed(self._wanted))
            try:
                overview.make(block)
            except MdicoError:
                self._given_up.add((overview, block))  # a damaged shard: what is seen from near says so
            except OSError as error:
                say(f"explorer: {overview.source.folder} cannot be written ({error.strerror}); far views stay slow")
                self._closed.add(overview)
            with self._news:
                self._wanted.pop((overview, block), None)
                for other in [key for key in self._wanted if key[0] in self._closed]:
                    del self._wanted[other]
                self._news.notify_all()


@dataclass(frozen=True)
class Far:
    """What a layer draws its far tiles from: overviews that stand, and somebody who makes those that do not."""

    overview: Overview
    maker: Maker
    kept: Kept

    def tile(self, place: Place, step: int) -> Array | None:
        """One tile of one step (C, h, w); None where it has to be cut from the layer itself, now at least."""
        if self.overview.level(place) == 0:
            return None
        try:
            return self.kept.get((self.overview.source.folder, place, step), lambda: self.overview.tile(place, step))
        except MissingBlockError:
            self.maker.ask(self.overview, self.overview.missing(place))
            return None

    def budget(self, place: Place) -> int:
        """Chunks that may be read for a tile: few for one that an overview is about to replace."""
        return _HASTY if self.overview.level(place) else BUDGET
