"""A recipe in, where each result of its run stands out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdico_cube.cube.target import Location, cube_location
from mdico_cube.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Places:
    """Where each result of a run stands."""

    out: Path
    cube: Location
    """In the folder or elsewhere, as the recipe's store section says."""

    @classmethod
    def of(cls, recipe: Recipe) -> Places:
        """The places of a recipe's run."""
        return cls(recipe.output, cube_location(recipe))

    @property
    def samples(self) -> Path:
        """The samples store (Zarr v3)."""
        return self.out / "samples.zarr"

    def model(self, method: str, seed: int) -> Path:
        """Checkpoints and history of one training."""
        return self.out / "models" / method / f"seed-{seed}"

    def bundle(self, method: str, seed: int, modality: str) -> Path:
        """One sensor's model."""
        return self.out / "bundles" / method / f"seed-{seed}" / modality
