"""A label file in, class index and parcel number of every pixel of the grid out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from odc.geo.geobox import GeoBox
from pyogrio.errors import DataSourceError
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from mdico_cube.cube.grid import shards
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ClassSection, LabelSection
from mdico_cube.schema import UNLABELLED

_VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".geoparquet")
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known on the ground, on the cube's grid."""

    label: npt.NDArray[np.uint8]
    """(y, x) class index 0..K-1, 255 = unlabelled."""
    parcel: npt.NDArray[np.int32] | None
    """(y, x) parcel number from 1 on, 0 = none; None where the file has no groups."""


def rasterize_labels(section: LabelSection, geobox: GeoBox) -> Labels:
    """Put a raster or vector label file on the grid: a pixel takes the class at its centre.

    Raises:
        MdicoError: the file is missing or unreadable, lies outside the area, or shows a single class.
    """
    if not section.path.exists():
        raise MdicoError(f"labels {section.path}: no such file. Set labels.path in the recipe.")
    if section.path.suffix.lower() in _VECTORS:
        labels = _from_vector(section, geobox)
    else:
        labels = Labels(_from_raster(section, geobox), None)
    present = np.unique(labels.label[labels.label != UNLABELLED])
    if present.size == 0:
        raise MdicoError(
            f"labels {section.path}: no labelled pixel of the listed classes lies in the area. "
            "Check the file's extent and CRS against the recipe's area, and labels.classes against its values."
        )
    if present.size == 1:
        only = section.classes[int(present[0])].name
        raise MdicoError(
            f"labels {section.path}: only one class ({only}) lies in the area, but a classifier needs two. "
            "Widen the area or list more classes."
        )
    return labels


def _from_raster(section: LabelSection, geobox: GeoBox) -> npt.NDArray[np.uint8]:
    height, width = geobox.shape
    label = np.full((height, width), UNLABELLED, dtype=np.uint8)
    try:
        with (
            rasterio.open(section.path) as source,
            WarpedVRT(
                source,
                crs=str(geobox.crs),
                transform=geobox.affine,
                width=width,
                height=height,
                resampling=Resampling.nearest,
            ) as view,
        ):
            keys = [_number(entry, section) for entry in section.classes]
            for block in shards((height, width), _BLOCK):
                window = rasterio.windows.Window.from_slices(block.y, block.x)
                values = view.read(1, window=window, masked=True)
                part = label[block.y, block.x]
                for index, key in enumerate(keys):
                    part[np.ma.filled(values == key, False)] = index
    except rasterio.errors.RasterioError as error:
        raise MdicoError(
            f"labels {section.path}: cannot be read as a raster ({error}). Give a GeoTIFF, GeoPackage, GeoParquet or "
            "GeoJSON."
        ) from error
    return label


def _number(entry: ClassSection, section: LabelSection) -> int:
    try:
        return int(entry.key)
    except ValueError as error:
        raise MdicoError(
            f"labels.classes: {entry.name!r} needs its number in the raster {section.path.name}: set `source`."
        ) from error


def _from_vector(section: LabelSection, geobox: GeoBox) -> Labels:
    frame = _read_vector(section, geobox)
    keys = [str(entry.key) for entry in section.classes]
    index = frame[section.attribute].astype(str).map({key: i for i, key in enumerate(keys)})
    known = frame[index.notna()]
    classes = index[index.notna()].astype(int).to_numpy()
    groups = None if section.group is None else pd.factorize(known[section.group])[0] + 1
    label = _burn(known.geometry, classes, geobox, UNLABELLED).astype(np.uint8)
    parcel = None if groups is None else _burn(known.geometry, groups, geobox, 0).astype(np.int32)
    return Labels(label, parcel)


def _read_vector(section: LabelSection, geobox: GeoBox) -> gpd.GeoDataFrame:
    try:
        if section.path.suffix.lower() in (".parquet", ".geoparquet"):
            frame = gpd.read_parquet(section.path)
        else:
            frame = gpd.read_file(section.path)
    except (DataSourceError, ValueError, OSError) as error:
        raise MdicoError(f"labels {section.path}: cannot be read as vectors ({error}).") from error
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    for key, column in (("attribute", section.attribute), ("group", section.group)):
        if (key == "attribute" and column is None) or (column is not None and column not in columns):
            raise MdicoError(
                f"labels.{key}: {section.path.name} has no column {column!r}. Choose one of {', '.join(columns)}."
            )
    if frame.crs is None:
        raise MdicoError(f"labels {section.path}: has no CRS. Write it with one.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return frame.to_crs(str(geobox.crs))


def _burn(geometries: gpd.GeoSeries, values: npt.NDArray[np.int_], geobox: GeoBox, empty: int) -> npt.NDArray[np.int32]:
    """Burn values into the grid block by block, so memory does not grow with the number of polygons in a block."""
    out = np.full(tuple(geobox.shape), empty, dtype=np.int32)
    tree = geometries.sindex
    for block in shards((geobox.shape.y, geobox.shape.x), _BLOCK):
        part = geobox[block.y, block.x]
        hits: Sequence[int] = sorted(tree.query(part.extent.geom))
        if len(hits):
            shapes = [(geometries.iloc[hit], int(values[hit])) for hit in hits]
            out[block.y, block.x] = rasterize(
                shapes, out_shape=tuple(part.shape), transform=part.affine, fill=empty, dtype="int32"
            )
    return out
