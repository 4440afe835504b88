"""Items, assets and a GeoBox in, raw pixels of every scene on that grid out, by either engine."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np
import odc.stac
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.errors import NotGeoreferencedWarning

from mdico_cube.cube.access import Access
from mdico_cube.cube.address import shown
from mdico_cube.cube.driver import FileDriver, address_of, file_env
from mdico_cube.cube.ledger import FailedRead
from mdico_cube.cube.memory import MEMORY
from mdico_cube.cube.stack import stack_scenes
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ReadSection
from mdico_cube.spec import Array

NOT_RASTER = ("zarr", "json", "xml", "text/", "parquet", "zip", "pdf")
"""Parts of media types of assets that are no raster files."""

_READER = "mdico-read"

# When several threads warp at once, rasterio now and then looks at its own target before it is georeferenced.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.warp")


def open_scenes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    *,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    access: Access | None = None,
    reading: ReadSection | None = None,
    failed: list[FailedRead] | None = None,
    hopeless: bool = False,
    chunks: dict[str, int | Literal["auto"]] | None = None,
    threads: int = 1,
    overviews: bool = False,
) -> xr.Dataset:
    """Scenes as a Dataset of (time, y, x) per asset: one plane per item, in the order given, in the source's counts.

    Addresses are signed, and faults waited out, at the moment each file is read: also in a lazy Dataset that is
    computed hours later.

    Args:
        items: scenes that touch the geobox.
        assets: asset keys to read.
        geobox: grid to read onto.
        dtype: type the values are read as.
        nodata: source value that means no data; None takes what the item declares.
        resampling: asset key -> method.
        access: how the catalog's files are reached; None = as they are.
        reading: which engine, and how long to go on after faults; None takes the defaults.
        failed: filled with the reads that failed for good, whose pixels then mean nothing; None raises instead.
        hopeless: one failed read makes all of them useless: what comes after it is tried once only.
        chunks: lazy Dask chunks; None reads now.
        threads: files read at once when reading now.
        overviews: True reads from a file's own overviews where the grid is at least twice as coarse as it.

    Raises:
        MdicoError: an item lacks an asset, or a secret that the catalog file names is not set.
        ReadError: a file cannot be read (when reading now or computing) and `failed` is None.
    """
    check_assets(items, assets)
    lazy = chunks is not None  # a graph is shipped around: what it carries stays small
    names = {address_of(item, key): (item.id, key) for item in items for key in assets} if not lazy else {}
    reading = reading or ReadSection()
    driver = FileDriver(access or Access(), reading, names, None if lazy else failed, hopeless)
    if reading.engine == "stackstac":
        side = None if chunks is None else int(min(value for key, value in chunks.items() if key in ("x", "y")))
        return stack_scenes(
            *(items, assets, geobox, driver),
            dtype=dtype,
            nodata=nodata,
            resampling={key: resampling.get(key, resampling.get("*", "nearest")) for key in assets},
            chunk=side,
            threads=threads,
        )
    return odc.stac.load(
        items,
        bands=list(assets),
        geobox=geobox,
        groupby="id",
        dtype=dtype,
        nodata=nodata,
        resampling=dict(resampling),
        chunks=chunks,
        pool=threads,
        driver=driver,
        fail_on_error=True,
        use_overviews=overviews,
    )


def read_scenes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    *,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    access: Access | None = None,
    reading: ReadSection | None = None,
    failed: list[FailedRead] | None = None,
    hopeless: bool = False,
    threads: int = 1,
) -> Array:
    """Raw values (item, asset, y, x); see `open_scenes`.

    Raises:
        MdicoError: a file cannot be read and `failed` is None; the text names item and asset.
    """
    wrong: list[FailedRead] = [] if failed is None else failed
    reading = reading or ReadSection()
    hopeless = hopeless or failed is None
    if reading.engine == "odc-stac":
        planes = _read_planes(
            items, assets, geobox, dtype, nodata, resampling, access or Access(), reading, wrong, hopeless, threads
        )
    else:
        scenes = open_scenes(
            items,
            assets,
            geobox,
            dtype=dtype,
            nodata=nodata,
            resampling=resampling,
            access=access,
            reading=reading,
            failed=wrong,
            hopeless=hopeless,
            threads=threads,
        )
        planes = np.stack([scenes[key].values for key in assets], axis=1)
    if failed is None and wrong:
        raise MdicoError(unreadable(items, wrong))
    return planes


def _read_planes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    access: Access,
    reading: ReadSection,
    failed: list[FailedRead],
    hopeless: bool,
    threads: int,
) -> Array:
    """What `odc.stac.load` gives with the same driver, file by file, without laying out a Dataset for every block."""
    check_assets(items, assets)
    addresses = {(i, j): address_of(item, key) for i, item in enumerate(items) for j, key in enumerate(assets)}
    names = {address: (items[i].id, assets[j]) for (i, j), address in addresses.items()}
    driver = FileDriver(access, reading, names, failed, hopeless)
    hows = [
        RasterLoadParams(
            dtype=dtype,
            fill_value=nodata,
            resampling=resampling.get(key, resampling.get("*", "nearest")),
            use_overviews=False,
        )
        for key in assets
    ]
    kind = np.dtype(dtype)
    fill = kind.type(nodata if nodata is not None else np.nan if kind.kind == "f" else 0)
    planes = MEMORY.empty((len(items), len(assets), *geobox.shape), kind)

    def read(place: tuple[int, int]) -> None:
        reader = driver.open(RasterSource(addresses[place]), None)
        _, values = reader.read(hows[place[1]], geobox, dst=planes[place])
        if not values.size:  # it cannot be read
            planes[place] = fill

    if threads == 1:
        with file_env():
            for place in addresses:
                read(place)
    else:
        list(readers(threads).map(read, addresses))
    return planes


def readers(threads: int) -> ThreadPoolExecutor:
    """Threads that read files, kept and shared by all shards that are built in this process."""
    return _pool(_READER, threads, os.getpid())


def helper() -> ThreadPoolExecutor:
    """One thread of the calling thread, kept: starting it for every shard costs more than it does."""
    return _pool(f"mdico-ahead-{threading.get_ident()}", 1, os.getpid())


@lru_cache(maxsize=64)
def _pool(name: str, threads: int, process: int) -> ThreadPoolExecutor:
    """`process` gives a fork threads of its own."""
    return ThreadPoolExecutor(threads, name, initializer=_settle if name == _READER else None)


def _settle() -> None:
    """Enter GDAL's settings for good: in and out again at every file costs as much as opening one."""
    file_env().__enter__()


def unreadable(items: Sequence[pystac.Item], failed: Sequence[FailedRead]) -> str:
    """The sentence about reads that failed: it names the first file, and how many others there are."""
    first = min(failed, key=lambda read: (read.item, read.asset))
    item = next(item for item in items if item.id == first.item)
    others = len({(read.item, read.asset) for read in failed}) - 1
    return (
        f"{item.collection_id}: item {item.id}, asset {first.asset} cannot be read ({first.error}) from "
        f"{shown(address_of(item, first.asset))}{f', and {others} more files' if others else ''}. Go on with --resume "
        "once it can be read, or build without such scenes: `read: {failed: gap}` in the recipe."
    )


def check_assets(items: Sequence[pystac.Item], assets: Sequence[str]) -> None:
    """Raise MdicoError naming the first item that lacks one of the assets or has it as something else than a raster."""
    for item in items:
        missing = [key for key in assets if key not in item.assets]
        if missing:
            raise MdicoError(
                f"{item.collection_id}: item {item.id} has no asset {', '.join(missing)}: it has "
                f"{', '.join(item.assets)}. Set the modality's bands, or source.assets to the names used here."
            )
        for key in assets:
            kind = item.assets[key].media_type or ""
            if any(word in kind.lower() for word in NOT_RASTER):
                raise MdicoError(
                    f"{item.collection_id}: item {item.id}, asset {key} is no raster file ({kind}). "
                    "Set source.assets to assets that are GeoTIFF or JPEG 2000, or use another catalog."
                )
