"""This machine in, one verdict per thing a run needs out: packages, file formats, disk, memory, processors, GPU."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import rasterio
import torch
from packaging.requirements import Requirement
from rasterio.drivers import raster_driver_extensions

from mdico_cube import __version__
from mdico_cube.cube.catalog import CatalogFile
from mdico_cube.cube.check import Check, check_catalog, list_catalogs
from mdico_cube.errors import MdicoError

State = Literal["ok", "note", "FAILED"]
__all__ = ["Check", "Finding", "examine"]

FORMATS = {"tif": "GeoTIFF and COG", "jp2": "JPEG 2000 (Sentinel-2 as ESA ships it)"}
_BLOCK = 64 << 20  # bytes written and read to time the disk
_LEAST_MEMORY = 4 << 30
_LEAST_DISK = 10 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What was looked at, for example "memory"."""
    state: State
    """ok; note = works, but something is missing or small; FAILED = a run will stop there."""
    detail: str
    """What was found and, where it is not ok, the way out."""


def examine(folder: Path | str = ".", online: bool = False) -> list[Finding]:
    """Look at everything a run needs on this machine.

    Args:
        folder: where results would be written: its disk is measured with one file of 64 MB, removed at once.
        online: also ask every catalog with an address whether it answers and keeps its collections.
    """
    looks = [_packages(), _extras(), _formats(), _processors(), _memory(), _disk(Path(folder)), _gpu()]
    looks += [_catalogs(online)]
    return [finding for look in looks for finding in look]


def _packages() -> Iterator[Finding]:
    wanted = [Requirement(text) for text in requires("mdico-cube") or []]
    faults = [fault for one in wanted if one.marker is None and (fault := _fault(one))]
    if faults:
        yield Finding("packages", "FAILED", f"{'; '.join(faults)}. Install with: pip install -U mdico-cube")
    else:
        yield Finding("packages", "ok", f"mdico-cube {__version__} and its {len(wanted)} requirements")


def _fault(wanted: Requirement) -> str:
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing"
    return (
        "" if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} {found}, needs {wanted.specifier}"
    )


def _extras() -> Iterator[Finding]:
    known: dict[str, list[str]] = {}
    for one in map(Requirement, requires("mdico-cube") or []):
        for extra in ("planetary-computer", "s3", "icechunk", "fast-read", "tensorboard", "notebooks"):
            if one.marker is not None and one.marker.evaluate({"extra": extra}) and one.name != "mdico-cube":
                known.setdefault(extra, []).append(_fault(one))
    lacking = [extra for extra, faults in known.items() if any(faults)]
    if lacking:
        yield Finding("extras", "note", f"not installed: {', '.join(lacking)}. pip install 'mdico-cube[{lacking[0]}]'")
    else:
        yield Finding("extras", "ok", ", ".join(known))


def _formats() -> Iterator[Finding]:
    readable = raster_driver_extensions()
    lacking = [title for ending, title in FORMATS.items() if ending not in readable]
    if lacking:
        yield Finding(
            "formats", "note", f"this GDAL does not read {', '.join(lacking)}. Install rasterio from its wheel."
        )
    else:
        yield Finding("formats", "ok", f"GDAL {rasterio.__gdal_version__}: {', '.join(FORMATS.values())}")


def _processors() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(
        "processors", "ok", f"{usable} usable, torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if memory.available < _LEAST_MEMORY:
        yield Finding("memory", "note", f"{text}. Use smaller shards (store.shard) or fewer workers.")
    else:
        yield Finding("memory", "ok", text)


def _disk(folder: Path) -> Iterator[Finding]:
    """Space, and the speed of one large file; no folder is made."""
    here = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(here).free
    if free < 2 * _BLOCK:
        yield Finding("disk", "FAILED", f"{here}: {free / 1e6:.0f} MB free. Free space or choose another folder.")
        return
    try:
        write, read = _disk_speed(here)
    except OSError as error:
        yield Finding("disk", "FAILED", f"{here}: cannot be written ({error.strerror}). Choose another folder.")
        return
    text = f"{here}: {free / 1e9:.1f} GB free, writes {write:.0f} MB/s, reads {read:.0f} MB/s (from cache)"
    yield Finding("disk", "note" if free < _LEAST_DISK else "ok", text)


def _disk_speed(folder: Path) -> tuple[float, float]:
    """Megabytes per second, written through to the disk and read back."""
    block = np.random.default_rng(0).bytes(_BLOCK)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        file.write(block)
        os.fsync(file.fileno())
        middle = time.perf_counter()
        file.seek(0)
        file.read()
        end = time.perf_counter()
    return _BLOCK / 1e6 / (middle - start), _BLOCK / 1e6 / (end - middle)


def _gpu() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding("GPU", "note", "none that torch can use: training and maps run on the processors")
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding("GPU", "ok", f"{card.name}, {card.total_memory / 1e9:.0f} GB")


def _catalogs(online: bool) -> Iterator[Finding]:
    known = list_catalogs()
    if not online:
        yield Finding("catalogs", "ok", f"{', '.join(one.name for one in known)} (not asked; --online asks them)")
        return
    for catalog in known:
        if catalog.href is not None:
            yield _asked(catalog)


def _asked(catalog: CatalogFile) -> Finding:
    try:
        faults = [f"{one.name}: {one.detail}" for one in check_catalog(catalog.name) if not one.passed]
    except MdicoError as error:
        faults = [str(error)]
    return Finding(f"catalog {catalog.name}", "note" if faults else "ok", "; ".join(faults) or str(catalog.href))
