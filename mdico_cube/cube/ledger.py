"""What has been done to a cube, per modality and shard, kept inside the cube: written last, read first."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from mdico_cube.cube.target import Mode, Target, open_group
from mdico_cube.schema import LEDGER

MISSING, DONE, FAILED, GAPS = 0, 1, 2, 3
"""States of a shard; GAPS = built, but without some scenes whose files could not be read."""
STANDS = (DONE, GAPS)
"""States of a shard whose pixels can be used."""
STATE_NAMES = {MISSING: "missing", DONE: "done", FAILED: "failed", GAPS: "gaps"}
"""What a person calls them."""
DOUBT = " - "
"""Stands between an item's offset and what the offset sentinel has against it."""
_STANDING = tuple(f"{state} " for state in STANDS)
_States = np.ndarray[Any, np.dtype[np.int8]]
_Digests = np.ndarray[Any, np.dtype[np.uint8]]
_HEX = 64
"""Characters of a digest."""
_BATCH = {"codec_pipeline.batch_size": 1000}
"""Decode this many entries at once: a third less time for 10,000 of them."""
_FILES = "mdico_files"
"""Attribute of a ledger: the folder within the cube where the file of each shard lies as ROW/COLUMN."""


@dataclass(frozen=True)
class Origin:
    """Everything that decides the values of one shard, in parts that can be compared one by one."""

    settings: dict[str, str]
    """Name of an option or rule -> its value as JSON."""
    grid: str
    """Digest of the shard's grid."""
    steps: dict[str, str]
    """Time step -> digest of its scenes: items, offsets, addresses."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of it all."""
        return hashlib.sha256(json.dumps([self.settings, self.grid, self.steps], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FailedRead:
    """One file of one scene that could not be read for good."""

    item: str
    """STAC item id."""
    asset: str
    """Asset key."""
    window: tuple[float, float, float, float]
    """Left, bottom, right, top of what was asked for, in units of the cube's CRS."""
    error: str
    """Why, without the query of any address."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one shard of one modality."""

    state: int
    """MISSING, DONE, FAILED or GAPS."""
    digest: str = ""
    """SHA-256 (hex) of everything that decides the shard's values: items, addresses, offsets, grid, options."""
    items: tuple[str, ...] = ()
    """STAC item ids that were read."""
    offsets: dict[str, str] = field(default_factory=dict)
    """Item id -> offset applied and why."""
    floors: dict[str, float] = field(default_factory=dict)
    """Item id -> reflectance of its darkest clear ground in this shard, where enough was clear."""
    valid_fraction: float = 0.0
    """Share of (step, pixel) that was observed."""
    step_fractions: dict[str, float] = field(default_factory=dict)
    """Time step -> share of pixels that was observed."""
    seconds: float = 0.0
    bytes_written: int = 0
    error: str = ""
    """Why it failed."""
    failed_reads: tuple[FailedRead, ...] = ()
    """Files that could not be read for good: what GAPS lack, or what made a shard fail."""
    stand_ins: dict[str, str] = field(default_factory=dict)
    """Item id -> "catalog/collection/id" of the same acquisition that was read in its place."""
    version: str = ""
    """Version of mdico_cube that wrote it."""
    settings: dict[str, str] = field(default_factory=dict)
    grid: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    """The parts of the digest, see Origin: they tell why a shard is stale and which of its steps still stand."""

    @property
    def origin(self) -> Origin:
        """What the shard was built from."""
        return Origin(self.settings, self.grid, self.steps)


def create_ledger(cube: Target, modality: str, shape: tuple[int, int], pixels: str = "") -> None:
    """Make the empty ledger of one modality.

    Args:
        cube: where.
        modality: whose.
        shape: shards along y and x.
        pixels: the array that the shards belong to, if each of them is one file.
    """
    root = open_group(cube, "a")
    group = root.require_group(f"{LEDGER}/{modality}")
    if pixels:
        array: Any = root[pixels]
        group.attrs[_FILES] = "/".join([pixels, "c", *["0"] * (array.ndim - 2)])
    group.create_array(
        "entry", shape=shape, chunks=(1, 1), dtype="string", fill_value="", dimension_names=("shard_y", "shard_x")
    )


class Ledger:
    """One modality's ledger: a text per shard, in a chunk and so a file of its own.

    Writers never share a file, and an entry is replaced in one piece: it is whole or was never there. Its first line
    holds state and digest, which is all that a resumed build reads; the second holds the whole entry as JSON.

    Law: on a disk of this machine a shard in which something was observed never counts as standing without its file;
    where somebody removed that, or copied only a part of the cube, it counts as MISSING.
    """

    def __init__(self, cube: Target, modality: str, mode: Mode = "r") -> None:
        with zarr.config.set(_BATCH):
            group: Any = open_group(cube, mode, f"{LEDGER}/{modality}")
            self._texts = group["entry"]
        files = group.attrs.get(_FILES)
        local = files and isinstance(group.store, LocalStore)
        self._files: str | None = f"{group.store.root}/{files}" if local else None

    def states(self) -> _States:
        """State of every shard, (shards along y, shards along x)."""
        return self.heads()[0]

    def digests(self) -> _Digests:
        """Digest of every shard's inputs, (shards along y, shards along x, 64 characters); zeros where none stands.

        A shard with gaps has another one than its inputs', made of them and of what could not be read.
        """
        states, _, identities = self._heads()
        return np.where(np.isin(states, STANDS)[..., None], identities, 0).astype(np.uint8)

    def heads(self) -> tuple[_States, _Digests]:
        """State of every shard and digest of its inputs (shards along y, shards along x, 64 characters)."""
        states, digests, _ = self._heads()
        return states, digests

    def _heads(self) -> tuple[_States, _Digests, _Digests]:
        """States, digests of inputs, digests of inputs and gaps."""
        texts = self._whole()
        states = np.full(texts.shape, MISSING, dtype=np.int8)
        digests = np.zeros((*texts.shape, _HEX), dtype=np.uint8)
        identities = digests.copy()
        for place, text in np.ndenumerate(texts):
            if text:
                state, digest, identity = text.partition("\n")[0].split(" ")
                states[place] = int(state)
                for cells, name in ((digests, digest), (identities, identity)):
                    cells[place][: len(name)] = np.frombuffer(name.encode("ascii"), dtype=np.uint8)
        return states, digests, identities

    def entries(self) -> dict[tuple[int, int], Entry]:
        """The entry of every shard by row and column, MISSING ones too, read at once."""
        return {(row, column): _entry(text) for (row, column), text in np.ndenumerate(self._whole())}

    def read(self, row: int, column: int) -> Entry:
        """The entry of one shard; a MISSING one where nothing was recorded."""
        return _entry(self._standing(row, column, str(self._texts[row, column])))

    def _whole(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """The text of every shard; the entries are read before the files are looked for, which a writer puts first."""
        texts: np.ndarray[Any, np.dtype[np.object_]] = self._texts[:].astype(object)
        for (row, column), text in np.ndenumerate(texts):
            texts[row, column] = self._standing(row, column, text)
        return texts

    def _standing(self, row: int, column: int, text: str) -> str:
        """A shard's text; nothing where its file is gone."""
        if self._files is None or not text.startswith(_STANDING):
            return text
        if os.path.exists(f"{self._files}/{row}/{column}"):  # noqa: PTH110  # a Path costs twice as much
            return text
        return "" if _entry(text).valid_fraction > 0 else text

    def forget(self, row: int, column: int) -> None:
        """Mark a shard as missing: before its pixels are touched, so that a half-written shard never counts as done."""
        self._texts[row, column] = ""

    def record(self, row: int, column: int, entry: Entry) -> None:
        """Write an entry in one piece."""
        self._texts[row, column] = f"{entry.state} {entry.digest} {_identity(entry)}\n{json.dumps(asdict(entry))}"


def _entry(text: str) -> Entry:
    if not text:
        return Entry(MISSING)
    facts = json.loads(text.partition("\n")[2])
    failed = tuple(FailedRead(**{**one, "window": tuple(one["window"])}) for one in facts["failed_reads"])
    return Entry(**{**facts, "items": tuple(facts["items"]), "failed_reads": failed})


def _identity(entry: Entry) -> str:
    if entry.state != GAPS:
        return entry.digest
    return hashlib.sha256(
        json.dumps([entry.digest, [asdict(read) for read in entry.failed_reads]]).encode()
    ).hexdigest()
