"""Weights with their rows and columns in, a sparse matrix out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from mdico_cube.spec import Array

_SPARSE: Any = sparse  # scipy carries no types


def sparse_rows(weight: Array, row: Array, col: Array, shape: tuple[int, int]) -> Any:
    """Sparse (rows, columns) matrix; weights of the same place add up."""
    return _SPARSE.coo_array((weight.ravel(), (row.ravel(), col.ravel())), shape=shape).tocsr()


def bilinear(row: Array, col: Array, side: int) -> Any:
    """(N, side*side) weights that read a square raster between its cell centres; whole numbers are cell corners."""
    y, x = np.clip(row - 0.5, 0, side - 1.001), np.clip(col - 0.5, 0, side - 1.001)
    i, j = y.astype(np.intp), x.astype(np.intp)
    v, u = y - i, x - j
    weight = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], axis=1).astype(np.float32)
    cell = np.stack([i * side + j, i * side + j + 1, (i + 1) * side + j, (i + 1) * side + j + 1], axis=1)
    return sparse_rows(weight, np.repeat(np.arange(row.size), 4), cell, (row.size, side * side))


def connected(start: Array, stop: Array, nodes: int) -> Array:
    """(nodes,) number of the connected piece that each node of a graph belongs to."""
    links = sparse_rows(np.ones(start.size, dtype=np.int8), start, stop, (nodes, nodes))
    return np.asarray(_SPARSE.csgraph.connected_components(links, directed=False)[1], dtype=np.int32)
