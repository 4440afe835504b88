"""CropHarvest's folder in, its pixels as series out: features/arrays/*.h5 and labels.geojson, crop or crop type."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdico_cube.benchmarks.h5 import read_h5
from mdico_cube.benchmarks.pixel_series import PixelSeries, check_modalities, class_index, digest_of, place_groups
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array

BANDS = {"S1": [0, 1], "S2": [*range(2, 13), 17], "weather": [13, 14], "DEM": [15, 16]}
"""Modality -> columns of an array: VV VH; B2 to B12 without B10, NDVI; temperature and rain; height and slope."""
SHAPE = (12, 18)
"""Months and bands of an array."""
_LABELS = ("binary", "multi")
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def read_cropharvest(
    data: Path,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    group: str | None = None,
    min_samples: int = 10,
) -> PixelSeries:
    """CropHarvest (Tseng et al., NeurIPS 2021 Datasets and Benchmarks) as its authors publish it.

    Args:
        data: the folder with labels.geojson and features/arrays/INDEX_DATASET.h5 (each `array`, 12 months x 18 bands).
        label: "binary" (crop or not; the default), or "multi": the crop groups, and non_crop.
        modalities: of S1, S2, weather and DEM; null takes all.
        group: property of the labels whose equal values stay together; null takes cells of a tenth of a degree.
        min_samples: classes with fewer pixels are left out.

    Raises:
        MdicoError: files that are missing or of another version, or labels with a single class.
    """
    kind = label or "binary"
    if kind not in _LABELS:
        raise MdicoError(f"cropharvest: --label is binary or multi, came {label!r}. Choose one of them.")
    names = check_modalities("cropharvest", modalities, tuple(BANDS))
    rows = [row for row in _labels(data) if row["file"].exists()]
    if not rows:
        raise MdicoError(
            f"{data}: no file of features/arrays belongs to a training label of labels.geojson. Unpack features.tar.gz "
            "beside it."
        )
    if group is not None and not all(group in row for row in rows):
        raise MdicoError(f"{data}: labels.geojson has no property {group}. Choose of {', '.join(sorted(rows[0]))}.")
    column = np.array([_class(row, kind) for row in rows])
    target, classes = class_index(column, min_samples, f"{data}: label {kind!r}")
    kept = np.flatnonzero(target >= 0)
    arrays = np.stack([_array(rows[i]["file"]) for i in kept])  # (N, 12, 18)
    values, valid = {}, {}
    for name in names:
        series = arrays[:, :1, BANDS[name]] if name == "DEM" else arrays[:, :, BANDS[name]]
        seen = np.asarray(np.isfinite(series).all(axis=2))
        values[name], valid[name] = np.where(seen[:, :, None], series, 0).astype(np.float32), seen
    months = _months(rows)
    if group is None:
        places = np.array([[rows[i]["lat"], rows[i]["lon"]] for i in kept], dtype=np.float64)
        groups = place_groups(places[:, 0], places[:, 1], f"{data}: labels.geojson")
    else:
        groups = np.unique([str(rows[i].get(group)) for i in kept], return_inverse=True)[1].astype(np.int64)
    return PixelSeries(
        f"cropharvest-{kind}",
        values,
        valid,
        {name: ("",) if name == "DEM" else months for name in names},
        target[kept],
        classes,
        groups,
        digest_of([arrays, target[kept]]),
    )


def _labels(data: Path) -> list[dict[str, Any]]:
    """Properties of every label that is not of the test regions, and where its array would be."""
    path = data / "labels.geojson"
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        rows = [dict(feature["properties"]) for feature in features]
        for row in rows:
            number = row["index"] if "index" in row else row["dataset_index"]
            row["file"] = data / "features" / "arrays" / f"{number}_{row['dataset']}.h5"
            row["is_crop"], row["lat"], row["lon"] = int(row["is_crop"]), float(row["lat"]), float(row["lon"])
    except OSError as error:
        raise MdicoError(f"{path}: cannot be read ({error.strerror}). Name the folder of CropHarvest.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MdicoError(
            f"{path}: is not CropHarvest's file of labels ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    return [row for row in rows if not row.get("is_test")]


def _class(row: dict[str, Any], kind: str) -> str:
    if kind == "binary":
        return "crop" if row["is_crop"] else "non_crop"
    return str(row.get("classification_label") or ("unknown" if row["is_crop"] else "non_crop"))


def _array(path: Path) -> Array:
    (array,) = read_h5(path, "array")
    if array.shape != SHAPE or array.dtype.kind not in "fiu":
        raise MdicoError(
            f"{path}: has the shape {array.shape} ({array.dtype}), CropHarvest's arrays have {SHAPE} (months x bands) "
            "of numbers. This is another version of the benchmark."
        )
    return array


def _months(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """First days of the twelve months before the export's end, of a year that stands for all."""
    ends = [found[1] for row in rows if (found := _MONTH.match(str(row.get("export_end_date"))))] or ["02"]
    end = int(max(sorted(set(ends)), key=ends.count))
    return tuple(f"{2000 + (end - 1 + i) // 12}-{(end - 1 + i) % 12 + 1:02d}-01" for i in range(SHAPE[0]))
