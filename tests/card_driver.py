"""A driver of a card that is not there: torch asks it where to compute and what to wait for, and it does nothing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

_registered: list[Path] = []


def register(accelerator: bool = False) -> None:
    """Tell torch of the driver, for all of this process; the first call decides.

    Args:
        accelerator: as an accelerator too, which gradients ask for. Torch looks for one early and only once: then this
            has to be called before torch is imported.
    """
    if _registered:
        return
    torch_folder = Path(find_spec("torch").origin).parent
    if any(torch_folder.glob("lib/libtorch_cuda*")) or (compiler := shutil.which("g++")) is None:
        pytest.skip("no card is here, and none can be pretended: that takes a torch without CUDA and g++")
    source, libraries = Path(__file__).with_suffix(".cpp"), ("c10", "torch_cpu")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "driver.so")
        flags = ["-std=c++20", "-w", "-shared", "-fPIC", f"-DACCELERATOR={int(accelerator)}"]
        found = [f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}", *(f"-l{each}" for each in libraries)]
        subprocess.run([compiler, *flags, source, *found, "-o", built], check=True)
        for library in (*(torch_folder / "lib" / f"lib{each}.so" for each in libraries), built):
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    _registered.append(built)
