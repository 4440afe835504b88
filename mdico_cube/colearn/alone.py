"""A run's folder in, held by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from mdico_cube.errors import MdicoError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no two processes train in it; a process that dies holds it no more.

    Raises:
        MdicoError: another process trains there.
    """
    if getattr(rank_zero_only, "rank", 0):  # the processes of one run share its folder
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise MdicoError(
            f"{folder}: another process trains there. Wait until it is done, or choose another output."
        ) from error
    try:
        yield
    finally:
        lock.release()
