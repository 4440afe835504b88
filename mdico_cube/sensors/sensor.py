"""What a sensor is to the cube: its bands and four rules. One file per sensor fills one of these in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Reducer, Source
from mdico_cube.sensors.offsets import OffsetSentinel
from mdico_cube.sensors.quality import Quality
from mdico_cube.spec import Array, Band, Bools, Modality, Storage


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How the counts of one item become physical values: physical = count * scale + offset."""

    scale: float
    offset: float
    reason: str
    """Why this offset, in a few words; it is kept in the ledger beside the item's id."""

    def __str__(self) -> str:
        return f"{self.offset:+g} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Steps:
    """Metres on the ground from a pixel to the next: eastwards and northwards, to the right (x) and down (y)."""

    east_x: Array | float
    """(h, w), or one for all pixels."""
    north_x: Array | float
    east_y: Array | float
    north_y: Array | float


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor. `work` arrays are what a reducer combines: counts for optical data, linear power for radar."""

    modality: Modality
    """Every band the sensor can give, in stored order."""
    defaults: tuple[str, ...]
    """Bands a recipe gets when it names none."""
    reducer: Reducer
    """How the observations of one time step become one value, unless the recipe says otherwise."""
    radiometry: Callable[[str, Mapping[str, Any], Mapping[str, Any], Source], Radiometry]
    """(item id, item properties, one asset's fields, source) -> Radiometry."""
    calibrate: Callable[[Array, float, Radiometry], tuple[Array, Bools]]
    """(raw (C, h, w), nodata, radiometry) -> (work (C, h, w), observed (h, w))."""
    quality: Quality | None
    """How the quality layer says what was seen; None for sensors without one."""
    finish: Callable[[Array, Bools], Array]
    """(composite work (C, h, w), observed (h, w)) -> stored (C, h, w)."""
    raw_dtype: str
    """Type the source's values are read as."""
    reads: tuple[str, ...] | None = None
    """Bands read from the source; None = the modality's own."""
    gsd: Mapping[str, float] = field(default_factory=dict)
    """Band -> metres per source pixel: a grid at least twice as coarse takes the average. Bands not named never do."""
    halo: int = 0
    """Pixels needed around a block so that its edge is exact."""
    derive: Callable[[Array, Steps], Array] | None = None
    """(stored (C, h + 2 halo, w + 2 halo), what a step goes on the ground) -> (C', h, w): every band of `modality`."""
    sentinel: OffsetSentinel | None = None
    """What watches the offset of every item; None for sensors whose counts never change their meaning."""
    scarce: bool = False
    """True: a scene without the assets is left out and named (scenes of reflectance only have no temperature); False:
    it is an error."""
    entry: str = ""
    """Entry of a catalog file it is found under, where that is not its own name."""
    query: Mapping[str, Any] = field(default_factory=dict)
    """Properties that its items must have."""
    refuse: Callable[[str, Mapping[str, Any]], None] | None = None
    """(collection id, item properties): raises MdicoError for products this sensor cannot use."""


def counted(modality: Modality) -> Modality:
    """The modality whose only band is the number of observations of each pixel and step.

    Raises:
        MdicoError: the modality has no time.
    """
    if not modality.temporal:
        raise MdicoError(f"{modality.name}: has no time steps to count observations in. Use another reducer.")
    return replace(
        modality,
        variable="observations",
        bands=(Band("count", "1", "nearest", "observations"),),
        storage=Storage("uint16", 1.0, 65535),
        title=f"{modality.title}, observations",
    )


def counting(sensor: Sensor, band: str) -> Sensor:
    """The same sensor once more, as the number of its clear observations beside its composite; one band is read."""
    own = sensor.modality
    modality = replace(own, name=f"{own.name}_count", bands=tuple(one for one in own.bands if one.name == band))
    return replace(sensor, modality=modality, defaults=(band,), reducer="count", entry=own.name, sentinel=None)


def declared(asset: Mapping[str, Any]) -> dict[str, Any]:
    """What an asset says about its first band (scale, offset, nodata), in STAC 1.0 (raster:bands) or 1.1 (bands)."""
    band = next(iter(asset.get("raster:bands") or asset.get("bands") or [{}]))
    said = {**asset, **band}
    return {
        key: said.get(key, said.get(f"raster:{key}"))
        for key in ("scale", "offset", "nodata")
        if key in said or f"raster:{key}" in said
    }
