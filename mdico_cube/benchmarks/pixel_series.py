"""A file of labelled pixel series in, arrays with masks, classes and groups out: npz or Parquet."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array, Bools, Floats

UNKNOWN = ("", "?", "ignore", "nan", "none", "unknown")
"""Label values, in lower case, that mean "not labelled"."""
WEATHER = ("weather", "agera5", "era5")
"""Modalities whose first band is a temperature in kelvin: AgERA5 writes 0 where it has none."""
_DEGREES = 0.1  # side of a cell of places that become one group


@dataclass(frozen=True)
class PixelSeries:
    """N labelled pixels, or N labelled patches of a few pixels."""

    name: str
    values: dict[str, Floats]
    """Modality -> (N, T, C), or (N, T, C, h, w) for patches, in physical units, 0 where not observed; T = 1 for a
    modality without time."""
    valid: dict[str, Bools]
    """Modality -> (N, T), or (N, T, h, w), True = observed in every band."""
    steps: dict[str, tuple[str, ...]]
    """Modality -> ISO date of each step; one empty string without time."""
    target: Array
    """(N,) int64 class index or labels as bits of an integer, or float32 value."""
    classes: tuple[str, ...]
    """Of the index, the bits, or the name of the one value."""
    groups: npt.NDArray[np.int64]
    """(N,) pixels of one group never stand on both sides of an honest split."""
    digest: str
    """SHA-256 of the data."""
    task: Literal["classes", "multilabel", "regression"] = "classes"
    official: Bools | None = None
    """(N,) True = scored, where the benchmark has a split of its own; it stands instead of folds."""

    @property
    def side(self) -> int:
        """Pixels along a patch; 1 for series of pixels."""
        return max(array.shape[-1] if array.ndim == 4 else 1 for array in self.valid.values())


def read_pixel_series(
    path: Path,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    group: str | None = None,
    min_samples: int = 10,
) -> PixelSeries:
    """Read a set of pixel series.

    npz: one array per modality, (N, T, C) or (N, C), NaN = missing; string or number arrays (N,) for label and group;
    optionally `timestamps` (T,) with ISO dates, else `start_date` (N,) and monthly steps. Parquet: one row per pixel, a
    modality is a column of lists (T x C or C), everything else a plain column.

    Args:
        path: .npz or .parquet.
        label: column with the class; values such as "?" and "ignore" count as unlabelled.
        modalities: arrays to use; null takes every float array with two or three axes.
        group: column whose equal values stay together; null takes `lat` and `lon`, in cells of a tenth of a degree.
        min_samples: classes with fewer pixels are left out.

    Raises:
        MdicoError: no such file or column, shapes that differ, nothing left, or no way to group.
    """
    columns = _columns(path)
    if label is None:
        raise MdicoError(f"{path}: name the column with the class (--label). It holds: {', '.join(columns)}.")
    names = tuple(dict.fromkeys(modalities)) if modalities else tuple(n for n, a in columns.items() if _is_modality(a))
    for name in (*names, label, *([group] if group else [])):
        if name not in columns:
            raise MdicoError(f"{path}: has no {name!r}. It holds: {', '.join(columns)}.")
    target, classes = class_index(columns[label], min_samples, f"{path}: column {label!r}")
    rows = np.flatnonzero(target >= 0)
    values, valid, steps = {}, {}, {}
    raw = {name: _series(path, name, columns[name], len(target)) for name in names}
    _check_dates(path, columns, {series.shape[1] for series in raw.values()})
    for name, whole in raw.items():
        series = whole[rows]
        if name.lower() in WEATHER:
            series = np.where(series[:, :, :1] <= 0, np.nan, series)
        seen = np.asarray(np.isfinite(series).all(axis=2))
        if not seen.any():
            raise MdicoError(f"{path}: {name} is missing in every pixel. Leave it out of the modalities.")
        values[name], valid[name] = np.where(seen[:, :, None], series, 0).astype(np.float32), seen
        steps[name] = _steps(path, columns, series.shape[1])
    groups = _groups(path, columns, group, len(target))[rows]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PixelSeries(path.stem, values, valid, steps, target[rows], classes, groups, digest)


def _columns(path: Path) -> dict[str, Array]:
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            return {name: np.array(table[name].to_pylist()) for name in table.column_names}
    except OSError as error:
        raise MdicoError(f"{path}: cannot be read ({error.strerror or error}). Name an npz or Parquet file.") from error
    except (ValueError, EOFError, BadZipFile, zlib.error, pa.ArrowException) as error:
        raise MdicoError(f"{path}: is no {path.suffix[1:]} file of even arrays ({error}). Write it again.") from error
    if not path.is_file():
        raise MdicoError(f"{path}: no such file. Name an npz or Parquet file of pixel series.")
    raise MdicoError(f"{path}: pixel series are read from .npz or .parquet. Convert the file to one of them.")


def _is_modality(values: Array) -> bool:
    return values.dtype.kind == "f" and values.ndim in (2, 3)


def _series(path: Path, name: str, values: Array, pixels: int) -> Floats:
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu" or len(values) != pixels or not values.size:
        raise MdicoError(
            f"{path}: {name} must be numbers of shape (N, T, C) or (N, C) with N = {pixels}, came {values.shape}. "
            "Give every pixel the same steps and bands."
        )
    return np.asarray(values if values.ndim == 3 else values[:, None], dtype=np.float32)


def _check_dates(path: Path, columns: dict[str, Array], lengths: set[int]) -> None:
    """Raise MdicoError where there are dates, and no modality has as many steps."""
    dates = columns.get("timestamps")
    if dates is not None and dates.ndim == 1 and len(dates) not in lengths and max(lengths, default=1) > 1:
        steps = ", ".join(map(str, sorted(lengths)))
        raise MdicoError(
            f"{path}: timestamps holds {len(dates)} dates, the modalities have {steps} steps. Give one date per step."
        )


def _steps(path: Path, columns: dict[str, Array], count: int) -> tuple[str, ...]:
    if count == 1:
        return ("",)
    dates, name = columns.get("timestamps"), "timestamps"
    try:
        if dates is not None and dates.shape == (count,):
            days = pd.DatetimeIndex(pd.to_datetime(dates.astype(str), format="ISO8601"))
        else:
            name = "start_date"
            start = str(columns[name].ravel()[0]) if name in columns else "2001-01-01"
            days = pd.date_range(start, periods=count, freq="MS")
    except ValueError as error:
        raise MdicoError(f"{path}: {name} must hold ISO dates. Write them as 2021-03-01.") from error
    if not (days.is_monotonic_increasing and days.is_unique):
        raise MdicoError(f"{path}: timestamps must increase. Sort the steps.")
    return tuple(str(day.date()) for day in days)


def class_index(column: Array, least: int, where: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """(N,) index of each value among those that occur often enough, -1 = none of them; and their names.

    Raises:
        MdicoError: no plain column, NaN, or fewer than two classes.
    """
    if column.ndim != 1:
        raise MdicoError(f"{where} must hold one value per pixel, came {column.shape}. Name the label's column.")
    if column.dtype.kind == "f" and np.isnan(column).any():
        raise MdicoError(f"{where} holds NaN. Write '?' where a pixel has no label.")
    names = column.astype(str)
    found, counts = np.unique(names, return_counts=True)
    kept = [str(n) for n, count in zip(found, counts, strict=True) if count >= least and n.lower() not in UNKNOWN]
    if len(kept) < 2:
        raise MdicoError(
            f"{where} has {len(kept)} classes with at least {least} pixels, two are needed. "
            "Lower min_samples or choose another column."
        )
    index = {name: i for i, name in enumerate(kept)}
    return np.array([index.get(str(name), -1) for name in names], dtype=np.int64), tuple(kept)


def _groups(path: Path, columns: dict[str, Array], group: str | None, pixels: int) -> npt.NDArray[np.int64]:
    if group is None and not {"lat", "lon"} <= set(columns):
        raise MdicoError(f"{path}: has no lat and lon to group by. Name a column that says what belongs together.")
    for name in ("lat", "lon") if group is None else (group,):
        if columns[name].shape != (pixels,):
            raise MdicoError(
                f"{path}: {name} must hold one value for each of {pixels} pixels, came {columns[name].shape}. Name "
                "another group column, or mend this one."
            )
    if group is not None:
        return np.unique(columns[group].astype(str), return_inverse=True)[1].astype(np.int64)
    return place_groups(columns["lat"], columns["lon"], str(path))


def place_groups(lat: Array, lon: Array, where: str) -> npt.NDArray[np.int64]:
    """(N,) number of the cell of a tenth of a degree in which each place lies.

    Raises:
        MdicoError: a place that is no number.
    """
    if not all(each.dtype.kind in "fiu" and np.isfinite(each).all() for each in (lat, lon)):
        raise MdicoError(f"{where}: lat and lon must be numbers everywhere. Leave pixels without a place out.")
    cells = np.floor(np.stack([lat, lon], axis=1) / _DEGREES).astype(np.int64)
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_modalities(benchmark: str, wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The modalities to use; None takes all.

    Raises:
        MdicoError: one that the benchmark does not have.
    """
    names = tuple(dict.fromkeys(wanted or known))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MdicoError(f"{benchmark}: has no {', '.join(unknown)}, it has {', '.join(known)}. Choose some of these.")
    return names


def digest_of(arrays: Sequence[Array]) -> str:
    """SHA-256 of arrays, one after the other."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
