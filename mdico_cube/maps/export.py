"""A sensor of a cube in, what GDAL and QGIS open out: a GeoTIFF of a step, a Zarr v2 copy, or references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from mdico_cube.cube.interchange import write_references, write_zarr2
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import TILE, cog_of, mendable
from mdico_cube.maps.predict import windows

KINDS = (".tif", ".tiff", ".zarr", ".json")
"""What an export may be, by the ending of its name."""


def export(cube: Location, modality: str, target: Path | str, step: str | None = None) -> Path:
    """Write a sensor of a cube as other programs open it; the ending of the target's name says how.

    `.tif`: one time step as a Cloud-Optimized GeoTIFF. `.zarr`: every step, or one, copied to Zarr v2 (GDAL from 3.4
    on). `.json`: references into the cube's own shards (GDAL from 3.11 on, xarray through fsspec); nothing is copied.

    Raises:
        MdicoError: no cube, no such sensor or step, another ending, or the target cannot be written.
    """
    target, kind = Path(target), Path(target).suffix.lower()
    if kind not in KINDS:
        raise MdicoError(f"{target}: an export is a {', '.join(KINDS)}. Give a name with one of these endings.")
    if kind == ".json" and step is not None:
        raise MdicoError("references hold every time step: leave --step out, or export to a .tif or .zarr.")
    if kind == ".json":
        return write_references(cube, modality, target)
    if kind == ".zarr":
        return write_zarr2(
            cube, modality, target, None if step is None else [_index(open_reader(cube), modality, step)]
        )
    return export_step(cube, modality, target, step)


def export_step(cube: Location, modality: str, target: Path | str, step: str | None = None) -> Path:
    """Write one time step as a GeoTIFF that GDAL and QGIS open: stored values with scale, no-data value and band names.

    Memory holds one shard at a time, whatever the region.

    Args:
        cube: where the cube lies.
        modality: which sensor; a coarse one is interpolated to the cube's grid.
        target: the file; one that is there is replaced.
        step: a time step's first day or its beginning, such as "2021-03"; not needed where there is only one.

    Returns:
        The target.

    Raises:
        MdicoError: no cube, no such sensor or step, or the file cannot be written.
    """
    target, reader = Path(target), open_reader(cube)
    index = _index(reader, modality, step)
    with mendable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with cog_of(target, "AVERAGE", PREDICTOR="YES") as plain:
            _write_plain(reader, modality, index, plain)
    return target


def _index(reader: CubeReader, modality: str, step: str | None) -> int:
    steps = reader.steps(modality)
    if len(steps) == 1 and not (step and steps[0]):
        return 0
    found = [index for index, one in enumerate(steps) if step and one.startswith(step)]
    if len(found) != 1:
        came = f"{step!r} fits {len(found)} steps" if step else "no step was named"
        raise MdicoError(
            f"{modality}: {came}. Name one of its {len(steps)} steps from {steps[0]} to {steps[-1]}, such as "
            f"--step {steps[0]}."
        )
    return found[0]


def _write_plain(reader: CubeReader, modality: str, index: int, path: Path) -> None:
    described, storage = reader.modalities[modality], reader.modalities[modality].storage
    height, width = reader.shape
    dtype = np.dtype("float32") if described.coarse else np.dtype(storage.dtype)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=len(described.bands), dtype=dtype.name,
        nodata=storage.missing, crs=str(reader.attrs["proj:wkt2"]), transform=reader.geobox.affine, tiled=True,
        blockxsize=TILE, blockysize=TILE, compress="DEFLATE", interleave="band", BIGTIFF="IF_SAFER",
    ) as file:  # fmt: skip
        file.scales = (storage.scale,) * len(described.bands)
        file.offsets = (0.0,) * len(described.bands)
        file.units = [band.unit for band in described.bands]
        for number, band in enumerate(described.bands, start=1):
            file.set_band_description(number, f"{band.name}: {band.title}" if band.title else band.name)
        day = reader.steps(modality)[index]
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=f"{described.title} {day}".strip(), **({"step": day} if day else {}))
        for y, x in windows(reader.shape, reader.shard):
            block = reader.stored(modality, y, x)[index]  # (C, h, w)
            file.write(block, window=Window(x.start, y.start, x.stop - x.start, y.stop - y.start))
