"""A vector file in, its features on the cube's CRS out: attributes checked by name, dates as days."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
from pyogrio.errors import DataSourceError

from mdico_cube.errors import MdicoError, did_you_mean

VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".geoparquet")
"""Endings of vector files."""
BY_BLOCK = (".gpkg", ".shp", ".fgb")
"""Endings of those that are read block by block; the others are held in memory."""
_PARQUET = (".parquet", ".geoparquet")
Days = npt.NDArray[np.datetime64]


def read_vectors(path: Path, what: str) -> gpd.GeoDataFrame:
    """Every feature of a vector file, in the file's CRS.

    Args:
        path: the file.
        what: where the recipe names it, for errors.

    Raises:
        MdicoError: the file is missing or unreadable, or has no CRS.
    """
    try:
        frame = gpd.read_parquet(path) if path.suffix.lower() in _PARQUET else gpd.read_file(path)
    except (DataSourceError, ValueError, OSError) as error:
        raise unreadable(path, what, error) from error
    if frame.crs is None:
        raise no_crs(path, what)
    return frame


def unreadable(path: Path, what: str, error: Exception) -> MdicoError:
    """The sentence for a file that is missing or broken."""
    if not path.exists():
        return MdicoError(f"{what} {path}: no such file. Set {what}.path in the recipe.")
    return MdicoError(f"{what} {path}: cannot be read as vectors ({error}).")


def no_crs(path: Path, what: str) -> MdicoError:
    """The sentence for a file that does not say where it is."""
    return MdicoError(f"{what} {path}: has no CRS. Write it with one.")


def on_crs(frame: gpd.GeoDataFrame, crs: str) -> gpd.GeoDataFrame:
    """The same features in another CRS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return frame.to_crs(crs)


def check_columns(path: Path, what: str, wanted: Mapping[str, str | None], have: list[str]) -> None:
    """Raise MdicoError for the first column (key of the recipe -> name) that the file lacks, with the closest name."""
    for key, column in wanted.items():
        if column is not None and column not in have:
            raise MdicoError(
                f"{what}.{key}: {path.name} has no column {column!r}.{did_you_mean(column, have)} "
                f"Choose one of {', '.join(have)}."
            )


def columns_of(frame: gpd.GeoDataFrame) -> list[str]:
    """Names of the columns that are no geometry."""
    return [str(column) for column in frame.columns if column != frame.geometry.name]


def file_columns(path: Path, what: str) -> list[str]:
    """Names of the columns of a file that is read block by block.

    Raises:
        MdicoError: it is missing or unreadable, or has no CRS.
    """
    try:
        facts: dict[str, Any] = pyogrio.read_info(path)
    except (DataSourceError, ValueError, OSError) as error:
        raise unreadable(path, what, error) from error
    if facts["crs"] is None:
        raise no_crs(path, what)
    return [str(name) for name in facts["fields"]]


def days(values: pd.Series[Any], key: str, path: Path) -> Days:
    """Dates as days (N,): a whole number from 1000 to 9999 is a year and means its first day; empty is not-a-time.

    Raises:
        MdicoError: a value is neither.
    """
    known = values.notna().to_numpy()
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    years = known & (numbers >= 1000) & (numbers <= 9999) & (numbers % 1 == 0)
    out = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[D]")
    out[years] = (numbers[years].astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    rest = known & ~years
    if rest.any():
        dates = pd.to_datetime(values[rest].astype(str), errors="coerce", format="ISO8601", utc=True)
        if dates.isna().any():
            wrong = values[rest][dates.isna()].iloc[0]
            raise MdicoError(f"{key}: {path.name} holds {wrong!r}, which is neither a year nor an ISO date.")
        out[rest] = dates.dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    return out


def years(dates: Days) -> npt.NDArray[np.int64]:
    """The year of each day (N,), 0 = not known."""
    found = dates.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.where(np.isnat(dates), 0, found)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; of a Shapefile's, with its companions."""
    parts = sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix.lower() == ".shp" else [path]
    total = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
