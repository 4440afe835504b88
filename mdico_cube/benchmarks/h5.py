"""An HDF5 file and a name in it in, one array out: for the benchmarks that come in that format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array


def read_h5(path: Path, *names: str) -> list[Array]:
    """Arrays of a file, in the order of their names.

    Raises:
        MdicoError: h5py is not installed, no such file, no HDF5 file, or an array that it lacks.
    """
    try:
        library: Any = import_module("h5py")
    except ImportError as error:
        raise MdicoError("benchmarks in HDF5 files need h5py: pip install 'mdico-cube[benchmarks]'.") from error
    try:
        with library.File(path, "r") as file:
            lacking = [name for name in names if not isinstance(file.get(name), library.Dataset)]
            if lacking:
                raise MdicoError(
                    f"{path}: has no array {', '.join(lacking)}, it holds {', '.join(file) or 'nothing'}. "
                    "This is another version of the benchmark than the one that is read here."
                )
            return [np.asarray(file[name][()]) for name in names]
    except OSError as error:
        raise MdicoError(f"{path}: cannot be read as HDF5 ({error}). Fetch the file again.") from error
