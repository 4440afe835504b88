"""A rectangle of a layer in, a GeoTIFF out: what the page shows, with its real values."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.layers import ClassLayer, ConfidenceLayer, Shown
from mdico_cube.explorer.sensor_layers import SensorLayer
from mdico_cube.maps.outputs import NODATA
from mdico_cube.spec import Array

LARGEST = 4096 * 4096
"""Pixels of a download at the most; `mdico export` writes a whole cube."""


def window_tif(reader: CubeReader, layer: Shown, step: int, rows: tuple[int, int], columns: tuple[int, int]) -> bytes:
    """One rectangle as a GeoTIFF: stored values of every band with scale, unit and no-data value, or class numbers.

    Args:
        reader: of the cube.
        layer: what.
        step: time step of a sensor.
        rows: first row and the one after the last; cut to the cube.
        columns: the same for columns.

    Raises:
        MdicoError: nothing of the cube lies in it, or too much.
    """
    y, x = (
        slice(max(0, first), min(stop, size)) for (first, stop), size in zip((rows, columns), reader.shape, strict=True)
    )
    height, width = y.stop - y.start, x.stop - x.start
    if height <= 0 or width <= 0:
        raise MdicoError("nothing of the cube lies in this view. Move it over the cube.")
    if height * width > LARGEST:
        raise MdicoError(f"{width} x {height} pixels are too many for a download. Zoom in, or use `mdico export`.")
    values, facts = _values(reader, layer, step, y, x)
    transform = reader.geobox.affine * Affine.translation(x.start, y.start)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=len(values), dtype=values.dtype.name,
            nodata=facts["missing"], crs=str(reader.attrs["proj:wkt2"]), transform=transform, compress="DEFLATE",
        ) as file:  # fmt: skip
            file.write(values)
            file.scales = (facts["scale"],) * len(values)
            file.units = facts["units"]
            for number, name in enumerate(facts["names"], start=1):
                file.set_band_description(number, name)
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=facts["title"])
        return bytes(memory.read())


def _values(reader: CubeReader, layer: Shown, step: int, y: slice, x: slice) -> tuple[Array, dict[str, Any]]:
    """(C, h, w) and what the file says of it."""
    if isinstance(layer, SensorLayer):
        modality, values = layer.modality, layer.stored(step, y, x)
        names, units, storage = list(modality.band_names), list(modality.units), modality.storage
        title = f"{modality.title} {reader.steps(layer.key)[step]}".strip()
        facts = {"names": names, "units": units, "title": title, "scale": storage.scale, "missing": storage.missing}
        return values, facts
    assert isinstance(layer, ClassLayer | ConfidenceLayer)
    found = layer.raster.read(y, x)
    values = np.where(found < 0, NODATA, found).astype(np.uint8)[None]
    unit = "percent" if isinstance(layer, ConfidenceLayer) else "class, counted from 0"
    return values, {"names": [unit], "units": [""], "title": layer.title, "scale": 1.0, "missing": NODATA}
