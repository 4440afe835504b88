"""Scenes in, a static STAC 1.1 catalog out: items beside their assets, collections, one catalog.json."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import Transformer

from mdico_cube.demo.raster import write_cog
from mdico_cube.demo.sampling import Grid
from mdico_cube.spec import Array

EXTENSIONS = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "sar": "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
    "sat": "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "view": "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    "cube": "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "xarray": "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json",
}
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
ZARR = "application/vnd+zarr"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """One raster asset."""

    array: Array
    """(H, W)."""
    grid: Grid
    nodata: float | None
    fields: Json
    """What the asset says about itself: title, bands."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One item before it is written."""

    id: str
    time: pd.Timestamp
    """UTC; the start where `end` is given."""
    properties: Json
    assets: dict[str, Picture | xr.Dataset]
    footprint: tuple[str, tuple[float, float, float, float]]
    """CRS and (left, bottom, right, top) of the whole scene."""
    end: pd.Timestamp | None = None
    """Last moment of a scene that lasts."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection says about all its items."""

    id: str
    title: str
    description: str
    item_assets: dict[str, Json]
    keywords: tuple[str, ...] = ()
    summaries: Json = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    """Prefixes out of EXTENSIONS that the items use."""


LICENCE = "CC0-1.0"
PROVIDERS = [
    {
        "name": "mdico_cube embedded region",
        "description": "Simulated: a drawn landscape, no sensor has seen it.",
        "roles": ["producer", "licensor", "host"],
    }
]


def moment(time: pd.Timestamp) -> str:
    """A UTC time as STAC writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_scene(folder: Path, collection: Collection, scene: Scene) -> Json:
    """Write a scene's assets and then its item into folder/collection/item; returns the item."""
    place = folder / collection.id / scene.id
    place.mkdir(parents=True, exist_ok=True)
    assets = {key: _write_asset(place, key, asset, collection) for key, asset in scene.assets.items()}
    bbox, ring = _degrees(*scene.footprint)
    times: Json = {"datetime": moment(scene.time)}
    if scene.end is not None:
        times |= {"start_datetime": moment(scene.time), "end_datetime": moment(scene.end)}
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[prefix] for prefix in collection.extensions],
        "id": scene.id,
        "collection": collection.id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": bbox,
        "properties": times | scene.properties,
        "links": _links(root="../../catalog.json", parent="../collection.json", collection="../collection.json"),
        "assets": assets,
    }
    write_json(place / f"{scene.id}.json", item)
    return item


def _write_asset(place: Path, key: str, asset: Picture | xr.Dataset, collection: Collection) -> Json:
    shared = collection.item_assets[key]
    if isinstance(asset, xr.Dataset):
        with warnings.catch_warnings():  # only with it can a web server show the store, which lists no folders
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            asset.to_zarr(place / f"{key}.zarr", mode="w", zarr_format=3, consolidated=True)
        return {"href": f"./{key}.zarr", **shared}
    write_cog(place / f"{key}.tif", asset.array, asset.grid, asset.nodata)
    where = {
        "proj:shape": list(asset.grid.shape),
        "proj:transform": [*asset.grid.transform][:6],
        "proj:bbox": list(asset.grid.bounds),
    }
    return {"href": f"./{key}.tif", **shared, **where, **asset.fields}


def write_collection(folder: Path, collection: Collection, items: list[Json]) -> None:
    """Write collection.json with the extent of its items."""
    boxes = np.array([item["bbox"] for item in items])
    starts = [item["properties"].get("start_datetime", item["properties"]["datetime"]) for item in items]
    ends = [item["properties"].get("end_datetime", item["properties"]["datetime"]) for item in items]
    body = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": collection.id,
        "title": collection.title,
        "description": collection.description,
        "keywords": list(collection.keywords),
        "license": LICENCE,
        "providers": PROVIDERS,
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]]},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "summaries": collection.summaries,
        "item_assets": collection.item_assets,
        "links": [
            *_links(root="../catalog.json", parent="../catalog.json"),
            *({"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
    }
    write_json(folder / collection.id / "collection.json", body)


def write_catalog(folder: Path, collections: list[Collection]) -> Path:
    """Write catalog.json, the sign that the folder is complete; returns its path."""
    children = [
        {"rel": "child", "href": f"./{c.id}/collection.json", "type": "application/json", "title": c.title}
        for c in collections
    ]
    body = {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "mdico-embedded-region",
        "title": "Embedded region",
        "description": "A simulated landscape with known truth, seen by five simulated sensors for one year.",
        "links": [*_links(root="./catalog.json"), *children],
    }
    path = folder / "catalog.json"
    write_json(path, body)
    return path


def write_json(path: Path, body: Json) -> None:
    """Write JSON whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _links(**targets: str) -> list[Json]:
    return [{"rel": rel, "href": href, "type": "application/json"} for rel, href in targets.items()]


def _degrees(crs: str, bounds: tuple[float, float, float, float]) -> tuple[list[float], list[list[float]]]:
    """Bounding box and closed ring in degrees; every side of the ring has a middle point."""
    left, bottom, right, top = bounds
    middle, centre = (left + right) / 2, (bottom + top) / 2
    x = [left, middle, right, right, right, middle, left, left, left]
    y = [bottom, bottom, bottom, centre, top, top, top, centre, bottom]
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    ring = [[round(float(a), 7), round(float(b), 7)] for a, b in zip(lon, lat, strict=True)]
    corners = np.array(ring)
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()], ring
