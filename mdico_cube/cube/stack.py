"""Items, assets and a GeoBox in, raw pixels of every scene on that grid out, through stackstac: the second engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import groupby
from typing import Any

import numpy as np
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.enums import Resampling
from rasterio.env import Env
from rasterio.io import DatasetReader
from rasterio.windows import Window

from mdico_cube.cube.driver import RASTERS, FileDriver, address_of
from mdico_cube.cube.patience import ReadError, persist
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array


def stack_scenes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    driver: FileDriver,
    *,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    chunk: int | None,
    threads: int,
) -> xr.Dataset:
    """The same Dataset as odc-stac's, by stackstac: (time, y, x) per asset, one plane per item in the order given.

    Files are reached by the driver's rules: signed and retried at every read, only GeoTIFF and JPEG 2000 files opened.
    Where source and grid are aligned, the pixels are those of odc-stac; elsewhere GDAL's warper places them.

    Args:
        items: scenes that touch the geobox.
        assets: asset keys to read.
        geobox: grid to read onto; its CRS must have an EPSG code.
        driver: how files are reached, and where reads that fail for good are noted.
        dtype: type the values are read as.
        nodata: what stands where there is no value; None means 0, or NaN for floats.
        resampling: asset key -> method.
        chunk: side of Dask chunks in pixels; None reads now.
        threads: files read at once when reading now.

    Raises:
        MdicoError: stackstac is not installed, or the CRS has no EPSG code.
        ReadError: a file cannot be read and the driver keeps no list of such reads.
    """
    try:
        stack = import_module("stackstac").stack
    except ImportError as error:
        raise MdicoError("read.engine: stackstac needs its package: pip install stackstac.") from error
    if geobox.crs is None or geobox.crs.epsg is None:
        raise MdicoError(f"read.engine: stackstac needs a grid with an EPSG code, came {geobox.crs}. Use odc-stac.")
    kind = np.dtype(dtype)
    fill = kind.type(nodata if nodata is not None else np.nan if kind.kind == "f" else 0)
    options = {
        "epsg": geobox.crs.epsg,
        "resolution": (abs(geobox.resolution.x), abs(geobox.resolution.y)),
        "bounds": tuple(geobox.boundingbox.bbox),
        "snap_bounds": False,
        "xy_coords": False,  # the grid's own are put on below
        "dtype": kind,
        "fill_value": fill,
        "rescale": False,  # each sensor's rule does that, item by item
        "errors_as_nodata": (),
        "sortby_date": False,
        "properties": False,
        "band_coords": False,
        "chunksize": chunk or max(geobox.shape),
        "reader": partial(FileOfStack, driver=driver),
    }
    planes: dict[str, Any] = {}
    for method, group in groupby(sorted(assets, key=resampling.__getitem__), key=resampling.__getitem__):
        keys = list(group)
        plain = [_plain(item, keys, geobox) for item in items]
        whole = stack(plain, assets=keys, resampling=Resampling[method], **options)
        planes |= {key: whole.data[:, i] for i, key in enumerate(keys)}
    times = np.array([item.datetime.replace(tzinfo=None) if item.datetime else "NaT" for item in items], "M8[ns]")
    coords = {**dict(xr_coords(geobox)), "time": times}
    scenes = xr.Dataset({key: (("time", "y", "x"), planes[key]) for key in assets}, coords=coords)
    return scenes if chunk is not None else scenes.compute(scheduler="threads", num_workers=threads)


def _plain(item: pystac.Item, keys: Sequence[str], geobox: GeoBox) -> dict[str, Any]:
    """What stackstac must know of an item.

    Its own reading of proj: fields is left out: it knows only STAC 1.0's, and drops items whose box it misjudges.
    """
    assert geobox.crs is not None
    place = {"proj:epsg": geobox.crs.epsg, "proj:bbox": list(geobox.boundingbox.bbox)}
    return {
        "id": item.id,
        "bbox": [-180, -90, 180, 90],
        "properties": {"datetime": "2000-01-01T00:00:00Z"},
        "assets": {key: {"href": address_of(item, key), **place} for key in keys},
    }


class FileOfStack:
    """stackstac's Reader of one asset: its own reader, made anew for every read, behind our rules."""

    scale_offset = (1, 0)

    def __init__(self, *, driver: FileDriver, url: str, dtype: Any, fill_value: Any, **facts: Any) -> None:
        self.driver, self.url, self.dtype, self.fill_value = driver, url, dtype, fill_value
        self.facts = facts

    def read(self, window: Window, **options: Any) -> Array:
        """Pixels of a window of the grid.

        Raises:
            ReadError: the file cannot be read, and the driver keeps no list of such reads.
        """
        plain = import_module("stackstac.rio_reader").AutoParallelRioReader

        def once(reach: Any, again: bool) -> Array:
            with Env(reach.session, **reach.options):
                with DatasetReader(reach.path, driver=RASTERS, sharing=False):
                    pass  # refuses what is no raster file
                reader = plain(url=reach.path, dtype=self.dtype, fill_value=self.fill_value, **self.facts)
                try:
                    values: Array = reader.read(window, **options)
                finally:
                    reader.close()
                return values

        driver, spec = self.driver, self.facts["spec"]
        try:
            return persist(once, self.url, driver.access, driver.reading, driver.patient)
        except ReadError as error:
            left, bottom, right, top = (float(edge) for edge in spec.bounds)
            driver.note(self.url, (left, bottom, right, top), error)
            return np.full((window.height, window.width), self.fill_value, dtype=self.dtype)

    def close(self) -> None:
        """Nothing is left open."""

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.url, str(self.facts))
