"""A sensor's bands in, the pictures that can be made of them out: which bands, which colours, which range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from mdico_cube.errors import MdicoError
from mdico_cube.maps.images import BLANK, Image, muted, relief
from mdico_cube.spec import Floats, Modality

Limits = tuple[tuple[float, float], ...]
"""Per channel the values that become black and white."""
_NUMBERS = {"rgb": 3, "radar": 2, "difference": 2, "relief": 1, "one": 1}
"""Kind of picture -> how many bands it takes."""
_OF_WEATHER = {"one": 1, "step": 1}
"""The same for weather."""
_RAMPS = {"K": "RdYlBu_r", "mm": "YlGnBu"}
"""Unit -> name of the matplotlib colours of a band; all tell their ends apart for colour-blind readers."""
_KELVIN = -273.15
_TRUE_COLOR = (("B04", "B03", "B02"), ("red", "green", "blue"))
_PRESETS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    *(("true colour", "rgb", bands) for bands in _TRUE_COLOR),
    ("near infrared, red, green", "rgb", ("B08", "B04", "B03")),
    ("near infrared, red, green", "rgb", ("nir08", "red", "green")),
    ("short-wave infrared, near infrared, red", "rgb", ("B11", "B08", "B04")),
    ("short-wave infrared, near infrared, red", "rgb", ("swir16", "nir08", "red")),
    ("NDVI", "difference", ("B08", "B04")),
    ("NDVI", "difference", ("nir08", "red")),
    ("NDMI (moisture)", "difference", ("B08", "B11")),
    ("NDMI (moisture)", "difference", ("nir08", "swir16")),
    ("VV, VH, VV - VH", "radar", ("vv", "vh")),
    ("hillshade", "relief", ("elevation",)),
)


@dataclass(frozen=True, slots=True)
class Look:
    """One way to draw a sensor."""

    kind: str
    """rgb, radar (two bands in dB and their difference), difference ((a - b) / (a + b)), relief, one, or step: one
    with the range of its time step alone."""
    bands: tuple[str, ...]

    @property
    def key(self) -> str:
        """As it stands in an address: "rgb:B04,B03,B02"."""
        return f"{self.kind}:{','.join(self.bands)}"


def looks(modality: Modality) -> Iterator[tuple[Look, str]]:
    """Every picture that is offered of a sensor, with its title: known combinations first, then each band."""
    for title, kind, bands in _PRESETS:
        if set(bands) <= set(modality.band_names):
            yield Look(kind, bands), title
    for band in modality.bands:
        title = f"{band.name}, {band.title}" if band.title else band.name
        yield Look("one", (band.name,)), title
        if modality.coarse:
            yield Look("step", (band.name,)), f"{title} (range of this step)"


def parse_look(text: str, modality: Modality) -> Look:
    """The look that an address names.

    Raises:
        MdicoError: no such kind of picture, or bands that the sensor does not have.
    """
    kind, _, names = text.partition(":")
    bands = tuple(re.split(",", names)) if names else ()
    numbers = _OF_WEATHER if modality.coarse else _NUMBERS
    if kind not in numbers or len(bands) != numbers[kind] or not set(bands) <= set(modality.band_names):
        kinds = ", ".join(f"{name} of {count}" for name, count in numbers.items())
        raise MdicoError(
            f"{modality.name}: {text!r} is no picture of its bands {', '.join(modality.band_names)}. "
            f"Write KIND:BAND,BAND with one of {kinds}."
        )
    return Look(kind, bands)


def channels(look: Look, values: Floats) -> Floats:
    """Bands (..., b, h, w) in the look's order to what is stretched and coloured (..., c, h, w); NaN stays NaN."""
    if look.kind == "radar":
        return np.concatenate([values, values[..., :1, :, :] - values[..., 1:, :, :]], axis=-3)
    if look.kind == "difference":
        total = values.sum(axis=-3, keepdims=True)
        gap = values[..., :1, :, :] - values[..., 1:, :, :]
        return np.asarray(np.divide(gap, total, out=np.full_like(gap, np.nan), where=total > 0))
    return values


def limits(look: Look, sample: Floats) -> Limits:
    """The middle 96 percent of a sample (N, c) of channels, one range for all where the colours are to be true."""
    if look.kind == "difference":
        return ((-0.2, 0.9),)
    known = sample[~np.isnan(sample).any(axis=1)]
    if not known.size:
        return tuple((0.0, 1.0) for _ in range(sample.shape[1]))
    if look.bands in _TRUE_COLOR:
        known = known.reshape(-1, 1)
    low, high = np.percentile(known, (2, 98), axis=0)
    found = [(float(a), float(b) if b > a else float(a) + 1.0) for a, b in zip(low, high, strict=True)]
    return tuple(found * (sample.shape[1] // len(found)))


def ramp(look: Look, unit: str) -> str:
    """Name of the matplotlib colours of a picture with one channel; empty for all others."""
    if look.kind == "difference":
        return "YlGn"
    if look.kind in ("rgb", "radar", "relief"):
        return ""
    return _RAMPS.get(unit, "gist_earth" if look.bands == ("elevation",) else "viridis")


def hexes(colors: str) -> list[str]:
    """Seven colours along a ramp, as a page writes them."""
    return [to_hex(colormaps[colors](k / 6)) for k in range(7)]


def shown(unit: str) -> tuple[str, float]:
    """A cube's unit as people read it, and what is added to a value for it: kelvin become degrees Celsius."""
    return ("\u00b0C", _KELVIN) if unit == "K" else (unit, 0.0)


def paint(look: Look, values: Floats, found: Limits, metres: float, colors: str = "") -> Image:
    """Channels (c, h, w) to an image (h, w, 3) in 0..1; pixels without a value are pale grey.

    Args:
        look: how.
        values: NaN = not observed.
        found: what `limits` gave.
        metres: ground size of a pixel of the picture, for the slope of a hillshade.
        colors: name of the matplotlib colours where there is one channel.
    """
    if look.kind == "relief" and min(values.shape[1:]) > 1:
        return relief(values[0], *found[0], metres)
    scaled = np.stack([(one - low) / (high - low) for one, (low, high) in zip(values, found, strict=True)], axis=-1)
    if scaled.shape[-1] == 1:
        image = colormaps[colors or "gray"](np.nan_to_num(scaled[..., 0]))[..., :3]
    else:
        image = np.clip(scaled, 0, 1) ** (0.85 if look.bands in _TRUE_COLOR else 1.0)
        if look.kind == "radar":
            image = muted(image)
    return np.where(np.isnan(scaled).any(axis=-1, keepdims=True), BLANK, image).astype(np.float32)
