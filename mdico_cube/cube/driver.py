"""odc-loader's door for readers: one asset and a grid in, its pixels on that grid out, reached anew at every read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from odc.loader._reader import (
    pick_overview,
    resolve_band_query,
    resolve_dst_dtype,
    resolve_dst_fill_value,
    resolve_src_nodata,
)
from odc.loader.types import MDParser, RasterLoadParams, RasterSource
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from mdico_cube.cube.access import WEB_OPTIONS, Access, Reach
from mdico_cube.cube.address import hush, is_remote
from mdico_cube.cube.frame import FRAMES, frame_of, stamp_of
from mdico_cube.cube.ledger import FailedRead
from mdico_cube.cube.patience import ReadError, persist
from mdico_cube.cube.pixels import read_pixels
from mdico_cube.recipe import ReadSection
from mdico_cube.spec import Array

RASTERS = ["GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID"]
"""GDAL's drivers that may open a file: a VRT, a virtual mosaic or a web service dressed up as .tif is refused."""
Placed = tuple[tuple[slice, slice], Array]
"""Where on the grid, and the pixels there."""
_NOTHING = (slice(0, 0), slice(0, 0))
_UNPLACED = {"GEOREF_SOURCES": "NONE"}
"""Opens a GeoTIFF without asking where it lies, which takes three quarters of the time of opening one."""
hush("rasterio")
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"mdico_cube\.cube\.driver")  # see _UNPLACED


def address_of(item: pystac.Item, key: str) -> str:
    """Where an asset is, unsigned."""
    return item.assets[key].get_absolute_href() or item.assets[key].href


def file_env() -> Env:
    """GDAL's settings for reading files, as a context: no sidecar files, no directory listings, no credentials."""
    return Env(DummySession(), GDAL_DISABLE_READDIR_ON_OPEN=WEB_OPTIONS["GDAL_DISABLE_READDIR_ON_OPEN"])


@dataclass
class FileDriver:
    """odc.loader's ReaderDriver for files that are signed, retried and accounted for one read at a time."""

    access: Access = field(default_factory=Access)
    reading: ReadSection = field(default_factory=ReadSection)
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Address -> (item id, asset key)."""
    failed: list[FailedRead] | None = None
    """Filled with reads that failed for good, whose pixels then count as no data; None raises ReadError."""
    hopeless: bool = False
    """True where one failed read makes the whole block fail: what comes after it is tried once only."""
    md_parser: MDParser | None = None
    dask_reader: None = None
    aux_reader: None = None

    def new_load(self, geobox: GeoBox, *, chunks: dict[str, int] | None = None) -> None:
        """Nothing is shared between the reads of a load."""

    def finalise_load(self, load_state: None) -> None:
        """Nothing is left open."""

    def capture_env(self) -> dict[str, Any]:
        """The caller's GDAL settings do not matter: each read has its own."""
        return {}

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: None) -> Iterator[None]:
        """GDAL's settings while this thread reads; the caller's own are back afterwards."""
        with file_env():
            yield

    @property
    def patient(self) -> bool:
        """Whether a passing fault is worth waiting for."""
        return not (self.hopeless and self.failed)

    def note(self, address: str, window: tuple[float, float, float, float], error: ReadError) -> None:
        """Keep a read that failed for good; raise it where no list is kept."""
        if self.failed is None:
            raise error
        item, asset = self.names.get(address, ("", ""))
        self.failed.append(FailedRead(item, asset, window, error.fault.text[:400]))

    def open(self, src: RasterSource, ctx: None) -> FileReader:
        """A reader of one asset; nothing is opened yet."""
        return FileReader(src, self)


@dataclass
class FileReader:
    """odc.loader's RasterReader of one asset."""

    source: RasterSource
    driver: FileDriver

    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: Array | None = None, selection: Any = None
    ) -> Placed:
        """Pixels of the part of the grid that the asset covers, in `dst` where that is given.

        Raises:
            ReadError: the file cannot be read, and the driver keeps no list of such reads.
        """
        driver, uri = self.driver, self.source.uri

        def once(reach: Reach, again: bool) -> Placed:
            if not is_remote(uri):
                return read_file(reach.path, self.source, cfg, dst_geobox, selection, dst)
            # What GDAL remembers of a failed try is wrong: an empty size, half a body.
            fresh = {"CPL_VSIL_CURL_NON_CACHED": "/vsi"} if again else {}
            with Env(reach.session, **reach.options, **fresh):
                return read_file(reach.path, self.source, cfg, dst_geobox, selection, dst)

        try:
            return persist(once, uri, driver.access, driver.reading, driver.patient)
        except ReadError as error:
            left, bottom, right, top = (float(edge) for edge in dst_geobox.boundingbox.bbox)
            driver.note(uri, (left, bottom, right, top), error)
            return _NOTHING, np.empty((0, 0), dtype=cfg.dtype)


def read_file(
    path: str, source: RasterSource, cfg: RasterLoadParams, geobox: GeoBox, selection: Any, out: Array | None = None
) -> Placed:
    """Pixels of one file on a grid, the same for every block of it; from overviews only where that was asked for."""
    stamp = stamp_of(path)
    frame = FRAMES.get(stamp)
    plain = frame is not None and not (cfg.use_overviews or frame.warps(geobox, cfg.resampling))
    with DatasetReader(path, driver=RASTERS, sharing=False, **(_UNPLACED if plain else {})) as file:
        if frame is None:
            frame = frame_of(file)
            if stamp is not None and file.driver == "GTiff":
                FRAMES.put(stamp, frame)
        band = resolve_band_query(source, file.count, selection=selection)
        assert isinstance(band, int)
        own = file.nodatavals[band - 1]
        missing = resolve_src_nodata(cfg.fill_value if own is None else own, cfg)
        dtype = resolve_dst_dtype(file.dtypes[band - 1], cfg)
        facts = (band, geobox, cfg.resampling, missing, resolve_dst_fill_value(dtype, cfg, missing), dtype.name)
        level = pick_overview(frame.shrinks(geobox), file.overviews(band)) if cfg.use_overviews else None
        if level is None:
            values = read_pixels(file, *facts, out, frame)
        else:
            with DatasetReader(path, driver=RASTERS, sharing=False, overview_level=level) as small:
                values = read_pixels(small, *facts, out)
    return (slice(0, geobox.shape.y), slice(0, geobox.shape.x)), values
