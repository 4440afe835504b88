"""Shapes in, arrays to be filled out; what an array stood in is used again once nobody looks at it any more.

Memory that comes fresh from the operating system is cleared page by page when it is first written to. For a loader that
fills tens of megabytes several times a second this costs as much as decompressing what goes into it.
"""

from __future__ import annotations

from math import prod
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from mdico_cube.spec import Array

_GRAIN = 1 << 16  # bytes that sizes are rounded up to, so that nearly equal ones share their memory
_KEPT = 256 << 20  # bytes that wait for their next use, at most

Block = npt.NDArray[np.uint8]
"""(bytes,) plain memory."""


class Memory:
    """Blocks of memory that come back by themselves; threads may share it."""

    def __init__(self, kept: int = _KEPT) -> None:
        self.kept = kept
        """Bytes that wait for their next use, at most."""
        self._free: list[Block] = []  # the one that waits longest first
        self._waiting = 0
        self._lock = RLock()  # a block may come back while its own thread holds the lock

    @property
    def waiting(self) -> int:
        """Bytes that wait for their next use."""
        return self._waiting

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array to be filled, like `numpy.empty`; its block comes back when it and all its views are gone."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        if size < _GRAIN:
            return np.empty(shape, dtype=kind)
        return np.asarray(_Lease(self, -(-size // _GRAIN) * _GRAIN, shape, kind))

    def take(self, size: int) -> Block:
        """A block of so many bytes: the one that came back last, or a new one."""
        with self._lock:
            for place in range(len(self._free) - 1, -1, -1):
                if self._free[place].nbytes == size:
                    self._waiting -= size
                    return self._free.pop(place)
        return np.empty(size, dtype=np.uint8)

    def give_back(self, block: Block) -> None:
        """Keep a block for the next who wants one of its size; those that wait longest make room for it."""
        with self._lock:
            self._free.append(block)
            self._waiting += block.nbytes
            while self._waiting > self.kept:
                self._waiting -= self._free.pop(0).nbytes


class _Lease:
    """What an array and all its views hold on to; with the last of them the block goes back."""

    def __init__(self, memory: Memory, size: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
        block = memory.take(size)
        self._held = memory, block
        self.__array_interface__ = {
            "shape": shape,
            "typestr": kind.str,
            "data": (block.ctypes.data, False),
            "version": 3,
        }

    def __del__(self) -> None:
        memory, block = self._held
        memory.give_back(block)


MEMORY = Memory()
"""This process's."""
