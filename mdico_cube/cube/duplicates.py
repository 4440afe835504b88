"""Items of a search in, one per acquisition out: the newest processing stays, and why the others went is told."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pystac

from mdico_cube.errors import MdicoError

_SAME_PASS = timedelta(seconds=1)
"""Two processings of one acquisition differ by milliseconds; two passes over one tile by minutes at least."""
_TIERS = ("RT", "T2", "T1")


def newest(items: Iterable[pystac.Item]) -> tuple[list[pystac.Item], dict[str, str]]:
    """One item per acquisition and tile, and item id -> why it was left out, for the others.

    Of items less than a second apart the newest processing stays. Both are sorted by time and id.
    """
    kept: list[pystac.Item] = []
    gone: dict[str, str] = {}
    for item in sorted(items, key=lambda item: (str(_tile(item)), item_time(item), item.id)):
        if not (kept and _tile(kept[-1]) == _tile(item) and item_time(item) - item_time(kept[-1]) < _SAME_PASS):
            kept.append(item)
            continue
        older, newer = sorted((kept[-1], item), key=_processing)
        kept[-1] = newer
        if older.id != newer.id:
            gone[older.id] = f"replaced by {newer.id}: {_why(older, newer)}"
    final = {item.id for item in kept}
    return sorted(kept, key=lambda item: (item_time(item), item.id)), {k: v for k, v in gone.items() if k not in final}


def item_time(item: pystac.Item) -> datetime:
    """The item's UTC time without a zone: its datetime, or its start."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise MdicoError(f"{item.collection_id}: item {item.id} has neither datetime nor start_datetime.")
    return moment.replace(tzinfo=None)


def _tile(item: pystac.Item) -> tuple[Any, ...]:
    properties = item.properties
    scene = [properties[key] for key in ("landsat:wrs_path", "landsat:wrs_row") if properties.get(key)]
    tile = properties.get("s2:mgrs_tile") or properties.get("grid:code") or "-".join(map(str, scene)) or None
    if tile is None:
        return (item.id,)
    return (item.collection_id, properties.get("platform"), tile)


def _processing(item: pystac.Item) -> tuple[float, int, str, str]:
    """What sorts processings of one acquisition from old to new: baseline, Landsat's tier, date, id."""
    number = 0.0
    with suppress(ValueError):
        number = float(_baseline(item))
    return number, _TIERS.index(_tier(item)), str(item.properties.get("created", "")), item.id


def _baseline(item: pystac.Item) -> str:
    return str(item.properties.get("s2:processing_baseline", item.properties.get("processing:version", 0)))


def _tier(item: pystac.Item) -> str:
    tier = str(item.properties.get("landsat:collection_category", "RT"))
    return tier if tier in _TIERS else "RT"


def _why(older: pystac.Item, newer: pystac.Item) -> str:
    old, new = _processing(older), _processing(newer)
    if old[0] != new[0]:
        return f"processing baseline {_baseline(newer)} after {_baseline(older)}"
    if old[1] != new[1]:
        return f"tier {_tier(newer)} after {_tier(older)}"
    if old[2] != new[2]:
        return f"made later ({new[2]})"
    return "the same acquisition, processing and date; the last id stays"
