"""A cube, a map or labels in, small arrays to look at out: at most about 1000 pixels a side, read shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import LightSource

from mdico_cube.cube.reader import CubeReader
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.predict import windows
from mdico_cube.maps.write import read_map
from mdico_cube.spec import Bools, Floats, LabelClass

SIDE = 1000
"""Longest side of a picture in pixels."""
Image = npt.NDArray[np.float32]
"""(h, w, 3) red, green, blue in 0..1."""
BLANK = 0.93
"""Grey of pixels without a value."""
_UNSEEN = "#ededed"


@dataclass(frozen=True, slots=True)
class QuickLook:
    """What one sensor of a cube looks like."""

    image: Image
    title: str
    """Sensor, and what red, green and blue are, with units."""
    steps: tuple[str, ...]
    availability: tuple[float, ...]
    """Per step the share of pixels observed in every band."""


def stride(reader: CubeReader) -> int:
    """Every how many pixels one is looked at."""
    return max(1, -(-max(reader.shape) // SIDE))


def metres_per_pixel(reader: CubeReader) -> float | None:
    """Ground size of one pixel of a picture; None on grids in degrees."""
    crs = reader.geobox.crs
    if crs is None or crs.geographic:
        return None
    return float(abs(reader.geobox.resolution.x)) * stride(reader)


def thinned(reader: CubeReader, read: Callable[[slice, slice], Any]) -> Any:
    """Every stride-th pixel of what `read(y, x)` gives per shard; the last two axes are rows and columns."""
    step, (height, width) = stride(reader), reader.shape
    out: Any = None
    for y, x in windows(reader.shape, reader.shard):
        rows, columns = slice(-y.start % step, None, step), slice(-x.start % step, None, step)
        part = read(y, x)[..., rows, columns]
        if out is None:
            out = np.zeros((*part.shape[:-2], -(-height // step), -(-width // step)), part.dtype)
        top, left = -(-y.start // step), -(-x.start // step)
        out[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    return out


def quick_look(reader: CubeReader, name: str) -> QuickLook:
    """A sensor as a person would look at it: the bands decide how."""
    modality = reader.modalities[name]
    bands = view_bands(modality.band_names)

    def read(y: slice, x: slice) -> Floats:
        values, valid = reader.read(name, y, x)
        return np.where(valid[:, None], values[:, bands], np.nan).astype(np.float32)

    title = modality.title or name
    return look_at(thinned(reader, read), modality.band_names, title, reader.steps(name), metres_per_pixel(reader))


def view_bands(names: tuple[str, ...]) -> list[int]:
    """Which of these bands a picture needs, by position."""
    return _view(names)[0]


def look_at(
    series: Floats, names: tuple[str, ...], title: str, steps: tuple[str, ...], metres: float | None
) -> QuickLook:
    """A picture of the bands that `view_bands` chose.

    Args:
        series: (T, b, h, w) physical values, NaN = not observed.
        names: every band of the sensor.
        title: what a person calls the sensor.
        steps: ISO date of each step's first day.
        metres: ground size of a pixel; None on grids in degrees.
    """
    _, draw, caption = _view(names)
    seen = np.asarray(~np.isnan(series).any(axis=1))
    image, detail = draw(series, seen, steps, metres or 1.0)
    shares = tuple(float(share) for share in seen.mean(axis=(1, 2)))
    return QuickLook(image, f"{title}\n{caption}{detail}", steps, shares)


Draw = Callable[[Floats, Bools, tuple[str, ...], float], tuple[Image, str]]


def _view(names: tuple[str, ...]) -> tuple[list[int], Draw, str]:
    """Which bands to look at, how to draw them and what to call it."""
    for wanted, draw, caption in _VIEWS:
        if set(wanted) <= set(names):
            return [names.index(band) for band in wanted], draw, caption
    return [0], _grey, f"{names[0]}"


def true_color(series: Floats, seen: Bools, steps: tuple[str, ...], metres: float) -> tuple[Image, str]:
    """Red, green, blue of the best seen step with the strongest contrast, gaps filled with the median over time."""
    share = seen.mean(axis=(1, 2))
    contrast = [_contrast(red) for red in series[:, 0]]
    best = int(np.argmax(np.where(share >= 0.95 * share.max(), contrast, -np.inf)))
    filled = np.where(seen[best], series[best], over_time(np.nanmedian, series))
    return stretched(filled, common=True), f" ({steps[best][:7]})"


def _contrast(values: Floats) -> float:
    """Width of the middle 80 percent less the bright tail, which is where leftover cloud edges stand."""
    known = values[~np.isnan(values)]
    if not known.size:
        return -np.inf
    low, high, tail = np.percentile(known, (10, 90, 99.5))
    return float(high - low - (tail - high))


def radar(series: Floats, seen: Bools, steps: tuple[str, ...], metres: float) -> tuple[Image, str]:
    """Mean VV, VH and their difference in dB as red, green, blue."""
    vv, vh = over_time(np.nanmean, series)
    image = stretched(np.stack([vv, vh, vv - vh]))
    return muted(image), f" ({_span(steps)})"


def muted(image: Image) -> Image:
    """The image in quieter colours."""
    return np.asarray(0.75 * image + 0.25 * image.mean(axis=-1, keepdims=True), np.float32)


def hillshade(series: Floats, seen: Bools, steps: tuple[str, ...], metres: float) -> tuple[Image, str]:
    """Elevation as tints with the light from the north-west."""
    height = series[0, 0]
    low, high = _limits(height)
    return relief(height, low, high, metres), f", {low:.0f} to {high:.0f} m"


def relief(height: Floats, low: float, high: float, metres: float) -> Image:
    """Heights (h, w) in metres, tinted from low to high, with the light from the north-west; NaN to pale grey."""
    filled = np.where(np.isnan(height), low, height)
    shade = LightSource(azdeg=315, altdeg=45).hillshade(filled, vert_exag=4, dx=metres, dy=metres)
    tint = np.clip((filled - low) / max(high - low, 1e-6), 0, 1)[..., None]
    color = (1 - tint) * np.array([0.52, 0.64, 0.46]) + tint * np.array([0.93, 0.88, 0.76])
    image = np.clip(color * (0.45 + 0.75 * shade[..., None]), 0, 1)
    return np.where(np.isnan(height)[..., None], BLANK, image).astype(np.float32)


def temperature(series: Floats, seen: Bools, steps: tuple[str, ...], metres: float) -> tuple[Image, str]:
    """Mean air temperature from blue (coolest) to red (warmest), in degrees Celsius."""
    mean = over_time(np.nanmean, series)[0] - 273.15
    low, high = _limits(mean)
    shade = np.clip((np.nan_to_num(mean, nan=low) - low) / max(high - low, 1e-6), 0, 1)
    image = np.where(np.isnan(mean)[..., None], BLANK, colormaps["RdYlBu_r"](shade)[..., :3])
    return image.astype(np.float32), f" (mean of {_span(steps)}), {low:.1f} to {high:.1f} \u00b0C"


def _grey(series: Floats, seen: Bools, steps: tuple[str, ...], metres: float) -> tuple[Image, str]:
    mean = over_time(np.nanmean, series)
    return stretched(np.repeat(mean, 3, axis=0)), f" (mean of {_span(steps)})"


def _span(steps: tuple[str, ...]) -> str:
    return steps[0][:7] if len(steps) == 1 else f"{len(steps)} steps"


_VIEWS: tuple[tuple[tuple[str, ...], Draw, str], ...] = (
    (("B04", "B03", "B02"), true_color, "true colour"),
    (("red", "green", "blue"), true_color, "true colour"),
    (("vv", "vh"), radar, "mean VV, VH, VV - VH in dB"),
    (("elevation",), hillshade, "hillshade"),
    (("t2m",), temperature, "air temperature at 2 m"),
)


def over_time(reduce: Any, series: Floats) -> Floats:
    """Reduce (T, b, h, w) over observed steps to (b, h, w); NaN where there is none."""
    some = ~np.isnan(series).all(axis=0)
    safe = np.where(some, series, 0)
    return np.where(some, reduce(safe, axis=0), np.nan).astype(np.float32)


def stretched(bands: Floats, common: bool = False) -> Image:
    """(3, h, w) to an image between the 2nd and 98th percentile, of all bands together or of each; NaN to pale grey."""
    groups = [_limits(bands)] * 3 if common else [_limits(band) for band in bands]
    scaled = [(band - low) / max(high - low, 1e-6) for band, (low, high) in zip(bands, groups, strict=True)]
    image = np.clip(np.stack(scaled, axis=-1), 0, 1) ** (0.85 if common else 1.0)
    return np.where(np.isnan(image).any(axis=-1, keepdims=True), BLANK, image).astype(np.float32)


def _limits(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    return tuple(float(v) for v in np.percentile(known, (2, 98))) if known.size else (0.0, 1.0)  # type: ignore[return-value]


def map_classes(reader: CubeReader, path: Path) -> npt.NDArray[np.int16]:
    """A map as class index (h, w), -1 = no prediction."""
    group: Any = read_map(path)
    index = np.full(256, -1, np.int16)
    for k, item in enumerate(group.attrs["legend"]):
        index[item["value"]] = k
    index[NODATA] = -1
    return np.asarray(index[thinned(reader, lambda y, x: np.asarray(group["class"][y, x]))])


def colored(index: npt.NDArray[np.int16], legend: tuple[LabelClass, ...]) -> Image:
    """Class index (h, w) to an image in the classes' colours; -1 is pale grey."""
    return painted(index, [item.color for item in legend])


def painted(index: npt.NDArray[np.int16], colors: list[str]) -> Image:
    """Index (h, w) to an image in these hex colours; -1 is pale grey."""
    table = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in [*colors, _UNSEEN]])
    return table[index].astype(np.float32)
