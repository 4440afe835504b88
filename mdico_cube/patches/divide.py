"""A cube's labels and the options of a split in, the split on disk out: a few small tables, kept beside the cube."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mdico_cube.cube.change import writing
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints, Split, assign_folds
from mdico_cube.patches.tally import Tally, tally_cube
from mdico_cube.recipe import SampleSection

VERSION = 1
"""Layout of a stored split, in its attribute `mdico_split`."""
_OPTIONS = ("block", "guard", "split", "folds", "test_fold", "validation", "test", "seed")


def make_split(cube: Location, target: Path, section: SampleSection) -> Split:
    """Decide the fold of every block, group or year of a cube's labels and keep it at `target` (Zarr v3).

    A split that was made from the same labels and options is kept as it is. It is made beside its place and renamed.

    Raises:
        MdicoError: no labels, no groups or dates where the split needs them, or too little that is labelled.
    """
    reader = open_reader(cube)
    origin = split_origin(reader, section)
    if _origin(target) == origin:
        return open_split(target)
    split = divide(reader, tally_cube(cube, section.block), section)
    draft = target.with_name(f".{target.name}.draft")
    with writing(target):
        shutil.rmtree(draft, ignore_errors=True)
        root = zarr.open_group(draft, mode="w", zarr_format=3)
        for name, values in (("fold", split.fold), ("home", split.home)):
            if values is not None:
                root.create_array(
                    name, data=np.asarray(values), dimension_names=("unit" if name == "fold" else "parcel",)
                )
        facts = {"block": split.block, "guard": split.guard, "by": split.by, "shape": list(split.shape)}
        root.attrs.update({"mdico_split": VERSION, "made_from": origin, **facts})
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return open_split(target)


def split_origin(reader: CubeReader, section: SampleSection) -> str:
    """SHA-256 of all that decides a split: the grid, the labels on it, and the options."""
    facts = [reader.identity(()), section.model_dump(mode="json", include=set(_OPTIONS))]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def divide(reader: CubeReader, tally: Tally, section: SampleSection) -> Split:
    """The split of a cube whose labels were counted by blocks of `section.block` pixels."""
    across = -(-reader.shape[1] // section.block)
    blocks = -(-reader.shape[0] // section.block) * across
    home = home_blocks(tally)
    owned = tally.parcel > 0
    unit = np.where(owned, home[tally.parcel], tally.block)
    counts = tally.counts(unit, blocks, len(reader.legend))
    fold = assign_folds(counts, section, "labelled blocks")
    return Split(reader.shape, section.block, section.guard, section.split, fold, home if owned.any() else None)


def home_blocks(tally: Tally) -> Ints:
    """(parcels + 1,) the block that holds most of each parcel, of equals the first; -1 for a number never seen."""
    owned = tally.parcel > 0
    parcel, block, pixels = tally.parcel[owned], tally.block[owned], tally.pixels[owned]
    new = np.ones(parcel.size, dtype=bool)
    new[1:] = (np.diff(parcel) != 0) | (np.diff(block) != 0)
    first = np.flatnonzero(new)
    home = np.full(int(parcel.max(initial=0)) + 1, -1, dtype=np.int64)
    if first.size:
        parcel, block, pixels = parcel[first], block[first], np.add.reduceat(pixels, first)
        order = np.lexsort((block, -pixels))[::-1]  # the last write wins: most pixels, then the first block
        home[parcel[order]] = block[order]
    return home


def open_split(path: Path | str) -> Split:
    """A stored split; one that is written again is read again.

    Raises:
        MdicoError: there is none.
    """
    path = Path(path).resolve()
    return _open_cached(path, _origin(path))


@lru_cache(maxsize=4)
def _open_cached(path: Path, origin: str) -> Split:
    if not origin:
        raise MdicoError(f"{path}: there is no split of layout {VERSION}. Draw samples with `mdico sample`.")
    root = zarr.open_group(path, mode="r", zarr_format=3)
    facts: Any = root.attrs
    home = np.asarray(root["home"][...]).astype(np.int64) if "home" in root else None  # type: ignore[index]
    fold = np.asarray(root["fold"][...]).astype(np.uint8)  # type: ignore[index]
    return Split((facts["shape"][0], facts["shape"][1]), facts["block"], facts["guard"], facts["by"], fold, home)


def _origin(path: Path) -> str:
    try:
        attrs: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs
        return str(attrs["made_from"]) if attrs.get("mdico_split") == VERSION else ""
    except (FileNotFoundError, ValueError, OSError, KeyError):
        return ""
