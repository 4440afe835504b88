"""Two items in, whether they show the same acquisition out: by product name, or by platform, tile and second."""

from __future__ import annotations

import re
from datetime import timedelta

import pystac

from mdico_cube.cube.duplicates import item_time

_SAME = timedelta(seconds=1)
_NAMES = ("s2:product_uri", "s2:product_id", "s2:datatake_id", "eopf:datatake_id", "s1:product_identifier", "title")
"""Properties that may hold a product's name beside the item's id."""
_S2_TILE = re.compile(r"_T(\d{2}[A-Z]{3})(?:_|\.|$)")
_S2_TAKE = re.compile(r"(?:^|G)(S2[A-D])_(?:MSIL\d[A-C]_)?(\d{8}T\d{6})")
_S1 = re.compile(r"^(S1[A-D])_(?:IW|EW|S\d)_\w+?_(\d{8}T\d{6})_(\d{8}T\d{6})")
_LANDSAT = re.compile(r"^L[A-Z]0?(\d)_L\w{3}_(\d{3})(\d{3})_(\d{8})")
_DEM = re.compile(r"^(Copernicus_DSM_COG_\d+_[NS]\d+_00_[EW]\d+)_00|^(NASADEM_HGT_\w+)$")


def same_acquisition(one: pystac.Item, other: pystac.Item) -> bool:
    """True where two items, of whatever catalogs and processings, show the same ground at the same moment.

    Catalogs give a Sentinel-2 tile different times, of the datatake or of the tile itself, minutes apart: there the
    product's name decides. Without names that both have, platform, tile and time must agree to the second.
    """
    names, others = _product(one), _product(other)
    if names is not None and others is not None:
        return names == others
    if abs(item_time(one) - item_time(other)) >= _SAME:
        return False
    place = _tile(one)
    return one.id == other.id or (place is not None and (place, _platform(one)) == (_tile(other), _platform(other)))


def _product(item: pystac.Item) -> tuple[str, ...] | None:
    """What an acquisition is called, the same for every processing of it; None where the item does not say."""
    texts = [item.id, *(str(item.properties[key]) for key in _NAMES if item.properties.get(key))]
    tile = _tile(item)
    take = next((found for text in texts if (found := _S2_TAKE.search(text)) and "T" in found[2]), None)
    if take and tile:
        return ("sentinel-2", take[1], take[2], tile)
    for text in texts:
        if found := _S1.match(text):
            return ("sentinel-1", found[1], found[2], found[3])
        if found := _LANDSAT.match(text):
            return ("landsat", *found.groups())
        if found := _DEM.match(text):
            return ("dem", found[1] or found[2])
    return None


def _tile(item: pystac.Item) -> str | None:
    """MGRS tile or WRS-2 path and row."""
    said = item.properties
    tile = said.get("s2:mgrs_tile") or str(said.get("grid:code", "")).rpartition("-")[2]
    if tile:
        return str(tile)
    if said.get("landsat:wrs_path") and said.get("landsat:wrs_row"):
        return f"{int(said['landsat:wrs_path']):03d}{int(said['landsat:wrs_row']):03d}"
    found = next((found for text in (item.id, *map(str, said.values())) if (found := _S2_TILE.search(text))), None)
    return found[1] if found else None


def _platform(item: pystac.Item) -> str:
    return str(item.properties.get("platform", "")).lower()
