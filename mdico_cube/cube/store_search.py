"""A catalog, a collection of stores and a span of time in, the items whose stores hold some of it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pystac

from mdico_cube.cube.address import shown
from mdico_cube.cube.catalog import CatalogFile
from mdico_cube.cube.duplicates import item_time
from mdico_cube.cube.items import Answer, moved, question
from mdico_cube.cube.pages import PATIENT, api_items, check_hrefs, is_api, static_items, where_to_look
from mdico_cube.cube.query import matches
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ReadSection, Source


def store_items(
    catalog: CatalogFile,
    href: str,
    source: Source,
    ids: Sequence[str],
    span: tuple[datetime, datetime],
    saved: Answer | None = None,
    reading: ReadSection = PATIENT,
) -> Answer:
    """Items of a collection whose stores hold some of a time span, wherever they say they lie; sorted by time and id.

    Weather stores cover the globe in one item, with boxes such as 0 to 359.9 degrees: the store's own axes tell.

    Args:
        catalog: where they stand.
        href: its address.
        source: the collection, and properties they must have.
        ids: the only ones to take; none takes all.
        span: first and last moment, UTC.
        saved: found before: the answer where the question is the same.
        reading: how long to go on after faults.

    Raises:
        MdicoError: the catalog cannot be read, it lacks the collection or an id, or no item is of that time.
    """
    asked = question(href, source.collection, source.query, list(ids), span)
    if saved is not None and saved.search == asked:
        return saved
    if is_api(catalog, href, reading):
        where: dict[str, Any] = {"ids": list(ids)} if ids else {"datetime": span}
        found: Iterable[pystac.Item] = api_items(href, source.collection, source.query, reading, **where)
    else:
        found = static_items(href, source, reading)
    every = {item.id: item for item in found if matches(item, source.query)}
    lacking = [one for one in ids if one not in every]
    if lacking:
        raise MdicoError(
            f"catalog {shown(href)}: {source.collection} has no item {lacking[0]!r}: it has "
            f"{', '.join(sorted(every)) or 'none'}. Set source.zarr.items.{did_you_mean(lacking[0], every)}"
        )
    items = [item for item in every.values() if not ids or item.id in ids]
    inside = [item for item in items if _overlaps(item, span)]
    if not inside:
        raise MdicoError(
            f"{source.collection}: no item in {shown(href)} is of {span[0].date()} to {span[1].date()}. "
            f"{where_to_look(catalog, href, source, reading)}"
        )
    for item in inside:
        item.make_asset_hrefs_absolute()
        check_hrefs(item, href)
    return Answer(shown(href), asked, tuple(sorted(inside, key=lambda item: (item_time(item), item.id))))


def recall_stores(saved: Answer, href: str | None) -> Answer:
    """Saved items of stores, once their addresses are checked; `href` is where the recipe says that the catalog is.

    Raises:
        MdicoError: an asset's address is of a kind that is never read.
    """
    saved = moved(saved, href)
    for item in saved.items:
        check_hrefs(item, saved.catalog)
    return saved


def _overlaps(item: pystac.Item, span: tuple[datetime, datetime]) -> bool:
    """True where an item's time, a moment or a while, meets a span; an open end has no end."""
    said = item.common_metadata
    if said.start_datetime is None:
        return span[0] <= item_time(item) <= span[1]
    start, end = (
        None if edge is None else edge.replace(tzinfo=None) for edge in (said.start_datetime, said.end_datetime)
    )
    assert start is not None
    return start <= span[1] and (end is None or end >= span[0] - timedelta(days=31))
