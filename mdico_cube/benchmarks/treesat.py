"""TreeSatAI-Time-Series' folder in, its patches as monthly series of 6 x 6 pixels with tree genera out."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

from mdico_cube.benchmarks.h5 import read_h5
from mdico_cube.benchmarks.pixel_series import PixelSeries, check_modalities, digest_of
from mdico_cube.errors import MdicoError
from mdico_cube.progress import track
from mdico_cube.spec import Array, Bools

SIDE = 6
"""Pixels of 10 m along a patch."""
SHARE = 0.07
"""A genus is a label of a patch where it covers more than this share, as in the published figures."""
MODALITIES = ("S1", "S2", "aerial")
MONTHS = tuple(f"2001-{month:02d}-01" for month in range(1, 13))
_LABELS = "TreeSatBA_v9_60m_multi_labels.json"
_DATE = re.compile(r"(\d{4})(\d{2})\d{2}T")
_HIDDEN = 50  # percent of snow or cloud from which a pixel counts as hidden


def read_treesat(
    data: Path,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    group: str | None = None,
    min_samples: int = 10,
) -> PixelSeries:
    """TreeSatAI Time-Series (Ahlswede et al., 2023; Astruc et al., 2024): its official splits, several labels a patch.

    The acquisitions of a month, 146 a year in the mean, become their mean over what snow and cloud do not hide. The
    aerial image, 304 x 304 pixels of 20 cm, becomes mean and standard deviation of its four bands in each 10 m pixel:
    it is not read by an image network at its own resolution.

    Args:
        data: the folder with the label json, train_, val_ and test_filenames.lst, sentinel-ts (or sentinel) and aerial.
        label: of no use here.
        modalities: of S1 (both directions side by side), S2 and aerial; null takes all.
        group: of no use here: the official split stands.
        min_samples: genera with fewer training patches are left out.

    Raises:
        MdicoError: files that are missing or of another version.
    """
    names = check_modalities("treesatai", modalities, MODALITIES)
    files, official = _split(data)
    shares = _json(data)
    lacking = [name for name in files if name not in shares]
    if lacking:
        raise MdicoError(f"{data}: {_LABELS} has no entry {lacking[0]}. Labels and splits are of different versions.")
    classes, target = _targets([shares[name] for name in files], official, min_samples, data)
    patches = [_patch(data, name, names) for name in track(files, "read treesatai", len(files))]
    values, valid = {}, {}
    for name in names:
        series = np.stack([patch[name] for patch in patches]).astype(np.float32)  # (N, T, C, 6, 6)
        seen = np.asarray(np.isfinite(series).all(axis=2))
        values[name], valid[name] = np.where(seen[:, :, None], series, 0), seen
    return PixelSeries(
        "treesatai",
        values,
        valid,
        {name: ("",) if name == "aerial" else MONTHS for name in names},
        target,
        classes,
        np.arange(len(files)),
        digest_of([*values.values(), target]),
        "multilabel",
        official,
    )


def _split(data: Path) -> tuple[list[str], Bools]:
    """File names of every patch, and True for those of the test list."""
    names: list[str] = []
    test: list[bool] = []
    for part in ("train", "val", "test"):
        path = _first(data, f"{part}_filenames.lst", f"split/{part}_filenames.lst")
        try:
            found = path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError as error:
            raise MdicoError(f"{path}: is no list of file names. Fetch it again.") from error
        names += found
        test += [part == "test"] * len(found)
    if not names or all(test) or not any(test):
        raise MdicoError(f"{data}: the split lists must name patches to train and to test. Fetch them again.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MdicoError(f"{data}: the split lists name {twice} more than once. Fetch them again.")
    return names, np.array(test)


def _json(data: Path) -> dict[str, list[tuple[str, float]]]:
    """Patch -> its genera and the share of each."""
    path = _first(data, f"labels/{_LABELS}", _LABELS)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: [(str(genus), float(share)) for genus, share in value] for key, value in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise MdicoError(f"{path}: is not TreeSatAI's file of labels ({error}). Fetch it again.") from error


def _targets(
    entries: list[list[tuple[str, float]]], official: Bools, least: int, data: Path
) -> tuple[tuple[str, ...], Array]:
    """Genera, and the labels of each patch as bits."""
    sets = [{genus for genus, share in entry if share > SHARE} for entry in entries]
    train = [genus for genera, held in zip(sets, official, strict=True) if not held for genus in genera]
    classes = tuple(sorted(genus for genus in set(train) if train.count(genus) >= least))
    if len(classes) < 2:
        raise MdicoError(
            f"{data}: {len(classes)} genera have {least} training patches or more, two are needed. Lower min_samples."
        )
    bits = [sum(1 << k for k, genus in enumerate(classes) if genus in genera) for genera in sets]
    return classes, np.array(bits, dtype=np.int64)


def _patch(data: Path, name: str, modalities: Sequence[str]) -> dict[str, Array]:
    stem, found = Path(name).stem, {}
    if set(modalities) & {"S1", "S2"}:
        path = _series_file(data, stem)
        if "S2" in modalities:
            values, masks, dates = read_h5(path, "sen-2-data", "sen-2-masks", "sen-2-products")
            _check(path, values, 10)
            _check(path, masks, 2, len(values))
            hidden = (masks >= _HIDDEN).any(axis=1, keepdims=True)  # (T, 1, 6, 6): snow or cloud
            found["S2"] = _monthly(path, np.where(hidden, np.nan, values.astype(np.float32)), dates)
        if "S1" in modalities:
            up, up_dates, down, down_dates = read_h5(
                path, "sen-1-asc-data", "sen-1-asc-products", "sen-1-des-data", "sen-1-des-products"
            )
            parts = []
            for values, dates in ((up, up_dates), (down, down_dates)):
                _check(path, values, 2)
                parts.append(_monthly(path, values.astype(np.float32), dates))
            found["S1"] = _either(*parts)
    if "aerial" in modalities:
        found["aerial"] = _aerial(_first(data, f"aerial/{name}", f"aerial/60m/{name}"))
    return found


def _either(first: Array, second: Array) -> Array:
    """Both directions side by side; where one has nothing in a month, the other stands for it."""
    return np.concatenate([np.where(np.isnan(first), second, first), np.where(np.isnan(second), first, second)], axis=1)


def _check(path: Path, values: Array, bands: int, dates: int | None = None) -> None:
    fits = values.ndim == 4 and values.shape[1:] == (bands, SIDE, SIDE) and values.dtype.kind in "fiub"
    if not fits or len(values) != (len(values) if dates is None else dates):
        raise MdicoError(
            f"{path}: has an array of shape {values.shape} ({values.dtype}), expected numbers of shape "
            f"({'dates' if dates is None else dates}, {bands}, {SIDE}, {SIDE}). This is another version of the "
            "benchmark."
        )


def _monthly(path: Path, values: Array, products: Array) -> Array:
    """(T, C, 6, 6) and product names (T,) to the mean of each month (12, C, 6, 6); NaN where nothing was seen."""
    dates = [_DATE.search(each.decode() if isinstance(each, bytes) else str(each)) for each in products.ravel()]
    if len(dates) != len(values) or not all(dates):
        raise MdicoError(f"{path}: its product names tell no dates of {len(values)} acquisitions. Fetch it again.")
    month = np.array([int(date[2]) for date in dates if date])
    out = np.full((12, *values.shape[1:]), np.nan, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        for m in range(12):
            if (month == m + 1).any():
                out[m] = np.nanmean(values[month == m + 1], axis=0)
    return out


def _aerial(path: Path) -> Array:
    """(1, 8, 6, 6) mean and standard deviation of each of four bands in pixels of 10 m."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as file:
                image = file.read().astype(np.float32)  # (4, 304, 304)
        except rasterio.errors.RasterioError as error:
            raise MdicoError(f"{path}: cannot be read as an image ({error}). Fetch it again.") from error
    cell = min(image.shape[1:]) // SIDE
    if image.shape[0] != 4 or cell < 1:
        raise MdicoError(
            f"{path}: has the shape {image.shape}, expected four bands. This is another version of the benchmark."
        )
    trim = [(side - SIDE * cell) // 2 for side in image.shape[1:]]
    image = image[:, trim[0] : trim[0] + SIDE * cell, trim[1] : trim[1] + SIDE * cell]
    cells = image.reshape(4, SIDE, cell, SIDE, cell)
    return np.concatenate([cells.mean(axis=(2, 4)), cells.std(axis=(2, 4))])[None]


def _series_file(data: Path, stem: str) -> Path:
    for folder in ("sentinel-ts", "sentinel"):
        for path in (data / folder / f"{stem}.h5", *sorted((data / folder).glob(f"{stem}_[0-9][0-9][0-9][0-9].h5"))):
            if path.exists():
                return path
    raise MdicoError(
        f"{data}: has no sentinel-ts/{stem}.h5 (or with the year behind it). Unpack sentinel-ts.zip there."
    )


def _first(data: Path, *names: str) -> Path:
    for name in names:
        if (data / name).exists():
            return data / name
    raise MdicoError(f"{data}: has no {names[0]}. Name the folder of TreeSatAI-Time-Series and unpack its parts there.")
