"""A cube and its windows in, a samples store out: every window of every modality, cut chunk by chunk through Dask."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from mdico_cube.cube.change import writing
from mdico_cube.cube.layer import Layer, describe_layer
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, name_of
from mdico_cube.errors import MdicoError
from mdico_cube.patches.draw import choose_windows
from mdico_cube.patches.samples import VERSION, origin, samples_attrs
from mdico_cube.patches.sources import Group, cut, group_windows
from mdico_cube.patches.splits import TRAIN, Ints, Split
from mdico_cube.patches.stats import RunningStats
from mdico_cube.patches.windows import Windows
from mdico_cube.progress import say, track
from mdico_cube.recipe import SampleSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, BandStats, LabelClass

_WAVE = 32  # groups of windows in one Dask call: bounds memory and graph, whatever the region


def extract_samples(
    cube: Location,
    target: Path,
    modalities: Sequence[str],
    section: SampleSection,
    overwrite: bool = False,
    resume: bool = False,
) -> Path:
    """Split the cube's labels, draw windows and cut them from every modality into `target` (Zarr v3).

    The store is made beside its place and renamed: it is whole or it does not exist. With `resume` a store that was
    made from the same cube, labels and options is kept, and any other is drawn again.

    Raises:
        MdicoError: the store exists, the cube lacks labels or a modality, or a class has no training window.
    """
    if target.exists() and not (overwrite or resume):
        raise MdicoError(f"{target}: exists already. Use --overwrite to draw the samples again.")
    reader = open_reader(cube)
    if target.exists() and not overwrite:
        if origin(target) == made_from(reader, modalities, section):
            say("sample: the samples stand, skipped")
            return target
        say("sample: cube, labels or options have changed, so the samples are drawn again")
    reader.check_complete(modalities)
    layers = {name: reader.array(name) for name in modalities}
    sampling = choose_windows(cube, target.parent, modalities, section)
    drawn, split = sampling.windows, sampling.split
    groups = group_windows(drawn, reader.chunk)
    draft = target.with_name(f".{target.name}.draft")
    with writing(target):
        shutil.rmtree(draft, ignore_errors=True)
        root = zarr.open_group(draft, mode="w", zarr_format=3)
        arrays = _create_arrays(root, {name: tuple(layers[name].shape) for name in layers}, reader, section.patch)
        stats = {name: RunningStats(len(reader.modalities[name].bands)) for name in modalities}
        kept = 0
        for group, values in track(_cut_all(cube, groups, drawn, modalities), "sample", len(groups)):
            kept += _store_group(arrays, stats, reader, drawn.take(group.index), values, split, section)
        windows = len(drawn)
        if kept < windows:
            say(f"sample: {windows - kept} of {windows} windows were observed too seldom and are left out")
        facts = {name: (stat.result(), reader.steps(name)) for name, stat in stats.items()}
        root.attrs.update(_attrs(reader, facts, section))
        _check_classes(np.asarray(arrays["fold"][:]), np.asarray(arrays["label"][:]), reader.legend)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return target


def made_from(reader: CubeReader, modalities: Sequence[str], section: SampleSection) -> str:
    """SHA-256 of all that decides a samples store: pixels, labels, modalities and options."""
    facts = [reader.identity(modalities), list(modalities), section.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_origin(samples: Path, reader: CubeReader) -> None:
    """Raise MdicoError unless the samples were drawn from this very cube and its labels."""
    attrs: Any = samples_attrs(samples)
    section = SampleSection.model_validate(attrs["sampling"])
    if attrs["made_from"] != made_from(reader, tuple(attrs["modalities"]), section):
        raise MdicoError(
            f"{samples}: was drawn from another cube or other labels than {reader.path} holds now. "
            "Draw it again with `mdico sample --resume`."
        )


def cut_group(cube: Location, group: Group, y: Ints, x: Ints, side: int, modalities: Sequence[str]) -> dict[str, Array]:
    """Stored values (N, T, C, side, side) of the windows at rows y, columns x, per modality."""
    reader = open_reader(cube)
    y, x = y - group.y.start, x - group.x.start
    return {name: cut(reader.stored(name, group.y, group.x), y, x, side) for name in modalities}


def _cut_all(
    cube: Location, groups: list[Group], windows: Windows, modalities: Sequence[str]
) -> Iterator[tuple[Group, dict[str, Array]]]:
    task = dask.delayed(cut_group, pure=False)
    for start in range(0, len(groups), _WAVE):
        wave = groups[start : start + _WAVE]
        tasks = [task(cube, g, windows.y[g.index], windows.x[g.index], windows.side, tuple(modalities)) for g in wave]
        yield from zip(wave, dask.compute(*tasks, scheduler="threads"), strict=True)  # type: ignore[no-untyped-call]


def _create_arrays(
    root: zarr.Group, shapes: dict[str, tuple[int, ...]], reader: CubeReader, side: int
) -> dict[str, zarr.Array[Any]]:
    codec: Any = [ZstdCodec(level=1)]
    arrays: dict[str, zarr.Array[Any]] = {}
    for name, shape in shapes.items():
        inner = (*(shape[:2] if len(shape) == 4 else (1, shape[0])), side, side)
        rows = max(1, min(4096, (4 << 20) // (int(np.prod(inner)) * 2)))
        arrays[name] = root.create_array(
            name, shape=(0, *inner), chunks=(rows, *inner), compressors=codec,
            dtype=reader.modalities[name].storage.dtype, dimension_names=("sample", "time", "band", "y", "x"),
        )  # fmt: skip
    arrays["target"] = root.create_array(
        "target", shape=(0, side, side), chunks=(4096, side, side), dtype="uint8", compressors=codec,
        dimension_names=("sample", "y", "x"),
    )  # fmt: skip
    for name, dtype in (("row", "int64"), ("column", "int64"), ("fold", "uint8"), ("label", "int64")):
        arrays[name] = root.create_array(name, shape=(0,), chunks=(65536,), dtype=dtype, dimension_names=("sample",))
    return arrays


def _store_group(
    arrays: dict[str, zarr.Array[Any]],
    stats: dict[str, RunningStats],
    reader: CubeReader,
    windows: Windows,
    values: dict[str, Array],
    split: Split,
    section: SampleSection,
) -> int:
    """Append the windows that were observed often enough, and count their training pixels; returns how many."""
    physical = {name: reader.modalities[name].storage.unpack(stored) for name, stored in values.items()}
    seen = {name: observed.all(axis=2) for name, (_, observed) in physical.items()}  # (N, T, h, w)
    shares = np.stack([mask.mean(axis=(1, 2, 3)) for mask in seen.values()])  # (modalities, N)
    least = np.array([[section.least_valid(name)] for name in seen])
    keep = np.asarray(((shares >= least) & (shares > 0)).all(axis=0))
    chosen = windows.take(np.flatnonzero(keep))
    if not len(chosen):
        return 0
    for name, stored in values.items():
        arrays[name].append(stored[keep])
        train = np.flatnonzero(keep & (windows.fold == TRAIN))
        stats[name].add(np.asarray(physical[name][0])[train], np.asarray(seen[name])[train])
    arrays["target"].append(_targets(chosen, reader, split))
    for name, column in (("row", chosen.y), ("column", chosen.x), ("fold", chosen.fold), ("label", chosen.label)):
        arrays[name].append(column)
    return len(chosen)


def _targets(windows: Windows, reader: CubeReader, split: Split) -> npt.NDArray[np.uint8]:
    """Class index (N, side, side); 255 for pixels that are unlabelled or not of the window's fold."""
    y, x, side = windows.y, windows.x, windows.side
    block = slice(int(y.min()), int(y.max()) + side), slice(int(x.min()), int(x.max()) + side)
    label, folds = reader.labels(*block), split.folds(reader, *block)
    step = np.arange(side)
    rows = (y - block[0].start)[:, None, None] + step[None, :, None]
    columns = (x - block[1].start)[:, None, None] + step[None, None, :]
    own = folds[rows, columns] == windows.fold[:, None, None]
    return np.where(own, label[rows, columns], UNLABELLED).astype(np.uint8)


def _attrs(
    reader: CubeReader, facts: dict[str, tuple[BandStats, tuple[str, ...]]], section: SampleSection
) -> dict[str, Any]:
    return {
        "mdico_samples": VERSION,
        "made_from": made_from(reader, tuple(facts), section),
        "cube": name_of(reader.path),
        "sampling": section.model_dump(mode="json"),
        "legend": [asdict(entry) for entry in reader.legend],
        "modalities": {
            name: {**describe_layer(Layer(reader.modalities[name], steps)), "stats": asdict(stats)}
            for name, (stats, steps) in facts.items()
        },
    }


def _check_classes(fold: Array, label: Array, legend: tuple[LabelClass, ...]) -> None:
    lacking = [entry.name for i, entry in enumerate(legend) if not ((fold == TRAIN) & (label == i)).any()]
    if lacking:
        raise MdicoError(
            f"samples: no training window of {', '.join(lacking)} was observed often enough. Lower samples.min_valid."
        )
