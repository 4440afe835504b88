"""Items, assets and a GeoBox in, raw pixels of every scene on that grid out, through odc-stac."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Literal

import numpy as np
import odc.stac
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning

from mdico_cube.errors import MdicoError
from mdico_cube.spec import Array

NOT_RASTER = ("zarr", "json", "xml", "text/", "parquet", "zip", "pdf")
"""Parts of media types of assets that are no raster files."""

# When several threads warp at once, rasterio now and then looks at its own target before it is georeferenced.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.warp")
# A file that cannot be read is named once, by the error raised here; its address may carry a signature.
logging.getLogger("odc.loader._rio").addFilter(lambda record: not record.msg.startswith("Failed to load"))


def signer(signing: str) -> Callable[[str], str] | None:
    """What signs an asset's address at the moment it is read; None where nothing needs signing.

    Raises:
        MdicoError: the package that signs is not installed.
    """
    if signing == "none":
        return None
    try:
        sign: Callable[[str], str] = import_module("planetary_computer").sign
    except ImportError as error:
        raise MdicoError(
            "the Planetary Computer signs its addresses: pip install 'mdico-cube[planetary-computer]'."
        ) from error
    return sign


def open_scenes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    *,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    signing: str = "none",
    chunks: dict[str, int | Literal["auto"]] | None = None,
    threads: int = 1,
) -> xr.Dataset:
    """Scenes as a Dataset of (time, y, x) per asset: one plane per item, in the order given, in the source's counts.

    Args:
        items: scenes that touch the geobox.
        assets: asset keys to read.
        geobox: grid to read onto.
        dtype: type the values are read as.
        nodata: source value that means no data; None takes what the item declares.
        resampling: asset key -> method.
        signing: who signs the addresses.
        chunks: lazy Dask chunks; None reads now.
        threads: files read at once when reading now.

    Raises:
        MdicoError: an item lacks an asset.
    """
    check_assets(items, assets)
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
        patch_url=signer(signing),
        fail_on_error=True,
    )


def read_scenes(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    geobox: GeoBox,
    *,
    dtype: str,
    nodata: float | None,
    resampling: Mapping[str, str],
    signing: str,
    threads: int,
) -> Array:
    """Raw values (item, asset, y, x); see `open_scenes`.

    Raises:
        MdicoError: a file cannot be read; the text names item and asset.
    """

    def load(some: Sequence[pystac.Item], keys: Sequence[str]) -> xr.Dataset:
        return open_scenes(
            some, keys, geobox, dtype=dtype, nodata=nodata, resampling=resampling, signing=signing, threads=threads
        )

    try:
        scenes = load(items, assets)
    except MdicoError:
        raise
    except Exception as error:  # GDAL, network and odc errors have no common class: find the file and name it
        raise MdicoError(_culprit(items, assets, load, error)) from error
    return np.stack([scenes[key].values for key in assets], axis=1)


def _culprit(
    items: Sequence[pystac.Item],
    assets: Sequence[str],
    load: Callable[[Sequence[pystac.Item], Sequence[str]], xr.Dataset],
    first: Exception,
) -> str:
    """The sentence that names the file behind a failed read: each is tried alone."""
    for item in items:
        for key in assets:
            try:
                load([item], [key])
            except Exception as error:
                address = item.assets[key].href.split("?")[0]
                return (
                    f"{item.collection_id}: item {item.id}, asset {key} cannot be read ({_plain(error)}) from "
                    f"{address}. Repair or remove the file, then go on with --resume."
                )
    return f"{items[0].collection_id}: reading failed once ({_plain(first)}). Go on with --resume."


def _plain(error: Exception) -> str:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0].split("?")[0]


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
