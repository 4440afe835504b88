"""A table of live fuel moisture in, its rows as short series with a value out: training_features.csv."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mdico_cube.benchmarks.pixel_series import PixelSeries, check_modalities
from mdico_cube.errors import MdicoError

BANDS = {
    "radar": ("vv", "vh", "vh_vv"),
    "optical": ("red", "green", "blue", "swir", "nir", "ndvi", "ndwi", "nirv"),
    "static": ("slope", "elevation", "canopy_height", "forest_cover", "silt", "sand", "clay"),
}
"""Modality -> columns, which the file writes as name(t), name(t-1), ..."""
VALUE = "percent(t)"
"""Column with the moisture in percent of dry mass."""
_LAGGED = re.compile(r"^(.+)\(t(?:-(\d+))?\)$")


def read_lfmc(
    data: Path,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    group: str | None = None,
    min_samples: int = 10,
) -> PixelSeries:
    """Live fuel moisture content (Rao et al., Remote Sensing of Environment 245, 2020): one row per site and date.

    A band at the date and at the steps before it, about a month each, makes a series.

    Args:
        data: the folder with training_features.csv, or that file.
        label: column with the value; null takes percent(t).
        modalities: of radar, optical and static; null takes radar and optical.
        group: column whose equal values stay together; null takes site.
        min_samples: of no use here: rows without a value are left out, whatever their number.

    Raises:
        MdicoError: no such file, columns that it lacks, or no value at all.
    """
    path = data / "training_features.csv" if data.is_dir() else data
    try:
        frame = pd.read_csv(path)
    except OSError as error:
        raise MdicoError(f"{path}: cannot be read ({error.strerror}). Name the folder of the table.") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise MdicoError(f"{path}: is no table in CSV ({error}). Fetch it again.") from error
    value, site = label or VALUE, group or "site"
    lags: dict[str, dict[int, str]] = {}
    for name in map(str, frame.columns):
        if found := _LAGGED.match(name):
            lags.setdefault(found[1], {})[int(found[2] or 0)] = name
    names = check_modalities("lfmc", modalities or ("radar", "optical"), tuple(BANDS))
    lacking = [f"{band}(t)" for name in names for band in BANDS[name] if 0 not in lags.get(band, {})]
    lacking = [*(column for column in (value, site) if column not in frame.columns), *lacking]
    if lacking:
        raise MdicoError(
            f"{path}: has no column {', '.join(lacking)}. This is another version of the table; it holds "
            f"{', '.join(map(str, frame.columns[:8]))}, ..."
        )
    used = [name for m in names for band in BANDS[m] for name in lags[band].values()]
    if text := [name for name in used if frame[name].dtype.kind not in "fiub"]:
        raise MdicoError(f"{path}: column {text[0]} holds text among its numbers. Leave cells without a value empty.")
    target = pd.to_numeric(frame[value], errors="coerce").to_numpy(np.float32)
    kept = np.flatnonzero(np.isfinite(target))
    if len(kept) < 2:
        raise MdicoError(f"{path}: column {value!r} has {len(kept)} values, at least two are needed.")
    values, valid, steps = {}, {}, {}
    for name in names:
        back = [0] if name == "static" else sorted(set.intersection(*(set(lags[b]) for b in BANDS[name])), reverse=True)
        columns = [[lags[band][lag] for band in BANDS[name]] for lag in back]
        series = np.stack([frame[each].to_numpy(np.float32)[kept] for each in columns], axis=1)  # (N, T, C)
        seen = np.asarray(np.isfinite(series).all(axis=2))
        if not seen.any():
            raise MdicoError(f"{path}: {name} is missing in every row. Leave it out of the modalities.")
        values[name], valid[name] = np.where(seen[:, :, None], series, 0).astype(np.float32), seen
        days = pd.date_range("2001-01-01", periods=len(back), freq="MS")
        steps[name] = tuple(str(day.date()) for day in days) if len(back) > 1 else ("",)
    groups = np.unique(frame[site].astype(str).to_numpy()[kept], return_inverse=True)[1].astype(np.int64)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PixelSeries("lfmc", values, valid, steps, target[kept], (value,), groups, digest, "regression")
