"""Sentinel-1 RTC items in, terrain-corrected backscatter out: combined as linear power, stored as decibels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ORBIT, Source
from mdico_cube.sensors.sensor import Radiometry, Sensor
from mdico_cube.spec import Array, Band, Bools, Modality, Storage

MODALITY = Modality(
    name="sentinel1",
    variable="backscatter",
    bands=(Band("vv", "dB", "bilinear", "VV gamma0"), Band("vh", "dB", "bilinear", "VH gamma0")),
    storage=Storage("int16", 0.01, -32768),
    title="Sentinel-1",
)


def radiometry(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """Linear power needs no scale and no offset."""
    return Radiometry(1.0, 0.0, "linear gamma0")


def calibrate(raw: Array, nodata: float, rule: Radiometry) -> tuple[Array, Bools]:
    """Raw power (C, h, w) to float32 power; power not above zero has no logarithm: it counts as not observed."""
    power = raw.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        observed = ((power > 0) & (power != nodata) & np.isfinite(power)).all(axis=0)
    return power, observed


def finish(work: Array, observed: Bools) -> Array:
    """Composite power to stored decibels, 10 log10(power) in steps of 0.01 dB."""
    decibels = 10 * np.log10(np.where(observed, work, np.nan))
    return MODALITY.storage.pack(decibels)


def refuse(collection: str, properties: Mapping[str, Any]) -> None:
    """GRD scenes are not terrain-corrected. RTC items may name GRD as the product they were made from.

    Raises:
        MdicoError: the collection or the item is ground-range detected (GRD).
    """
    product = str(properties.get("sar:product_type", "")).upper()
    if "rtc" not in collection.lower() and ("grd" in collection.lower() or product == "GRD"):
        raise MdicoError(
            f"sentinel1: {collection} holds GRD scenes, which are not geocoded nor terrain-corrected. "
            "Use an RTC collection such as sentinel-1-rtc."
        )


SENSOR = Sensor(
    modality=MODALITY,
    defaults=MODALITY.band_names,
    reducer="mean",
    radiometry=radiometry,
    calibrate=calibrate,
    quality=None,
    finish=finish,
    raw_dtype="float32",
    gsd=dict.fromkeys(MODALITY.band_names, 10.0),
    refuse=refuse,
)


def one_way(direction: str) -> Sensor:
    """The same sensor on one orbit direction, in a group of its own."""
    modality = replace(MODALITY, name=f"sentinel1_{direction}", title=f"Sentinel-1, {direction}")
    return replace(SENSOR, modality=modality, entry=MODALITY.name, query={ORBIT: direction})
