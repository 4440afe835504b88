"""A map's plan in, its Zarr group on disk out: layout, one ledger entry per shard, whole shards written one by one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr

from mdico_cube import __version__
from mdico_cube.cube.ledger import DONE, FAILED, STATE_NAMES, Entry, Ledger, create_ledger
from mdico_cube.errors import MdicoError, some
from mdico_cube.maps.origin import shard_grid
from mdico_cube.maps.outputs import MAIN, Bytes
from mdico_cube.maps.plan import Known, MapPlan
from mdico_cube.maps.predict import map_attrs, map_coords
from mdico_cube.spec import Floats

LAYER = "map"
"""Name of a map's one ledger, as a cube has one per modality."""
Place = tuple[int, int]
"""Row and column of a shard."""
_INNER = 256  # pixels along an inner chunk: zarr takes as long for a small one
_DECIDES = {"bundle_digest": "bundle"} | {
    key: key
    for key in ("precision", "backend", "outputs", "abstain", "mask", "window", "least", "int8", "step", "device")
}
_BEFORE = {"precision": "32-true", "backend": "torch", "outputs": []}  # of maps that did not say it


def map_path(out: Path, method: str, modality: str, seed: int) -> Path:
    """Where a run keeps the map of one method, sensor and seed; its GeoTIFF lies beside it."""
    return Path(out) / "maps" / f"{method}-{modality}-seed{seed}.zarr"


def find_maps(out: Path) -> list[Path]:
    """Every Zarr map of a run, by name. What a map is stands in its attributes, not in its name."""
    return sorted(path for path in (Path(out) / "maps").glob("*.zarr") if (path / "zarr.json").is_file())


def open_map(path: Path) -> xr.Dataset:
    """A map as a lazy Dataset of its answer (class, labels or value) and what else was asked for.

    Stored values: uint8, 255 = no prediction; a value is float32, NaN = none, or int16 with a scale.
    """
    map_: xr.Dataset = xr.open_zarr(path, consolidated=False, mask_and_scale=False, decode_coords="all")
    return map_


def read_map(path: Path) -> zarr.Group:
    """A complete map, for reading block by block.

    Raises:
        MdicoError: not a map, or one that was stopped half way.
    """
    if not Path(path).exists():
        raise MdicoError(f"map {path}: does not exist. Give the folder that `mdico predict` wrote, maps/NAME.zarr.")
    try:
        group = zarr.open_group(path, mode="r")
        if (main := MAIN[task_of(group)]) not in group:
            raise ValueError(f"it has no layer {main!r}")
        states = Ledger(path, LAYER).states()
    except (OSError, KeyError, ValueError) as error:
        raise MdicoError(f"map {path}: cannot be read as a map ({error}). Write it again with --overwrite.") from error
    failed, left = int((states == FAILED).sum()), int((states != DONE).sum())
    if left:
        why = f"{failed} of them could not be made" if failed else "writing was stopped or its file was removed"
        raise MdicoError(f"map {path}: lacks {some(left, 'shard')}: {why}. Finish it with --resume.")
    return group


def task_of(group: zarr.Group) -> str:
    """What a map tells: classes, labels side by side (multilabel), or a value (regression)."""
    return str(group.attrs.get("task", "classes"))


def unpacked(array: zarr.Array[Any], y: slice, x: slice) -> Floats:
    """A block (h, w) of a map of a value, in its unit, NaN = no prediction."""
    stored = np.asarray(array[y, x])
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    scale = np.float32(cast(float, array.attrs["scale_factor"]))
    return np.where(stored == array.fill_value, np.float32(np.nan), stored * scale).astype(np.float32)


def map_status(path: Path) -> dict[str, Any]:
    """What stands of a map: shards by state, and why the failed ones failed.

    Raises:
        MdicoError: not a map.
    """
    try:
        entries = Ledger(Path(path), LAYER).entries()
    except (OSError, KeyError, ValueError) as error:
        raise MdicoError(f"map {path}: cannot be read as a map ({error}). Write it again with --overwrite.") from error
    counts = dict.fromkeys(("done", "failed", "missing"), 0)
    for entry in entries.values():
        counts[STATE_NAMES[entry.state]] += 1
    errors = {f"{row},{column}": entry.error for (row, column), entry in entries.items() if entry.state == FAILED}
    return {**counts, "errors": errors}


def prepare(plan: MapPlan, target: Path, overwrite: bool, resume: bool) -> list[Place]:
    """Make sure that the target holds the map's layout and ledger; the shards that are to be made.

    Going on with a map that stands, its shards whose cube pixels changed since are made again.

    Raises:
        MdicoError: a map is there and neither overwrite nor resume was asked for, it was made from something else, or
            the folder holds no map.
    """
    if target.exists() and any(target.iterdir()):
        known = _known(target)
        if resume and not overwrite:
            _check_same(plan, target, known)
            return _due(plan, target, known)
        if not overwrite:
            raise MdicoError(f"map {target}: exists already. Use --overwrite to replace it or --resume to complete it.")
        shutil.rmtree(target)
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
    return [(int(row), int(column)) for row, column in np.ndindex(*shard_grid(plan.reader))]


def differences(plan: MapPlan, target: Path) -> list[str]:
    """What of a plan the map that lies there was not made with; a cube whose shards changed is none of it."""
    return _differences(plan, _known(Path(target)))


def map_shard(plan: MapPlan, target: Path, place: Place, digest: str, known: Known | None = None) -> Entry:
    """Make one shard of a map: read, predict, write, and record it last.

    What lies in the way of this shard alone, as a damaged file of the cube, is recorded as failed.

    Args:
        plan: of the map.
        target: its folder, as `prepare` left it.
        place: row and column.
        digest: of what decides the shard, from `MapPlan.digests`.
        known: windows that were computed for other shards, as `MapPlan.keep_windows` gives them.

    Raises:
        MdicoError: a bundle or the mask changed or is damaged, or the card is not there: no shard can be made.
        OSError: the disk is full or closed.
    """
    try:
        stack = plan.compute(plan.gather(*shard_window(plan, place)), known)
    except MdicoError as error:
        plan.check_models()
        return record_failure(target, place, digest, str(error))
    return write_shard(plan, target, place, digest, stack)


def write_shard(plan: MapPlan, target: Path, place: Place, digest: str, stack: Bytes) -> Entry:
    """Write one whole shard (L, h, w), and its ledger entry when every variable is on disk."""
    group: Any = zarr.open_group(target, mode="r+", use_consolidated=False)
    window = shard_window(plan, place)
    for each in plan.variables:
        group[each.name][(..., *window)] = each.of(stack)
    share = float(plan.variables[0].predicted(stack).mean())
    entry = Entry(DONE, digest, valid_fraction=share, bytes_written=stack.nbytes, version=__version__)
    Ledger(target, LAYER, "r+").record(*place, entry)
    return entry


def record_failure(target: Path, place: Place, digest: str, why: str) -> Entry:
    """Record that a shard could not be made."""
    entry = Entry(FAILED, digest, error=why, version=__version__)
    Ledger(target, LAYER, "r+").record(*place, entry)
    return entry


def shard_window(plan: MapPlan, place: Place) -> tuple[slice, slice]:
    """Rows and columns of a shard."""
    side, shape = plan.reader.shard, plan.reader.shape
    y, x = (slice(at * side, min((at + 1) * side, end)) for at, end in zip(place, shape, strict=True))
    return y, x


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
            f"map {target}: was begun with another {what} than {_shown(plan, what)}. Use --overwrite to start it again."
        )


def _differences(plan: MapPlan, known: dict[str, Any]) -> list[str]:
    facts, begun = {**plan.settings, **map_attrs(plan)}, {**_BEFORE, **known}
    found = [what for key, what in _DECIDES.items() if begun.get(key) != facts.get(key)]
    return found if begun.get("grid_digest") == facts["grid_digest"] else [*found, "cube"]


def _shown(plan: MapPlan, what: str) -> str:
    if what == "bundle":
        return ", ".join(str(member.path) for member in plan.members)
    if what == "cube":
        return str(plan.cube)
    if what == "int8":
        return "the bundle's calibration as it is now"
    value = plan.device if what == "device" else getattr(plan.options, what)
    if what == "outputs":
        return ", ".join(value) or "class and confidence alone"
    return "none" if value is None else str(value)


def _due(plan: MapPlan, target: Path, known: dict[str, Any]) -> list[Place]:
    """Shards that are not done, or were made from what the cube no longer holds: those are forgotten first."""
    ledger, wanted = Ledger(target, LAYER, "r+"), plan.digests()
    entries = ledger.entries()
    due = [place for place, entry in entries.items() if entry.state != DONE or entry.digest != wanted[place]]
    facts = map_attrs(plan)
    if known["cube_digest"] != facts["cube_digest"]:
        for place in due:
            ledger.forget(*place)
        zarr.open_group(target, mode="r+").attrs.update(facts)
    return due


def _create(plan: MapPlan, folder: Path) -> None:
    """The map's metadata, coordinates and empty ledger; no pixel yet."""
    reader = plan.reader
    height, width = reader.shape
    side = inner_side(reader.shard, reader.chunk)
    skeleton = xr.Dataset(coords=map_coords(plan), attrs=map_attrs(plan))
    skeleton.to_zarr(folder, mode="w-", zarr_format=3, consolidated=False)
    group = zarr.open_group(folder, mode="r+")
    for each in plan.variables:
        lead = () if each.layers is None else (each.layers,)
        group.create_array(
            each.name,
            shape=(*lead, height, width),
            dtype=each.dtype,
            chunks=(*lead, side, side),
            shards=(*lead, reader.shard, reader.shard),
            fill_value=each.missing,
            dimension_names=each.dims,
            attributes=each.attrs,
        )
    create_ledger(folder, LAYER, shard_grid(reader), MAIN[plan.task])


def inner_side(shard: int, chunk: int) -> int:
    """Pixels along an inner chunk of a map: more than of a cube, as it holds a byte where a cube holds a series."""
    return max(side for side in range(chunk, shard + 1, chunk) if shard % side == 0 and side <= max(_INNER, chunk))


@contextmanager
def mendable(target: Path) -> Iterator[None]:
    """A full disk or a closed folder as a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MdicoError(
            f"map {target}: cannot be written ({reason}). Free some space or choose a folder you may write to, "
            "then go on with --resume."
        ) from error
