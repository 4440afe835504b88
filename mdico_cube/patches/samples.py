"""A samples store on disk in, its windows, folds and statistics out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from mdico_cube.cube.layer import layer_from
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints
from mdico_cube.patches.windows import Windows
from mdico_cube.recipe import SampleSection
from mdico_cube.schema import UNLABELLED
from mdico_cube.spec import Array, BandStats, Bools, Floats, InputSpec, LabelClass

VERSION = 2
"""Layout of a samples store, in its attribute `mdico_samples`."""


@dataclass(frozen=True, slots=True)
class SampleStore:
    """A samples store, opened."""

    path: Path
    inputs: dict[str, InputSpec]
    """What a model takes of each modality."""
    legend: tuple[LabelClass, ...]
    fold: npt.NDArray[np.uint8]
    """(N,) 1 train, 2 validation, 3 test."""
    label: Ints
    """(N,) class index of the centre pixel."""
    side: int
    pixels: bool = True
    """False where the store holds positions and labels only and the pixels are read from the cube."""
    coarsen: dict[str, int] = field(default_factory=dict)
    """Modality -> side of the squares of pixels that became one."""
    value: str | None = None
    """Name of the value that is learned, and the legend is of parts of its range; None where the labels are classes."""

    @property
    def outputs(self) -> tuple[LabelClass, ...]:
        """What a model learns of these samples: the classes, or the one value."""
        return self.legend if self.value is None else (LabelClass(self.value, 1, "#888888"),)

    def target(self, rows: Ints) -> Array:
        """(n, side, side) stored class index, 255 = unlabelled; or float32 values, NaN = unlabelled."""
        return np.asarray(self.array("target" if self.value is None else "value").oindex[rows])

    def values(self, *folds: int) -> Floats:
        """The known values of these folds' pixels, in a row."""
        found = self.target(self.where(*folds))
        return np.asarray(found[~np.isnan(found)], dtype=np.float32)

    def windows(self, rows: Ints) -> Windows:
        """Where these samples lie on the cube's grid."""
        y, x, group = (self.column(name)[rows] for name in ("row", "column", "group"))
        return Windows(y, x, self.fold[rows], self.label[rows], self.side, group)

    def column(self, name: str) -> Array:
        """(N,) what is known of each sample.

        row, column: first pixel of the window; x, y: its centre in units of the CRS; lon, lat: in degrees; fold; label;
        block; group; observed_MODALITY: share of steps and pixels.
        """
        return np.asarray(self.array(name)[:])

    def missing(self, modality: str) -> Bools:
        """(N,) True where no pixel of a modality was observed in any step."""
        return np.asarray(self.column(f"observed_{modality}") == 0)

    def array(self, name: str) -> zarr.Array[Any]:
        """The stored array of a modality (N, T, C, h, w), "target" (N, side, side), or a column (N,)."""
        found = zarr.open_group(self.path, mode="r", zarr_format=3)[name]
        assert isinstance(found, zarr.Array)
        return found

    def where(self, *folds: int) -> Ints:
        """Indices of the samples of these folds."""
        return np.flatnonzero(np.isin(self.fold, folds)).astype(np.int64)

    def class_counts(self, *folds: int) -> tuple[int, ...]:
        """Labelled pixels per class in these folds; of a value, how many there are."""
        if self.value is not None:
            return (self.values(*folds).size,)
        target = np.asarray(self.array("target").oindex[self.where(*folds)])
        found = np.bincount(target[target != UNLABELLED].ravel(), minlength=len(self.legend))
        return tuple(int(n) for n in found)


def open_samples(path: Path) -> SampleStore:
    """Open a samples store.

    Raises:
        MdicoError: there is none.
    """
    root = _open(path)
    attrs: Any = root.attrs
    inputs = {}
    for name, facts in attrs["modalities"].items():
        layer, stats = layer_from(facts), facts["stats"]
        inputs[name] = InputSpec(
            layer.modality, layer.steps, BandStats(tuple(stats["mean"]), tuple(stats["std"]), stats["count"])
        )
    legend = tuple(LabelClass(**entry) for entry in attrs["legend"])
    fold, label = (root[key] for key in ("fold", "label"))
    assert isinstance(fold, zarr.Array)
    assert isinstance(label, zarr.Array)
    return SampleStore(
        path,
        inputs,
        legend,
        np.asarray(fold[:]).astype(np.uint8),
        np.asarray(label[:]).astype(np.int64),
        attrs["side"],
        attrs["pixels"],
        {name: SampleSection.model_validate(attrs["sampling"]).factor(name) for name in inputs},
        attrs.get("value"),
    )


def samples_attrs(path: Path) -> dict[str, Any]:
    """Everything a samples store says of itself.

    Raises:
        MdicoError: there is none.
    """
    return dict(_open(path).attrs)


def origin(path: Path) -> str:
    """What a samples store was made from, as `patches.extract.made_from` tells it; empty where it is not readable."""
    try:
        return str(samples_attrs(path).get("made_from", ""))
    except MdicoError:
        return ""


def _open(path: Path) -> zarr.Group:
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
    except (FileNotFoundError, ValueError, OSError) as error:
        raise MdicoError(f"{path}: there are no samples. Draw them with `mdico sample`.") from error
    if root.attrs.get("mdico_samples") != VERSION:
        raise MdicoError(f"{path}: is not a samples store of layout {VERSION}. Draw it again with `mdico sample`.")
    return root
