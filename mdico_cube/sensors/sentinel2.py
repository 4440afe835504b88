"""Sentinel-2 L2A items in, surface reflectance in counts of 1e-4 out: the offset rule and the cloud rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.sensors.offsets import OffsetSentinel
from mdico_cube.sensors.optical import COUNT, MISSING, calibrate, finish
from mdico_cube.sensors.quality import Quality
from mdico_cube.sensors.sensor import Radiometry, Sensor, declared
from mdico_cube.spec import Band, Modality, Storage

HARMONISED_FROM = 4.0
"""From this processing baseline on, counts carry +1000 (BOA_ADD_OFFSET; ESA product specification, January 2022)."""
SCL = Quality(
    dtype="uint8",
    missing=0,
    hides=(1, 3, 8, 9, 10),
    meaning={
        0: "no data",
        1: "saturated or defective",
        2: "dark area",
        3: "cloud shadow",
        4: "vegetation",
        5: "bare soil",
        6: "water",
        7: "unclassified",
        8: "cloud, medium probability",
        9: "cloud, high probability",
        10: "thin cirrus",
        11: "snow or ice",
    },
)
"""The scene classification of Level 2A."""

_BANDS = (
    ("B02", "blue"),
    ("B03", "green"),
    ("B04", "red"),
    ("B05", "red edge 1"),
    ("B06", "red edge 2"),
    ("B07", "red edge 3"),
    ("B08", "near infrared"),
    ("B8A", "narrow near infrared"),
    ("B11", "shortwave infrared 1"),
    ("B12", "shortwave infrared 2"),
)

MODALITY = Modality(
    name="sentinel2",
    variable="reflectance",
    bands=tuple(Band(name, "reflectance", "bilinear", title) for name, title in _BANDS),
    storage=Storage("uint16", COUNT, MISSING),
    title="Sentinel-2",
)


def radiometry(item_id: str, properties: Mapping[str, Any], asset: Mapping[str, Any], source: Source) -> Radiometry:
    """The offset of one item under the source's policy.

    Raises:
        MdicoError: the policy needs a processing baseline or a declared offset that the item does not carry.
    """
    if source.offset == "none":
        return Radiometry(COUNT, 0.0, "harmonised by the source")
    if source.offset == "declared":
        if taken_out(properties):
            return Radiometry(COUNT, 0.0, "offset already applied, says the item")
        return Radiometry(COUNT, float(declared(asset).get("offset") or 0.0), "declared by the item")
    shifted = era(properties)
    if shifted is None:
        raise MdicoError(
            f"sentinel2: item {item_id} has processing baseline {_baseline(properties)!r}, but the offset rule needs a "
            "number. Set modalities.sentinel2.source.offset to 'declared' or 'none' for this catalog."
        )
    return Radiometry(COUNT, -0.1 if shifted else 0.0, f"processing baseline {_baseline(properties)}")


def era(properties: Mapping[str, Any]) -> bool | None:
    """True where the item's processing baseline adds the offset, False where not, None where it names none."""
    try:
        return float(str(_baseline(properties))) >= HARMONISED_FROM
    except ValueError:
        return None


def taken_out(properties: Mapping[str, Any]) -> bool:
    """True where the item says that its counts were shifted back."""
    return bool(properties.get("earthsearch:boa_offset_applied"))


def _baseline(properties: Mapping[str, Any]) -> Any:
    return properties.get("s2:processing_baseline", properties.get("processing:version"))


SENSOR = Sensor(
    modality=MODALITY,
    defaults=MODALITY.band_names,
    reducer="median",
    radiometry=radiometry,
    calibrate=calibrate,
    quality=SCL,
    finish=finish,
    raw_dtype="uint16",
    sentinel=OffsetSentinel(COUNT, era, taken_out),
    gsd={name: 10.0 if name in ("B02", "B03", "B04", "B08") else 20.0 for name, _ in _BANDS},
)
