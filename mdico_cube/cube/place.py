"""An item in, the CRS its pixels stand in out: what its projection metadata say, held against where the item is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pystac
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from mdico_cube.errors import MdicoError

TOLERANCE = 1.5
"""Degrees by which a raster's centre may lie outside its item's bounding box."""
_SHORT_ZONE = re.compile(r"EPSG:32([67])([1-9])")


def item_crs(item: pystac.Item, asset: str | None = None) -> str | None:
    """The CRS an item or one of its assets declares (STAC 1.0 proj:epsg, 1.1 proj:code); None where neither does."""
    fields = item.assets[asset].extra_fields if asset in item.assets else {}
    for said in (fields, item.properties):
        if said.get("proj:code"):
            return str(said["proj:code"])
        if said.get("proj:epsg"):
            return f"EPSG:{said['proj:epsg']}"
    return None


def settle_crs(item: pystac.Item, asset: str | None = None) -> str | None:
    """Mend an item whose declared CRS puts it in another part of the world; returns the CRS that it stands in.

    A UTM code that lost the zero of its zone (EPSG:3271 for 32701) is written out; the item's own place decides.

    Raises:
        MdicoError: the declared CRS is none, or puts the item elsewhere and no such slip explains it.
    """
    code = item_crs(item, asset)
    box = item_box(item)
    if code is None or box is None or _fits(code, item, asset, box):
        return code
    short = _SHORT_ZONE.fullmatch(code)
    for whole in (f"EPSG:32{north}0{short[2]}" for north in f"{short[1]}67") if short else ():
        if _fits(whole, item, asset, box):
            _replace(item, code, whole)
            return whole
    raise MdicoError(
        f"{item.collection_id}: item {item.id} says {code}, but in that CRS it does not lie at its own bounding box "
        f"{[round(edge, 2) for edge in box]}. Its projection metadata are wrong: leave it out or use another "
        "catalog."
    )


def _replace(item: pystac.Item, code: str, whole: str) -> None:
    for fields in (item.properties, *(asset.extra_fields for asset in item.assets.values())):
        if fields.get("proj:code") == code:
            fields["proj:code"] = whole
        if fields.get("proj:epsg") is not None and f"EPSG:{fields['proj:epsg']}" == code:
            fields["proj:epsg"] = int(whole.removeprefix("EPSG:"))


def item_box(item: pystac.Item) -> tuple[float, float, float, float] | None:
    """West, south, east, north of an item: its bounding box, else that of its footprint; None where it has neither."""
    if item.bbox:
        west, south, east, north = item.bbox if len(item.bbox) == 4 else (*item.bbox[:2], *item.bbox[3:5])
        return west, south, east, north
    if item.geometry is None:
        return None
    west, south, east, north = shapely.geometry.shape(item.geometry).bounds
    return west, south, east, north


def _fits(code: str, item: pystac.Item, asset: str | None, box: tuple[float, float, float, float]) -> bool:
    """True where a CRS puts the item's raster at the item's bounding box."""
    try:
        to_degrees = degrees_from(code)
    except CRSError:
        return False
    west, south, east, north = box
    centre = _centre(item, asset)
    if centre is None:
        return _in_use(code, (west, south, east, north))
    lon, lat = to_degrees.transform(*centre)
    if not np.isfinite([lon, lat]).all() or not south - TOLERANCE <= lat <= north + TOLERANCE:
        return False
    slack = TOLERANCE / max(np.cos(np.radians(lat)), 0.05)
    width = (east - west) % 360 or 360  # a box over the antimeridian has its west to the right of its east
    return bool(abs(lat) > 80 or (lon - west + slack) % 360 <= width + 2 * slack)


def _in_use(code: str, box: tuple[float, ...]) -> bool:
    area = CRS(code).area_of_use
    if area is None:
        return True
    lon, lat = box[0] + ((box[2] - box[0]) % 360 or 360) / 2, (box[1] + box[3]) / 2
    width = (area.east - area.west) % 360 or 360
    inside = area.south - 10 <= lat <= area.north + 10
    return bool(inside and (lon - area.west + 12) % 360 <= width + 24)


def _centre(item: pystac.Item, asset: str | None) -> tuple[float, float] | None:
    """Centre of the raster in its own CRS, from proj:transform with proj:shape or proj:bbox; None where unknown."""
    fields: dict[str, Any] = dict(item.properties)
    first = next((a.extra_fields for a in item.assets.values() if "proj:transform" in a.extra_fields), {})
    fields |= item.assets[asset].extra_fields if asset in item.assets else first
    affine, shape, box = (fields.get(f"proj:{key}") for key in ("transform", "shape", "bbox"))
    if affine and shape:
        a, b, c, d, e, f = affine[:6]
        x, y = shape[1] / 2, shape[0] / 2
        return a * x + b * y + c, d * x + e * y + f
    if not box or list(box) == item.bbox:  # some catalogs write degrees into proj:bbox
        return None
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


@lru_cache
def degrees_from(code: str) -> Transformer:
    """From a CRS to longitude and latitude in WGS 84."""
    return Transformer.from_crs(code, "EPSG:4326", always_xy=True)
