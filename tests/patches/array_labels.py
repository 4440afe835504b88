"""Labels held in arrays, read as a cube's are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdico_cube.patches.divide import divide
from mdico_cube.patches.splits import Folds, Split
from mdico_cube.patches.tally import merge_tallies, tally_block
from mdico_cube.recipe import SampleSection
from mdico_cube.spec import LabelClass


@dataclass(frozen=True)
class ArrayLabels:
    """What `LabelReader` asks for, and a legend."""

    label: npt.NDArray[np.int16]
    parcel: npt.NDArray[np.int32] | None = None
    classes: int = 3
    parcel_dates: npt.NDArray[np.datetime64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.label.shape  # type: ignore[return-value]

    @property
    def legend(self) -> tuple[LabelClass, ...]:
        return tuple(LabelClass(f"class {i}", i + 1, "#000000") for i in range(self.classes))

    def labels(self, y: slice, x: slice) -> npt.NDArray[np.int16]:
        return self.label[y, x]

    def parcels(self, y: slice, x: slice) -> npt.NDArray[np.int32] | None:
        return None if self.parcel is None else self.parcel[y, x]

    def split(self, section: SampleSection, shard: int = 16) -> Split:
        """The split as a cube of these shards would get it."""
        across = -(-self.shape[1] // section.block)
        parts = [
            tally_block(
                self.label[y : y + shard, x : x + shard],
                None if self.parcel is None else self.parcel[y : y + shard, x : x + shard],
                y, x, section.block, across,
            )
            for y in range(0, self.shape[0], shard)
            for x in range(0, self.shape[1], shard)
        ]  # fmt: skip
        return divide(self, merge_tallies(parts), section)  # type: ignore[arg-type]

    def folds(self, section: SampleSection) -> Folds:
        """The fold of every pixel."""
        return self.split(section).folds(self, slice(0, self.shape[0]), slice(0, self.shape[1]))
