"""A run's maps, labels and held-out blocks in; scores.json out, from confusion matrices summed shard by shard."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import cube_of
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import read_legend
from mdico_cube.maps.origin import cube_digest
from mdico_cube.maps.predict import windows
from mdico_cube.maps.scores import Counts, Scores, score
from mdico_cube.maps.write import find_maps, read_map
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.splits import TEST, Split
from mdico_cube.progress import track


def evaluate(out: Path, overwrite: bool = False, paths: Sequence[Path] | None = None) -> Scores:
    """Score every map of a run on the labelled pixels of the held-out blocks and write `<out>/scores.json`.

    Args:
        out: folder of the run, with cube.zarr, split.zarr and maps/.
        overwrite: replace a scores.json that is there.
        paths: maps to score; None = every map under maps/.

    Raises:
        MdicoError: no map, an incomplete map, one of another cube, no held-out label, or scores.json exists.
    """
    out = Path(out)
    target = out / "scores.json"
    if target.exists() and not overwrite:
        raise MdicoError(f"scores {target}: exist already. Use --overwrite to replace them.")
    paths = find_maps(out) if paths is None else paths
    if not paths or not all(path.exists() for path in paths):
        raise MdicoError(f"maps {out / 'maps'}: hold no map to score. Make one with mdico predict.")
    reader, split = open_reader(cube_of(out)), open_split(out / "split.zarr")
    maps = []
    for path in track(paths, "score maps", len(paths)):
        group = read_map(path)
        _check_cube(path, group, reader)
        counts = confusion(group, reader, split)
        if not counts.any():
            raise MdicoError(
                f"split {out / 'split.zarr'}: no held-out block has a labelled pixel, so nothing can be scored. "
                "Raise samples.test, lower samples.block, or give labels that cover more of the area."
            )
        facts = {name: group.attrs[name] for name in ("method", "modality", "sensor", "seed", "protocol")}
        maps.append(score(counts, reader.legend, facts))
    scores = Scores(reader.legend, tuple(maps))
    write_scores(scores, target)
    return scores


def confusion(group: zarr.Group, reader: CubeReader, split: Split) -> Counts:
    """(K, K + 1) pixels of held-out blocks: row = label, column = prediction, last column = none."""
    classes = len(reader.legend)
    predictions: Any = group["class"]
    index = np.full(256, classes)
    for k, item in enumerate(reader.legend):
        index[item.value] = k
    total = np.zeros(classes * (classes + 1), np.int64)
    for y, x in windows(reader.shape, reader.shard):
        held_out = split.folds(reader, y, x) == TEST
        if held_out.any():
            labels = reader.labels(y, x)
            chosen = held_out & (labels >= 0)
            predicted = index[np.asarray(predictions[y, x])[chosen]]
            total += np.bincount(labels[chosen] * np.int64(classes + 1) + predicted, minlength=len(total))
    return total.reshape(classes, classes + 1)


def write_scores(scores: Scores, target: Path) -> None:
    """Write scores as JSON, whole or not at all."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(scores.to_dict(), indent=1), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MdicoError(f"scores {target}: cannot be written ({error.strerror}). Free some space there.") from error


def read_scores(out: Path) -> Scores:
    """The scores of a run.

    Raises:
        MdicoError: there are none.
    """
    path = Path(out) / "scores.json"
    try:
        return Scores.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MdicoError(f"scores {path}: cannot be read ({error.strerror}). Run mdico evaluate first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MdicoError(f"scores {path}: are damaged ({error}). Run mdico evaluate --overwrite.") from error


def _check_cube(path: Path, group: zarr.Group, reader: CubeReader) -> None:
    names: Any = group.attrs["modalities"]
    if group.attrs["cube_digest"] != cube_digest(reader, *names) or read_legend(group) != reader.legend:
        raise MdicoError(
            f"map {path}: was made from another cube than {reader.path}. Make it again with mdico predict --overwrite."
        )
