"""A folder in, held by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mdico_cube.errors import MdicoError


@contextmanager
def alone(folder: Path, does: str) -> Iterator[None]:
    """Hold a folder, there already or not, so that no two processes write it; a process that dies holds it no more.

    Args:
        folder: what is to be held.
        does: what the other process does there, for the sentence that refuses this one.

    Raises:
        MdicoError: another process holds it.
        OSError: its parent cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f".{folder.name}.lock"
    lock = FileLock(file)
    try:
        with suppress(NotImplementedError):  # a disk that knows no locks
            lock.acquire(blocking=False)
    except Timeout as error:
        raise MdicoError(
            f"{folder}: another process {does} there. Wait until it is done, or choose another output."
        ) from error
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                file.unlink()  # while it is held: who opened it before sees that it is gone and holds nothing
        lock.release()
