"""What has been done to a cube, per modality and shard, kept inside the cube: written last, read first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mdico_cube.schema import LEDGER

MISSING, DONE, FAILED = 0, 1, 2
"""States of a shard."""
_ENTRY_BYTES = 1 << 20
_DIMS = ("shard_y", "shard_x")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one shard of one modality."""

    state: int
    """MISSING, DONE or FAILED."""
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
    seconds: float = 0.0
    bytes_written: int = 0
    error: str = ""
    """Why it failed."""
    version: str = ""
    """Version of mdico_cube that wrote it."""


def create_ledger(cube: Path, modality: str, shape: tuple[int, int]) -> None:
    """Make the empty ledger of one modality: `shape` counts shards along y and x."""
    group = zarr.open_group(cube, mode="a", zarr_format=3).require_group(f"{LEDGER}/{modality}")
    options: dict[str, Any] = {"chunks": (1, 1), "dimension_names": _DIMS}
    group.create_array("state", shape=shape, dtype="int8", fill_value=MISSING, **options)
    group.create_array(
        "digest", shape=(*shape, 64), chunks=(1, 1, 64), dtype="uint8", fill_value=0, dimension_names=(*_DIMS, "hex")
    )
    group.create_array("valid_fraction", shape=shape, dtype="float32", fill_value=float("nan"), **options)
    group.create_array(
        "entry",
        shape=(*shape, _ENTRY_BYTES),
        chunks=(1, 1, _ENTRY_BYTES),
        dtype="uint8",
        fill_value=0,
        dimension_names=(*_DIMS, "json"),
    )


class Ledger:
    """One modality's ledger. Each shard has cells of its own, so writers never share a file."""

    def __init__(self, cube: Path, modality: str, mode: str = "r") -> None:
        group: Any = zarr.open_group(cube, path=f"{LEDGER}/{modality}", mode=mode, zarr_format=3)  # type: ignore[arg-type]
        self._state, self._valid, self._entry = group["state"], group["valid_fraction"], group["entry"]
        self._digest = group["digest"]

    def states(self) -> np.ndarray[Any, np.dtype[np.int8]]:
        """State of every shard, (shards along y, shards along x)."""
        return np.asarray(self._state[:], dtype=np.int8)

    def digests(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Digest of every shard's inputs, (shards along y, shards along x, 64 characters); zeros where none stands."""
        stands = self.states() == DONE
        return np.where(stands[..., None], np.asarray(self._digest[:]), 0).astype(np.uint8)

    def read(self, row: int, column: int) -> Entry:
        """The entry of one shard; a MISSING one where nothing was recorded."""
        if int(self._state[row, column]) == MISSING:
            return Entry(MISSING)
        text = bytes(np.asarray(self._entry[row, column])).rstrip(b"\0").decode()
        facts = json.loads(text)
        return Entry(**{**facts, "items": tuple(facts["items"])})

    def forget(self, row: int, column: int) -> None:
        """Mark a shard as missing: before its pixels are touched, so that a half-written shard never counts as done."""
        self._state[row, column] = MISSING

    def record(self, row: int, column: int, entry: Entry) -> None:
        """Write an entry; its state goes last, so a half-written entry is a missing one."""
        self.forget(row, column)
        text = json.dumps(asdict(entry))
        if len(text) > _ENTRY_BYTES:
            text = json.dumps({**asdict(entry), "offsets": {}, "floors": {}, "items": []})
        self._entry[row, column] = _text(text, _ENTRY_BYTES)
        self._valid[row, column] = entry.valid_fraction
        self._digest[row, column] = _text(entry.digest, 64)
        self._state[row, column] = entry.state


def _text(text: str, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """ASCII text in cells of one byte, zeros behind it."""
    cells = np.zeros(length, dtype=np.uint8)
    cells[: len(text)] = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return cells
