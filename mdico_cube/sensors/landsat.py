"""Landsat Collection 2 Level 2 items in, surface reflectance in counts of 1e-4 out: its scale and its QA bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.sensors.quality import Quality
from mdico_cube.sensors.sensor import Radiometry, Sensor, declared
from mdico_cube.spec import Array, Band, Bools, Modality, Storage

SCALE, OFFSET = 2.75e-5, -0.2
"""Surface reflectance = count * SCALE + OFFSET for every Landsat of Collection 2 (USGS LSDS-1619, section 4)."""
COUNT = 1e-4
"""Reflectance per stored count."""
MISSING = 65535

_BANDS = (
    ("blue", "blue"),
    ("green", "green"),
    ("red", "red"),
    ("nir08", "near infrared"),
    ("swir16", "shortwave infrared 1"),
    ("swir22", "shortwave infrared 2"),
)

MODALITY = Modality(
    name="landsat",
    variable="reflectance",
    bands=tuple(Band(name, "reflectance", "bilinear", title) for name, title in _BANDS),
    storage=Storage("uint16", COUNT, MISSING),
    title="Landsat",
)

QA_PIXEL = Quality(
    dtype="uint16",
    missing=1,
    hides=(1, 2, 3, 4, 5),
    meaning={
        0: "fill",
        1: "dilated cloud",
        2: "cirrus",
        3: "cloud",
        4: "cloud shadow",
        5: "snow",
        6: "clear",
        7: "water",
    },
    bits=True,
)
"""Gaps (SLC-off, fill) are absent, not hidden: they stay gaps and are never widened."""


def radiometry(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """The scale of Collection 2; where the item declares one, both must agree.

    Raises:
        MdicoError: the item is of another collection or level, or declares another scale.
    """
    if str(properties.get("landsat:collection_number", "02")) not in ("02", "2"):
        raise MdicoError(
            f"landsat: item {item_id} is of Collection {properties['landsat:collection_number']}, whose counts mean "
            "something else. Use a Collection 2 Level 2 source such as landsat-c2-l2."
        )
    fields = declared(asset)
    scale, offset = fields.get("scale"), fields.get("offset")
    if scale is None and offset is None:
        return Radiometry(SCALE, OFFSET, "Collection 2 Level 2")
    if not np.allclose([scale or 1.0, offset or 0.0], [SCALE, OFFSET], rtol=1e-6):
        raise MdicoError(
            f"landsat: item {item_id} declares scale {scale} and offset {offset}, but Collection 2 Level 2 surface "
            f"reflectance has {SCALE:g} and {OFFSET:g}. Check source.assets: only SR bands are reflectance."
        )
    return Radiometry(SCALE, OFFSET, "Collection 2 Level 2, as declared")


def calibrate(raw: Array, nodata: float, rule: Radiometry) -> tuple[Array, Bools]:
    """Raw counts (C, h, w) to counts of 1e-4 uint16 and (h, w) True where every band was read.

    Counts below zero reflectance become 0.
    """
    observed = (raw != nodata).all(axis=0)
    counts = np.rint(raw * np.float64(rule.scale / COUNT) + rule.offset / COUNT)
    return np.clip(counts, 0, MISSING - 1).astype(np.uint16), observed


def finish(work: Array, observed: Bools) -> Array:
    """Composite counts to stored counts: 65535 where nothing was observed."""
    return np.where(observed, work, MISSING).astype(np.uint16)


def refuse(collection: str, properties: Mapping[str, Any]) -> None:
    """Only Level 2 is surface reflectance.

    Raises:
        MdicoError: the item is Level 1.
    """
    level = str(properties.get("landsat:correction", properties.get("landsat:processing_level", "L2")))
    if not level.startswith("L2"):
        raise MdicoError(
            f"landsat: {collection} holds {level} scenes (Level 1, not surface reflectance). "
            "Use a Collection 2 Level 2 source such as landsat-c2-l2."
        )


SENSOR = Sensor(
    modality=MODALITY,
    defaults=MODALITY.band_names,
    reducer="median",
    radiometry=radiometry,
    calibrate=calibrate,
    quality=QA_PIXEL,
    finish=finish,
    raw_dtype="uint16",
    gsd=dict.fromkeys(MODALITY.band_names, 30.0),
    refuse=refuse,
)
