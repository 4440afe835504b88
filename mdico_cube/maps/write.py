"""A cube and a bundle in, one sensor's map out: a Zarr group written shard by shard, resumable at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import Delayed, delayed

from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.outputs import NODATA, Bytes
from mdico_cube.maps.predict import (
    PIXELS,
    MapPlan,
    blocks,
    lazy_stack,
    map_attrs,
    map_coords,
    plan_map,
)
from mdico_cube.progress import track
from mdico_cube.recipe import MapOutput, Precision

DONE = 1
"""Ledger value of a shard whose every variable is on disk."""
_WAVE = 4  # shards per worker submitted at once


def write_map(
    cube: Location,
    bundle: Path,
    target: Path,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    pixels: int = PIXELS,
    precision: Precision = "32-true",
    outputs: Sequence[MapOutput] = (),
) -> Path:
    """Map a whole cube with one sensor's bundle.

    Args:
        cube: folder of the cube.
        bundle: folder of the bundle.
        target: folder of the map, as `map_path` names it.
        overwrite: replace a map that is there.
        resume: compute only the shards a stopped run left out.
        workers: threads that predict at the same time, each with its share of the cores; default one per core.
        pixels: pixels that go through the model at once.
        precision: "32-true", or "bf16" for about twice the speed and a few other classes.
        outputs: what to write beyond class and confidence: "probabilities", "entropy", "observations".

    Returns:
        The target.

    Raises:
        MdicoError: the bundle does not fit, a map is there already, it was made from something else, or the folder
            cannot be written.
    """
    target = Path(target)
    plan = plan_map(cube, bundle, pixels, precision, outputs)
    with _mendable(target):
        _prepare(plan, target, overwrite, resume)
        missing = _missing(target)
        workers = max(1, min(workers or _cores(), _cores()))
        _compute(plan, target, missing, workers)
    return target


def is_stale(
    cube: Location,
    bundle: Path,
    target: Path,
    precision: Precision = "32-true",
    outputs: Sequence[MapOutput] = (),
) -> bool:
    """True where a map lies that was made from another bundle or cube, in another precision or with other outputs."""
    if not Path(target).exists():
        return False
    plan = plan_map(cube, bundle, precision=precision, outputs=outputs)
    return bool(_differences(plan, _known(Path(target))))


def map_path(out: Path, method: str, modality: str, seed: int) -> Path:
    """Where a run keeps the map of one method, sensor and seed; its GeoTIFF lies beside it."""
    return Path(out) / "maps" / f"{method}-{modality}-seed{seed}.zarr"


def find_maps(out: Path) -> list[Path]:
    """Every Zarr map of a run, by name. What a map is stands in its attributes, not in its name."""
    return sorted(path for path in (Path(out) / "maps").glob("*.zarr") if (path / "zarr.json").is_file())


def open_map(path: Path) -> xr.Dataset:
    """A map as a lazy Dataset of uint8 class, confidence and what else was asked for, 255 = no prediction."""
    map_: xr.Dataset = xr.open_zarr(path, consolidated=False, mask_and_scale=False, decode_coords="all")
    return map_


def read_map(path: Path) -> zarr.Group:
    """A complete map, for reading block by block.

    Raises:
        MdicoError: not a map, or one that was stopped half way.
    """
    try:
        group = zarr.open_group(path, mode="r")
        ledger = group["ledger"]
        if not isinstance(ledger, zarr.Array):
            raise ValueError("its ledger is that of a cube")
        left = int(np.count_nonzero(np.asarray(ledger) != DONE))
    except (OSError, KeyError, ValueError) as error:
        raise MdicoError(f"map {path}: cannot be read as a map ({error}). Write it again with --overwrite.") from error
    if left:
        raise MdicoError(f"map {path}: {left} shards are missing because writing was stopped. Finish it with --resume.")
    return group


def _prepare(plan: MapPlan, target: Path, overwrite: bool, resume: bool) -> None:
    """Make sure that the target holds the map's metadata and ledger."""
    if target.exists() and any(target.iterdir()):
        known = _known(target)
        if overwrite:
            shutil.rmtree(target)
        elif resume:
            _check_same(plan, target, known)
            return
        else:
            raise MdicoError(f"map {target}: exists already. Use --overwrite to replace it or --resume to complete it.")
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        _create(plan, fresh)
        if target.exists():
            target.rmdir()
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _known(target: Path) -> dict[str, Any]:
    """Attributes of the map that lies there; anything else is never touched."""
    try:
        attrs = dict(zarr.open_group(target, mode="r").attrs)
    except (OSError, ValueError, KeyError):
        attrs = {}
    if "bundle_digest" not in attrs:
        raise MdicoError(f"map {target}: is a folder that holds something else than a map. Choose another folder.")
    return attrs


def _check_same(plan: MapPlan, target: Path, known: dict[str, Any]) -> None:
    for what in _differences(plan, known):
        raise MdicoError(
            f"map {target}: was begun with another {what} than {_shown(getattr(plan, what))}. "
            "Use --overwrite to start it again."
        )


def _differences(plan: MapPlan, known: dict[str, Any]) -> list[str]:
    """What of a plan a map with these attributes was not made with; each is a field of the plan."""
    facts, begun = map_attrs(plan), {"precision": "32-true", "outputs": [], **known}
    keys = {"bundle_digest": "bundle", "cube_digest": "cube", "precision": "precision", "outputs": "outputs"}
    return [what for key, what in keys.items() if begun.get(key) != facts[key]]


def _shown(value: Any) -> str:
    return (", ".join(value) or "class and confidence alone") if isinstance(value, tuple) else str(value)


def _create(plan: MapPlan, folder: Path) -> None:
    """The map's metadata, coordinates and empty ledger; no pixel yet."""
    reader = plan.reader
    height, width = reader.shape
    skeleton = xr.Dataset(coords=map_coords(plan), attrs=map_attrs(plan))
    skeleton.to_zarr(folder, mode="w-", zarr_format=3, consolidated=False)
    group = zarr.open_group(folder, mode="r+")
    for each in plan.variables:
        lead = () if each.layers is None else (each.layers,)
        group.create_array(
            each.name,
            shape=(*lead, height, width),
            dtype="uint8",
            chunks=(*lead, reader.chunk, reader.chunk),
            shards=(*lead, reader.shard, reader.shard),
            fill_value=NODATA,
            dimension_names=each.dims,
            attributes=each.attrs,
        )
    group.create_array(
        "ledger",
        shape=(len(blocks(height, reader.shard)), len(blocks(width, reader.shard))),
        dtype="int8",
        chunks=(1, 1),
        fill_value=0,
        dimension_names=("shard_y", "shard_x"),
        attributes={"long_name": "state of each shard", "flag_values": [0, DONE], "flag_meanings": "missing done"},
    )


def _missing(target: Path) -> list[tuple[int, int]]:
    """Shards (row, column) whose ledger cell is not set."""
    ledger = np.asarray(zarr.open_group(target, mode="r")["ledger"])
    return [(int(i), int(j)) for i, j in np.argwhere(ledger != DONE)]


def _compute(plan: MapPlan, target: Path, missing: list[tuple[int, int]], workers: int) -> None:
    """Predict and write the missing shards in waves, so that the graph in hand stays small."""
    stack = lazy_stack(plan, strips=-(-workers // max(len(missing), 1)))
    config = plan.loaded.config
    with _pool(workers) as pool:
        shards = _waves(plan, stack, target, missing, pool, workers)
        for _ in track(shards, f"map {config.method} {config.modality}", len(missing)):
            pass


def _waves(
    plan: MapPlan,
    stack: da.Array,
    target: Path,
    missing: list[tuple[int, int]],
    pool: ThreadPoolExecutor,
    workers: int,
) -> Iterator[tuple[int, int]]:
    size = workers * _WAVE if workers > 1 else 1
    for start in range(0, len(missing), size):
        wave = missing[start : start + size]
        jobs = [_job(plan, stack, target, i, j) for i, j in wave]
        compute(*jobs, scheduler="threads", pool=pool)  # type: ignore[no-untyped-call]
        yield from wave


def _job(plan: MapPlan, stack: da.Array, target: Path, i: int, j: int) -> Delayed:
    """One shard: its strips are predicted by any worker, then written by one."""
    shard = plan.reader.shard
    predicted = stack[:, i * shard : (i + 1) * shard, j * shard : (j + 1) * shard]
    job: Delayed = delayed(_write_shard)(predicted, plan, str(target), i, j)
    return job


def _write_shard(predicted: Bytes, plan: MapPlan, target: str, i: int, j: int) -> None:
    """Write one whole shard (L, h, w), and its ledger cell when every variable is on disk."""
    group: Any = zarr.open_group(target, mode="r+", use_consolidated=False)
    shard, (height, width) = plan.reader.shard, predicted.shape[1:]
    window = (slice(i * shard, i * shard + height), slice(j * shard, j * shard + width))
    for each in plan.variables:
        group[each.name][(..., *window)] = each.of(predicted)
    group["ledger"][i, j] = DONE


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Worker threads that together use no more torch threads than there are cores; the caller's count comes back."""
    before, share = torch.get_num_threads(), max(1, _cores() // workers)
    try:
        with ThreadPoolExecutor(workers, "map", initializer=torch.set_num_threads, initargs=(share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _mendable(target: Path) -> Iterator[None]:
    """A full disk or a closed folder as a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MdicoError(
            f"map {target}: cannot be written ({reason}). Free some space or choose a folder you may write to, "
            "then go on with --resume."
        ) from error
