"""Frozen facts about bands, modalities, classes and statistics: names, units, storage. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mdico_cube.errors import MdicoError, did_you_mean

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
_MANY = 256
"""Values of a time step from which each is looked at by itself."""
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def alike(value: float, array: Array) -> float:
    """The same number, as an int where it is whole and the array holds integers: comparing then converts no pixel."""
    return int(value) if array.dtype.kind in "iu" and float(value).is_integer() else value


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a modality in physical units."""

    name: str
    """Name used in cubes, recipes and bundles, for example "B04" or "vv"."""
    unit: str
    """Physical unit of a cube's values: "reflectance", "dB", "m", "degree", "1", "K", "mm"."""
    resampling: Resampling = "bilinear"
    """How the source is resampled to the cube's grid."""
    title: str = ""
    """What a person calls it, for example "red"."""
    lapses: bool = False
    """True for air temperatures: on a coarse grid they are brought from the cells' height to the pixels'."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How physical values stand in a cube: stored = round(physical / scale), one stored value means missing."""

    dtype: Literal["uint16", "int16", "float32"]
    scale: float
    """Physical units per stored count; 1.0 for floats."""
    missing: float
    """Stored value that means "not observed": an integer, or NaN for float32."""

    def pack(self, physical: Array) -> Array:
        """Physical float values (NaN = missing) to stored values; values outside the range are clipped to its ends."""
        if self.dtype == "float32":
            return physical.astype(np.float32)
        info = np.iinfo(self.dtype)
        low = info.min + (self.missing == info.min)
        high = info.max - (self.missing == info.max)
        counts = np.clip(np.rint(np.nan_to_num(physical, nan=0.0) / self.scale), low, high)
        return np.where(np.isnan(physical), self.missing, counts).astype(self.dtype)

    def observed(self, stored: Array) -> Bools:
        """True where a stored value is an observation."""
        if self.dtype == "float32":
            return ~np.isnan(stored)
        return np.not_equal(stored, np.dtype(self.dtype).type(self.missing))

    def unpack(self, stored: Array, out: Floats | None = None) -> tuple[Floats, Bools]:
        """Stored values to (physical float32 with 0 where missing, True where observed), both of the input's shape.

        `out` receives the physical values where it is given.
        """
        observed = self.observed(stored)
        if self.dtype == "float32":
            values = np.empty(stored.shape, dtype=np.float32) if out is None else out
            values[...] = np.where(observed, stored, np.float32(0))
            return values, observed
        values = np.multiply(stored, np.float32(self.scale), out=out, dtype=np.float32)
        values *= observed
        return values, observed

    def fill(self, stored: Array, values: Floats, seen: Bools) -> None:
        """Stored (..., C, h, w) into physical `values` of the same shape, 0 where missing, and `seen` (..., h, w).

        `seen` is True where every band was observed. It is `unpack` with fewer passes: the largest or smallest stored
        value tells whether a step misses anything, and where it does not, no pixel is looked at by itself.
        """
        extreme = self._extreme
        if extreme is None or not stored.size:
            self.unpack(stored, values)
            seen[...] = self.seen(stored)
            return
        if prod(stored.shape[-3:]) >= _MANY:
            places: Any = zip(*np.nonzero(extreme.reduce(stored, axis=(-3, -2, -1)) == self.missing), strict=True)
        else:  # all steps are looked at together
            places = [...] if extreme.reduce(stored, axis=None) == self.missing else []
        np.multiply(stored, np.float32(self.scale), out=values, dtype=np.float32)
        seen[...] = True
        for place in places:
            observed = self.observed(stored[place])
            values[place] *= observed
            seen[place] = np.logical_and.reduce(observed, axis=-3)

    def seen(self, stored: Array) -> Bools:
        """Stored (..., C, h, w) to (..., h, w) True where every band was observed."""
        if self._extreme is None:
            return np.asarray(np.logical_and.reduce(self.observed(stored), axis=-3))
        return np.asarray(self._extreme.reduce(stored, axis=-3) != self.missing)

    @property
    def _extreme(self) -> np.ufunc | None:
        """What finds the missing value: it is the largest or the smallest of its type; None where it is neither."""
        if self.dtype == "float32":
            return None
        info = np.iinfo(self.dtype)
        return {info.max: np.maximum, info.min: np.minimum}.get(int(self.missing))


@dataclass(frozen=True, slots=True)
class Modality:
    """One sensor's group in a cube."""

    name: str
    """Group name in the cube, for example "sentinel2"."""
    variable: str
    """Data variable inside the group, for example "reflectance"."""
    bands: tuple[Band, ...]
    """Bands in stored order: the C axis."""
    storage: Storage
    temporal: bool = True
    """False for terrain: the stored array is (band, y, x) and reads as one time step."""
    title: str = ""
    """What a person calls the sensor."""
    coarse: bool = False
    """True for weather: stored as (time, band, latitude, longitude) on its source's grid, interpolated when read."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in stored order."""
        return tuple(band.name for band in self.bands)

    @property
    def units(self) -> tuple[str, ...]:
        """Units in stored order."""
        return tuple(band.unit for band in self.bands)

    def select(self, names: tuple[str, ...] | None) -> Modality:
        """The same modality with these bands in this order (None keeps all).

        Raises:
            MdicoError: a name is not a band of this modality.
        """
        if names is None:
            return self
        known = {band.name: band for band in self.bands}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise MdicoError(
                f"{self.name}: unknown band {', '.join(unknown)}. Use some of: {', '.join(known)}."
                f"{did_you_mean(unknown[0], known)}"
            )
        return replace(self, bands=tuple(known[name] for name in names))


@dataclass(frozen=True, slots=True)
class BandStats:
    """Mean and standard deviation per band over observed training pixels, in physical units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Never zero: a constant band has 1.0."""
    count: int
    """Observed values per band they were computed from."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model takes of one modality: (B, T, C, H, W) with T = len(steps), C = len(modality.bands)."""

    modality: Modality
    steps: tuple[str, ...]
    """ISO date of each time step's first day; one empty string for a modality without time."""
    stats: BandStats


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class of the map."""

    name: str
    value: int
    """Value written in maps, 0..254; 255 is nodata."""
    color: str
    """Hex colour "#rrggbb"."""
