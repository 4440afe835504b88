"""A frame of cells in, parcels out: blocks of land cut into crooked fields, and pieces kept whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from mdico_cube.demo.matrix import connected
from mdico_cube.demo.noise import smooth_field
from mdico_cube.spec import Floats

Ids = npt.NDArray[np.int32]
_NDIMAGE: Any = ndimage  # scipy carries no types


@dataclass(frozen=True, slots=True)
class Warped:
    """Cell positions in metres from the frame's upper left, bent a little so that no border is straight."""

    x: Floats
    """(H, W) eastwards."""
    y: Floats
    """(H, W) southwards."""

    @property
    def points(self) -> Floats:
        """(H*W, 2) positions."""
        return np.stack([self.x.ravel(), self.y.ravel()], axis=1)


def warped(rng: np.random.Generator, shape: tuple[int, int], cell: float, scale: float) -> Warped:
    """Positions with wide bends (tens of metres) and small crooks (a few metres); `scale` shrinks them all."""
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)

    def bend() -> Floats:
        wide = smooth_field(rng, shape, 160 * scale)
        crook = smooth_field(rng, shape, 14)
        return np.asarray(55 * scale * wide + 5 * crook, dtype=np.float32)

    return Warped(x=(cols + 0.5) * cell + bend(), y=(rows + 0.5) * cell + bend())


def voronoi(rng: np.random.Generator, where: Warped, spacing: float) -> Ids:
    """(H, W) id of the nearest seed; seeds lie on a jittered grid `spacing` metres wide."""
    height, width = float(where.y.max()), float(where.x.max())
    across, down = max(1, round(width / spacing)), max(1, round(height / spacing))
    j, i = np.mgrid[0:down, 0:across]
    jitter = rng.uniform(0.08, 0.92, size=(2, down, across))
    seeds = np.stack([(i + jitter[0]) * width / across, (j + jitter[1]) * height / down], axis=-1).reshape(-1, 2)
    _, nearest = KDTree(seeds).query(where.points, workers=2)
    return np.asarray(nearest, dtype=np.int32).reshape(where.x.shape)


def cut_fields(rng: np.random.Generator, where: Warped, blocks: Ids, cell: float, median_ha: float) -> Ids:
    """Cut every block into fields along its own two directions; (H, W) field id.

    Each block has one direction, one typical field size and one typical elongation, as if farmed together.
    """
    order = np.argsort(blocks, axis=None, kind="stable").astype(np.int32)
    bounds = np.flatnonzero(np.diff(blocks.ravel()[order])) + 1
    fields = np.zeros(blocks.size, dtype=np.int32)
    x, y = where.x.ravel(), where.y.ravel()
    count = 0
    for cells in np.split(order, bounds):
        angle, size = rng.uniform(0, np.pi), median_ha * np.exp(0.6 * rng.standard_normal())
        along = np.cos(angle) * x[cells] + np.sin(angle) * y[cells]
        across = np.cos(angle) * y[cells] - np.sin(angle) * x[cells]
        for part in _halve(rng, along, across, np.clip(size, 0.25, 12.0) * 1e4 / cell**2, rng.uniform(1.0, 2.8)):
            fields[cells[part]] = count
            count += 1
    return fields.reshape(blocks.shape)


def _halve(
    rng: np.random.Generator, along: Floats, across: Floats, size: float, elongation: float
) -> list[npt.NDArray[np.intp]]:
    """Halve a block again and again until its parts have about `size` cells."""
    done, waiting = [], [np.arange(along.size)]
    while waiting:
        part = waiting.pop()
        if part.size <= max(size * np.exp(0.5 * rng.standard_normal()), 60):
            done.append(part)
            continue
        long_side = np.ptp(along[part]) > elongation * np.ptp(across[part])
        axis = along[part] if long_side else across[part]
        low = axis < np.quantile(axis, rng.uniform(0.36, 0.64))
        waiting += [part[low], part[~low]]
    return done


def whole_pieces(ids: Ids, smallest: int) -> Ids:
    """Renumber so that every id is one 4-connected piece of at least `smallest` cells; slivers join a neighbour."""
    pieces = _components(ids)
    sliver = (np.bincount(pieces.ravel()) < smallest)[pieces]
    if sliver.any() and not sliver.all():
        nearest = _NDIMAGE.distance_transform_edt(sliver, return_distances=False, return_indices=True)
        pieces = pieces[tuple(nearest)]
    _, renumbered = np.unique(_components(pieces), return_inverse=True)
    return renumbered.reshape(ids.shape).astype(np.int32)


def _components(ids: Ids) -> Ids:
    index = np.arange(ids.size, dtype=np.int32).reshape(ids.shape)
    right, down = ids[:, 1:] == ids[:, :-1], ids[1:] == ids[:-1]
    start = np.concatenate([index[:, :-1][right], index[:-1][down]])
    stop = np.concatenate([index[:, 1:][right], index[1:][down]])
    return np.asarray(connected(start, stop, ids.size), dtype=np.int32).reshape(ids.shape)


def borders(ids: Ids) -> npt.NDArray[np.bool_]:
    """(H, W) True on one side of every border between two ids."""
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edge[:-1] |= ids[1:] != ids[:-1]
    return edge
