"""A fault of the disk in, one clear sentence out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdico_cube.errors import MdicoError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Around everything that writes into a folder.

    Raises:
        MdicoError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        reason = os.strerror(error.errno or 0)
        raise MdicoError(f"{folder}: cannot be written ({reason}). Free space or name another folder.") from error
