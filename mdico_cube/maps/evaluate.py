"""A run's maps, labels and held-out blocks in; scores.json out, from counts and sums that add up shard by shard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import cube_of
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import read_legend
from mdico_cube.maps.mapstore import task_of, unpacked
from mdico_cube.maps.origin import cube_digest
from mdico_cube.maps.predict import windows
from mdico_cube.maps.scores import ClassScores, Counts, Scores, score
from mdico_cube.maps.tallies import LabelTally, ValueTally, labels_around
from mdico_cube.maps.task_scores import MapFigures, TaskScores
from mdico_cube.maps.write import find_maps, read_map
from mdico_cube.patches.divide import open_split
from mdico_cube.patches.splits import TEST, Split
from mdico_cube.progress import track
from mdico_cube.spec import Bools, Floats

AnyScores = Scores | TaskScores
"""Of maps of classes; of labels side by side or of a value."""


def evaluate(out: Path, overwrite: bool = False, paths: Sequence[Path] | None = None, made_from: str = "") -> AnyScores:
    """Score every map of a run on the labelled pixels of the held-out blocks and write `<out>/scores.json`.

    Args:
        out: folder of the run, with cube.zarr, split.zarr and maps/.
        overwrite: replace a scores.json that is there.
        paths: maps to score; None = every map under maps/.
        made_from: digest of what decides the scores, to be kept with them.

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
    maps: list[Any] = []
    tasks = dict.fromkeys(task_of(read_map(path)) for path in paths)
    if len(tasks) > 1:
        raise MdicoError(f"maps {out / 'maps'}: tell {' and '.join(tasks)}, which no table compares. Score one kind.")
    for path in track(paths, "score maps", len(paths)):
        group = read_map(path)
        _check_cube(path, group, reader)
        facts = {name: group.attrs[name] for name in ("method", "modality", "sensor", "seed", "protocol")}
        found = _SCORED[task_of(group)](group, reader, split, facts)
        if not found.pixels:
            raise MdicoError(
                f"split {out / 'split.zarr'}: no held-out block has a labelled pixel, so nothing can be scored. "
                "Raise samples.test, lower samples.block, or give labels that cover more of the area."
            )
        maps.append(found)
    (task,) = tasks
    legend = read_legend(read_map(paths[0]))
    scores: AnyScores = Scores(legend, tuple(maps)) if task == "classes" else TaskScores(task, legend, tuple(maps))
    write_scores(scores, target, made_from)
    return scores


Facts = dict[str, Any]


def _classes_scored(group: zarr.Group, reader: CubeReader, split: Split, facts: Facts) -> Any:
    counts = confusion(group, reader, split)
    return score(counts, reader.legend, facts) if counts.any() else Nothing()


class Nothing:
    """What a map without a held-out label gets."""

    pixels = 0


def _labels_scored(group: zarr.Group, reader: CubeReader, split: Split, facts: Facts) -> Any:
    """Each label by itself, against the classes around each held-out pixel."""
    options: Any = group.attrs["task_options"]
    legend, bits = read_legend(group), cast(Any, group["labels"])
    share, patch = options["share"], int(options["patch"])
    tally = LabelTally.of(len(legend))
    for y, x in windows(reader.shape, reader.shard):
        chosen = split.folds(reader, y, x) == TEST
        if not chosen.any():
            continue
        truth, known = _around(reader, y, x, len(legend), share, patch)
        chosen &= known
        stored = np.asarray(bits[y, x])[chosen]
        said = (stored[:, None].astype(np.uint64) >> np.arange(len(legend), dtype=np.uint64) & np.uint64(1)) == 1
        tally.add(truth[chosen], said, stored != bits.fill_value)
    each = tuple(ClassScores(item.name, **one) for item, one in zip(legend, tally.each, strict=True))  # type: ignore[arg-type]
    gone = tally.unpredicted / max(tally.pixels, 1)
    return MapFigures(**facts, figures=tally.figures, unpredicted=gone, pixels=tally.pixels, labels=each)


def _around(
    reader: CubeReader, y: slice, x: slice, classes: int, share: float | None, patch: int
) -> tuple[Bools, Bools]:
    """`labels_around` of a block: the classes next to it count too."""
    far = patch if share is not None else 0
    rows, columns = (
        slice(max(0, axis.start - far), min(end, axis.stop + far))
        for axis, end in zip((y, x), reader.shape, strict=True)
    )
    there, known = labels_around(reader.labels(rows, columns), classes, share, patch)
    own = (
        slice(y.start - rows.start, y.stop - rows.start),
        slice(x.start - columns.start, x.stop - columns.start),
    )
    return there[own], known[own]


def _value_scored(group: zarr.Group, reader: CubeReader, split: Split, facts: Facts) -> Any:
    """The value against the true one of each held-out pixel; what spans them is looked for first."""
    values: Any = group["value"]
    spans = [(truth.min(), truth.max()) for _, _, _, truth in _true_values(reader, split)]
    if not spans:
        return Nothing()
    low, high = float(min(low for low, _ in spans)), float(max(high for _, high in spans))
    tally = ValueTally(low, high)
    for y, x, chosen, truth in _true_values(reader, split):
        tally.add(truth, unpacked(values, y, x)[chosen])
    gone = tally.unpredicted / max(tally.pixels, 1)
    counts = tuple(tuple(int(n) for n in row) for row in tally.counts)
    return MapFigures(
        **facts, figures=tally.figures, unpredicted=gone, pixels=tally.pixels, counts=counts, limits=(low, high)
    )


def _true_values(reader: CubeReader, split: Split) -> Iterator[tuple[slice, slice, Bools, Floats]]:
    """Rows, columns, (h, w) the held-out pixels of a block whose value is known, and these values (N,)."""
    for y, x in windows(reader.shape, reader.shard):
        chosen = split.folds(reader, y, x) == TEST
        if chosen.any():
            truth = reader.values(y, x)
            chosen &= ~np.isnan(truth)
            if chosen.any():
                yield y, x, chosen, truth[chosen]


_SCORED = {"classes": _classes_scored, "multilabel": _labels_scored, "regression": _value_scored}


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


def write_scores(scores: AnyScores, target: Path, made_from: str = "") -> None:
    """Write scores as JSON, whole or not at all."""
    facts = {**scores.to_dict(), "made_from": made_from}
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MdicoError(f"scores {target}: cannot be written ({error.strerror}). Free some space there.") from error


def read_scores(out: Path) -> AnyScores:
    """The scores of a run.

    Raises:
        MdicoError: there are none.
    """
    path = Path(out) / "scores.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return TaskScores.from_dict(data) if "task" in data else Scores.from_dict(data)
    except OSError as error:
        raise MdicoError(f"scores {path}: cannot be read ({error.strerror}). Run mdico evaluate first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MdicoError(f"scores {path}: are damaged ({error}). Run mdico evaluate --overwrite.") from error


def _check_cube(path: Path, group: zarr.Group, reader: CubeReader) -> None:
    names: Any = group.attrs["modalities"]
    other = task_of(group) != "regression" and read_legend(group) != reader.legend
    if group.attrs["cube_digest"] != cube_digest(reader, *names) or other:
        raise MdicoError(
            f"map {path}: was made from another cube than {reader.path}. Make it again with mdico predict --overwrite."
        )
