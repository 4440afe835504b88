"""A cube's ledger and a map's settings in, what decides each shard of the map out: digests, to tell stale from done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mdico_cube.cube.ledger import STANDS, Ledger
from mdico_cube.cube.reader import CubeReader
from mdico_cube.spec import Bools

Digests = npt.NDArray[np.str_]


def cube_digest(reader: CubeReader, *modalities: str) -> str:
    """SHA-256 of what a map depends on in a cube: grid, modalities, and what was written into each of their shards."""
    digest = hashlib.sha256(grid_digest(reader, *modalities).encode())
    for name in _all_parts(reader, modalities):
        digest.update(Ledger(reader.path, name).digests().tobytes())
    return digest.hexdigest()


def grid_digest(reader: CubeReader, *modalities: str) -> str:
    """SHA-256 of a cube's grid and shards, and of what these modalities' bands and steps are."""
    grid = [*reader.geobox.affine, *reader.shape, str(reader.geobox.crs), reader.shard]
    facts = [(reader.modalities[name], reader.steps(name)) for name in modalities]
    return hashlib.sha256(repr((grid, facts)).encode()).hexdigest()


def shard_digests(reader: CubeReader, modalities: Sequence[str], settings: dict[str, Any], reach: int = 0) -> Digests:
    """SHA-256 of everything that decides each shard of a map, (shards along y, shards along x).

    Args:
        reader: the cube.
        modalities: whose pixels are read.
        settings: model, options and mask, as JSON-ready data.
        reach: pixels around a shard that are read too.
    """
    shape = shard_grid(reader)
    common = hashlib.sha256(json.dumps([settings, grid_digest(reader, *modalities)], sort_keys=True).encode()).digest()
    parts = [_on_grid(Ledger(reader.path, name).digests(), shape) for name in _all_parts(reader, modalities)]
    around = -(-reach // reader.shard)
    found = np.empty(shape, dtype="<U64")
    for row, column in np.ndindex(*shape):
        digest = hashlib.sha256(common)
        rows, columns = (slice(max(0, at - around), at + around + 1) for at in (row, column))
        for part in parts:
            digest.update(part[rows, columns].tobytes())
        found[row, column] = digest.hexdigest()
    return found


def lacking(reader: CubeReader, modalities: Sequence[str], reach: int = 0) -> Bools:
    """True for the shards of a map that a shard of the cube which was not built keeps from being made."""
    shape, around = shard_grid(reader), -(-reach // reader.shard)
    found = np.zeros(shape, np.bool_)
    for name in _all_parts(reader, modalities):
        found |= _on_grid(~np.isin(Ledger(reader.path, name).states(), STANDS), shape)
    if not around:
        return found
    spread = np.zeros(shape, np.bool_)
    for row, column in np.argwhere(found):
        spread[max(0, row - around) : row + around + 1, max(0, column - around) : column + around + 1] = True
    return spread


def shard_grid(reader: CubeReader) -> tuple[int, int]:
    """Shards along y and x."""
    return -(-reader.shape[0] // reader.shard), -(-reader.shape[1] // reader.shard)


def _all_parts(reader: CubeReader, modalities: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for name in modalities for part in reader.rests_on(name)))


def _on_grid(facts: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """A ledger's facts per shard; a coarse modality has one shard, which decides all."""
    if facts.shape[:2] == shape:
        return facts
    whole = facts.reshape(1, 1, -1) if facts.ndim > 2 else facts.any(keepdims=True)
    return np.broadcast_to(whole, (*shape, *whole.shape[2:]))
