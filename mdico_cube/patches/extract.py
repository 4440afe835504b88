"""A cube and its windows in, a samples store out: every window of every modality, cut chunk by chunk through Dask."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import zarr

from mdico_cube.cube.change import writing
from mdico_cube.cube.layer import Layer, describe_layer
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, name_of
from mdico_cube.errors import MdicoError
from mdico_cube.patches.cutting import Plan, cut_windows, sorted_windows
from mdico_cube.patches.divide import places_digest
from mdico_cube.patches.draw import choose_windows, split_path
from mdico_cube.patches.samples import VERSION, origin, samples_attrs
from mdico_cube.progress import say
from mdico_cube.recipe import SampleSection


def extract_samples(
    cube: Location,
    target: Path,
    modalities: Sequence[str],
    section: SampleSection,
    overwrite: bool = False,
    resume: bool = False,
    pixels: bool = True,
) -> Path:
    """Split the cube's labels, draw windows and cut them from every modality into `target` (Zarr v3).

    The store is made beside its place and renamed: it is whole or it does not exist. With `resume` a store that was
    made from the same cube, labels and options is kept, one that was begun is gone on with, and any other is drawn
    again.

    Args:
        cube: where the cube lies.
        target: where the samples go.
        modalities: which are cut.
        section: how windows are drawn.
        overwrite: replace what stands there.
        resume: go on with what stands there.
        pixels: False leaves the pixels in the cube: positions, labels, folds and statistics are kept, which is all that
            training from the cube itself needs.

    Raises:
        MdicoError: the store exists, the cube lacks labels or a modality, or a class has no training window.
    """
    if target.exists() and not (overwrite or resume):
        raise MdicoError(f"{target}: exists already. Use --overwrite to draw the samples again.")
    reader = open_reader(cube)
    if target.exists() and not overwrite:
        if origin(target) == made_from(reader, modalities, section, pixels):
            say("sample: the samples stand, skipped")
            return target
        say("sample: cube, labels or options have changed, so the samples are drawn again")
    reader.check_complete(modalities)
    windows = sorted_windows(choose_windows(cube, target.parent, modalities, section).windows, reader.chunk)
    draft = target.with_name(f".{target.name}.draft")
    coarsen = {name: section.factor(name) for name in modalities}
    plan = Plan(cube, split_path(target.parent), draft, tuple(modalities), pixels, _target(section), coarsen)
    with writing(target):
        if not resume:
            shutil.rmtree(draft, ignore_errors=True)
        stats = cut_windows(plan, windows, _attrs(reader, tuple(modalities), section, pixels))
        root = zarr.open_group(draft, mode="r+", zarr_format=3)
        facts: Any = root.attrs["modalities"]
        root.attrs["modalities"] = {name: {**facts[name], "stats": asdict(stats[name])} for name in modalities}
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return target


def _target(section: SampleSection) -> Literal["dense", "centre", "patch"]:
    """Which pixels carry a label: a class of the places' own file is that of the whole window already."""
    own = section.target == "patch" and section.places is not None and section.places.label is not None
    return "centre" if own else section.target


def made_from(reader: CubeReader, modalities: Sequence[str], section: SampleSection, pixels: bool) -> str:
    """SHA-256 of all that decides a samples store: pixels, labels, modalities, options and places of a file."""
    options = section.model_dump(mode="json")
    facts = [reader.identity(modalities), list(modalities), options, pixels, places_digest(section)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_origin(samples: Path, reader: CubeReader) -> None:
    """Raise MdicoError unless the samples were drawn from this very cube and its labels."""
    attrs: Any = samples_attrs(samples)
    section = SampleSection.model_validate(attrs["sampling"])
    if attrs["made_from"] != made_from(reader, tuple(attrs["modalities"]), section, attrs["pixels"]):
        raise MdicoError(
            f"{samples}: was drawn from another cube, other labels or other places than {reader.path} holds now. "
            "Draw it again with `mdico sample --resume`."
        )


def _attrs(reader: CubeReader, modalities: tuple[str, ...], section: SampleSection, pixels: bool) -> dict[str, Any]:
    return {
        "mdico_samples": VERSION,
        "made_from": made_from(reader, modalities, section, pixels),
        "cube": name_of(reader.path),
        "pixels": pixels,
        "side": section.patch,
        "crs": str(reader.attrs["proj:code"]),
        "sampling": section.model_dump(mode="json"),
        "legend": [asdict(entry) for entry in reader.legend],
        **({} if reader.value is None else {"value": reader.value}),
        "modalities": {name: describe_layer(Layer(reader.modalities[name], reader.steps(name))) for name in modalities},
    }
