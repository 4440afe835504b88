"""A cube on disk: created from metadata first, every pixel missing; later its recipe and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec

from mdico_cube.cube.change import changing, creating, writing
from mdico_cube.cube.geozarr import grid_attrs
from mdico_cube.cube.layer import Layer, describe_layer
from mdico_cube.cube.ledger import create_ledger
from mdico_cube.cube.packing import packer
from mdico_cube.cube.reader import forget_readers
from mdico_cube.cube.target import Location, open_group
from mdico_cube.schema import COARSE, LAPSE_RATE, OROGRAPHY, STATIC, TEMPORAL, VERSION

GRID_MAPPING = "spatial_ref"
Packing = Mapping[str, Sequence[BytesBytesCodec]]
"""Modality -> what its chunks go through, in order."""
_WEATHER = ZstdCodec(level=3)
"""Packs a modality on its own grid: a few kilobytes that are read once."""


def create_cube(
    path: Location,
    geobox: GeoBox,
    layers: Sequence[Layer],
    chunk: int,
    shard: int,
    attrs: Mapping[str, Any],
    ledger_shape: tuple[int, int],
    overwrite: bool = False,
    packing: Packing | None = None,
    sharded: bool = True,
) -> None:
    """Write the metadata of a cube whose every pixel is still missing. No pixel is computed.

    `packing` says what packs each modality; what it does not name is packed as `packer` says. The cube carries an empty
    ledger with `ledger_shape` shards along y and x; a coarse modality is one shard. The root's metadata is put in place
    last, so that there is a whole cube at `path` or none; with `overwrite` a cube that stands there goes first on an
    object store and last elsewhere.

    Raises:
        MdicoError: the place cannot be written, or holds something that is no cube.
    """
    with creating(path, overwrite) as draft:
        lay_out(draft, geobox, layers, chunk, shard, attrs, ledger_shape, packing, sharded)
    forget_readers()


def lay_out(
    draft: Store,
    geobox: GeoBox,
    layers: Sequence[Layer],
    chunk: int,
    shard: int,
    attrs: Mapping[str, Any],
    ledger_shape: tuple[int, int],
    packing: Packing | None = None,
    sharded: bool = True,
) -> None:
    """Write that metadata into an empty store, wherever it goes from there."""
    root = xr.Dataset(coords=grid_coords(geobox), attrs={**_root_attrs(geobox, layers, chunk, shard), **attrs})
    root.to_zarr(draft, mode="w", zarr_format=3, consolidated=False)
    for layer in layers:
        coarse = layer.modality.coarse
        if coarse:
            dataset, encoding = _coarse_template(layer)
        else:
            packed = (packing or {}).get(layer.modality.name, [packer()])
            dataset, encoding = _template(geobox, layer, chunk, shard, packed, sharded)
        dataset.to_zarr(
            draft,
            group=layer.modality.name,
            mode="a",
            zarr_format=3,
            consolidated=False,
            compute=False,
            encoding=encoding,
        )
        pixels = f"{layer.modality.name}/{layer.modality.variable}" if coarse or sharded else ""
        create_ledger(draft, layer.modality.name, (1, 1) if coarse else ledger_shape, pixels)


def grid_coords(geobox: GeoBox) -> dict[Any, Any]:
    """Coordinates x, y and spatial_ref of a grid."""
    return dict(xr_coords(geobox, crs_coord_name=GRID_MAPPING))


def _root_attrs(geobox: GeoBox, layers: Sequence[Layer], chunk: int, shard: int) -> dict[str, Any]:
    return {
        "mdico_schema": VERSION,
        "mdico_modalities": {layer.modality.name: describe_layer(layer) for layer in layers},
        "mdico_chunk": chunk,
        "mdico_shard": shard,
        **grid_attrs(geobox),
    }


def _template(
    geobox: GeoBox, layer: Layer, chunk: int, shard: int, packed: Sequence[BytesBytesCodec], sharded: bool
) -> tuple[xr.Dataset, dict[str, Any]]:
    modality, storage = layer.modality, layer.modality.storage
    dims = TEMPORAL if modality.temporal else STATIC
    lead = (len(layer.steps),) * modality.temporal + (len(modality.bands),)
    shape = (*lead, *geobox.shape)
    shards = (*lead, shard, shard)
    empty = da.zeros(shape, chunks=shards, dtype="float32" if storage.scale != 1 else storage.dtype)
    coords = {**grid_coords(geobox), "band": np.array(modality.band_names, dtype=object)}
    if modality.temporal:
        coords |= _time_coords(layer)
    attrs = {"long_name": modality.title, "units": ", ".join(dict.fromkeys(modality.units))}
    dataset = xr.Dataset({modality.variable: (dims, empty, attrs)}, coords=coords, attrs=grid_attrs(geobox))
    encoding: dict[str, Any] = {
        "dtype": storage.dtype,
        "chunks": (*lead, chunk, chunk),
        **({"shards": shards} if sharded else {}),
        "grid_mapping": GRID_MAPPING,
        "_FillValue": np.dtype(storage.dtype).type(storage.missing),
        "fill_value": storage.missing,  # what a shard that was never written reads as
        "compressors": list(packed),
    }
    if storage.scale != 1:
        encoding["scale_factor"] = storage.scale
    return dataset, {modality.variable: encoding}


def _coarse_template(layer: Layer) -> tuple[xr.Dataset, dict[str, Any]]:
    """A modality on its own grid: one chunk, since a whole year of it is smaller than one chunk of an image."""
    modality, grid = layer.modality, (len(layer.latitudes), len(layer.longitudes))
    shape = (len(layer.steps), len(modality.bands), *grid)
    nothing = np.float32(np.nan)
    weather, heights = (da.zeros(one, chunks=one, dtype="float32") for one in (shape, grid))
    rate = {"units": "K km-1", "long_name": "fall of temperature with height when read"}
    dataset = xr.Dataset(
        {
            modality.variable: (COARSE, weather, {"long_name": modality.title, "units": ", ".join(modality.units)}),
            OROGRAPHY: (COARSE[2:], heights, {"units": "m", "long_name": "height of the cells' ground"}),
            LAPSE_RATE: ((), nothing, rate),
        },
        coords={
            **_time_coords(layer),
            "band": np.array(modality.band_names, dtype=object),
            "latitude": ("latitude", np.array(layer.latitudes), {"units": "degrees_north"}),
            "longitude": ("longitude", np.array(layer.longitudes), {"units": "degrees_east"}),
        },
    )
    missing = {"_FillValue": nothing, "fill_value": np.nan}
    return dataset, {
        modality.variable: {"chunks": shape, "compressors": [_WEATHER], **missing},
        OROGRAPHY: {"chunks": grid, **missing},
        LAPSE_RATE: missing,
    }


def _time_coords(layer: Layer) -> dict[str, Any]:
    """Each step's first instant and, as CF bounds, its first and the first after it."""
    starts = np.array(layer.steps, dtype="datetime64[ns]")
    if not layer.stops:
        return {"time": starts}
    bounds = np.stack([starts, np.array(layer.stops, dtype="datetime64[ns]")], axis=1)
    return {"time": ("time", starts, {"bounds": "time_bounds"}), "time_bounds": (("time", "bound"), bounds)}


def keep_recipe(path: Location, recipe: str) -> None:
    """Note the recipe (JSON) that the cube's shards are being built from."""
    with writing(path), changing(path, "recipe kept", metadata=True) as change:
        open_group(change.target, "r+").attrs["mdico_recipe"] = recipe
    forget_readers()
