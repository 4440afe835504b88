"""Landsat Collection 2 Level 2 items in, surface reflectance or temperature out: their scales and their QA bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.sensors.optical import COUNT, MISSING, calibrate, finish
from mdico_cube.sensors.quality import Quality
from mdico_cube.sensors.sensor import Radiometry, Sensor, declared
from mdico_cube.spec import Band, Modality, Storage

SCALE, OFFSET = 2.75e-5, -0.2
"""Surface reflectance = count * SCALE + OFFSET for every Landsat of Collection 2 (USGS LSDS-1619, section 4)."""
THERMAL_SCALE, THERMAL_OFFSET = 0.00341802, 149.0
"""Surface temperature in kelvin = count * THERMAL_SCALE + THERMAL_OFFSET (the same document)."""
KELVIN = 0.01
"""Kelvin per stored count."""

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


THERMAL = Modality(
    name="landsat_st",
    variable="temperature",
    bands=(Band("surface_temperature", "K", "bilinear", "surface temperature"),),
    storage=Storage("uint16", KELVIN, MISSING),
    title="Landsat temperature",
)
"""A group of its own: kelvin need another storage scale, and scenes without thermal bands must not cost reflectance."""


def radiometry(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """The scale of surface reflectance; see `_radiometry`."""
    return _radiometry(item_id, properties, asset, "reflectance", (SCALE, OFFSET))


def thermal(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """The scale of surface temperature; see `_radiometry`."""
    return _radiometry(item_id, properties, asset, "temperature", (THERMAL_SCALE, THERMAL_OFFSET))


def _radiometry(
    item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], what: str, rule: tuple[float, float]
) -> Radiometry:
    """The scale of Collection 2; where the item declares one, both must agree.

    Raises:
        MdicoError: the item is of another collection, or declares another scale.
    """
    if str(properties.get("landsat:collection_number", "02")) not in ("02", "2"):
        raise MdicoError(
            f"landsat: item {item_id} is of Collection {properties['landsat:collection_number']}, whose counts mean "
            "something else. Use a Collection 2 Level 2 source such as landsat-c2-l2."
        )
    fields = declared(asset)
    scale, offset = fields.get("scale"), fields.get("offset")
    if scale is None and offset is None:
        return Radiometry(*rule, "Collection 2 Level 2")
    if not np.allclose([scale or 1.0, offset or 0.0], rule, rtol=1e-6):
        raise MdicoError(
            f"landsat: item {item_id} declares scale {scale} and offset {offset}, but Collection 2 Level 2 surface "
            f"{what} has {rule[0]:g} and {rule[1]:g}. Check source.assets: only SR bands are reflectance, and only "
            "ST_B6 and ST_B10 are temperature."
        )
    return Radiometry(*rule, "Collection 2 Level 2, as declared")


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

THERMAL_SENSOR = replace(
    SENSOR,
    modality=THERMAL,
    defaults=THERMAL.band_names,
    radiometry=thermal,
    calibrate=partial(calibrate, count=KELVIN),
    gsd=dict.fromkeys(THERMAL.band_names, 30.0),
    scarce=True,
)
