"""Frozen facts about bands, modalities, periods and statistics: names, units, storage. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset

from mdico_cube.errors import MdicoError, did_you_mean

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


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
class Period:
    """A season cut into time steps; both dates belong to it."""

    start: str
    """First day, ISO date."""
    end: str
    """Last day, ISO date, included."""
    step: str = "MS"
    """Pandas offset of the step starts: "MS" = calendar months, "10D" = ten days."""

    def edges(self) -> pd.DatetimeIndex:
        """Step edges in UTC-naive time: step i covers edges[i] <= t < edges[i + 1]; length steps + 1.

        Raises:
            MdicoError: the period is empty or the step is no pandas offset.
        """
        first, stop = pd.Timestamp(self.start), pd.Timestamp(self.end) + pd.Timedelta(days=1)
        if first >= stop:
            raise MdicoError(f"period: start {self.start} must come before end {self.end}.")
        try:
            starts = pd.date_range(first, stop, freq=self.step, inclusive="left")
            forward = first + to_offset(self.step) >= first + pd.Timedelta(days=1)
        except (ValueError, ZeroDivisionError) as error:
            raise MdicoError(
                f"period.step {self.step!r} is no pandas offset: use 'MS' for months or '10D' for ten days."
            ) from error
        if not forward:
            raise MdicoError(f"period.step {self.step!r} must move on by a day or more: use 'MS' or '10D'.")
        edges = starts if len(starts) and starts[0] == first else starts.insert(0, first)
        return pd.DatetimeIndex([*edges, stop])

    def steps(self) -> tuple[str, ...]:
        """ISO date of each step's first day."""
        return tuple(str(edge.date()) for edge in self.edges()[:-1])


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
