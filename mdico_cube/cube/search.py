"""A catalog, an area and a period in, STAC items out: one way for static catalogs and for APIs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pystac
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from mdico_cube.cube.address import is_remote, shown
from mdico_cube.cube.catalog import CatalogFile, Fallback
from mdico_cube.cube.duplicates import item_time
from mdico_cube.cube.globe import outline, parts, span, touches
from mdico_cube.cube.items import Answer, moved, question
from mdico_cube.cube.pages import PATIENT, SlowError, api_items, check_hrefs, is_api, static_items, where_to_look
from mdico_cube.cube.query import matches
from mdico_cube.errors import MdicoError
from mdico_cube.period import Period
from mdico_cube.recipe import ReadSection, Source

Span = tuple[datetime, datetime]
"""Of UTC time, both ends included."""
_SHORTEST = timedelta(hours=12)
"""No span of time is searched in shorter pieces."""


def search_items(
    catalog: CatalogFile,
    href: str,
    source: Source,
    geobox: GeoBox,
    period: Period | None,
    saved: Answer | None = None,
    reading: ReadSection = PATIENT,
) -> Answer:
    """Items of one collection that touch the area and, where given, the period; each once, sorted by time and id.

    The same acquisition may come in several processings: `newest` picks. Where `saved` answers the same question, it is
    the answer and the catalog is not asked.

    Raises:
        MdicoError: the catalog cannot be reached or is no STAC, it lacks the collection, or nothing was found.
    """
    area, spans = outline(geobox), _spans(geobox, period)
    asked = question(href, source.collection, source.query, area.json, spans)
    if saved is not None and saved.search == asked:
        return saved
    items = find_items(catalog, href, source, area, spans, reading)
    if not items:
        when = f" between {spans[0][0].date()} and {spans[-1][1].date()}" if spans else ""
        raise MdicoError(
            f"{source.collection}: no item in {shown(href)} touches the area {_rounded(area)}{when}. "
            f"{where_to_look(catalog, href, source, reading)}"
        )
    return Answer(shown(href), asked, tuple(items))


def find_items(
    catalog: CatalogFile,
    href: str,
    source: Source,
    area: Geometry,
    spans: list[Span] | None,
    reading: ReadSection = PATIENT,
) -> list[pystac.Item]:
    """Items of one collection in an area (degrees) and spans of UTC time, each once; by time and id, perhaps none.

    Raises:
        MdicoError: the catalog cannot be reached or is no STAC, it lacks the collection, or an asset's address is of a
            kind that is never read.
    """
    search = _search_api if is_api(catalog, href, reading) else _search_static
    found = search(href, source, area, spans, reading)
    items = list({item.id: item for item in found if matches(item, source.query)}.values())
    for item in items:
        item.make_asset_hrefs_absolute()
        check_hrefs(item, href)
    return sorted(items, key=lambda item: (item_time(item), item.id))


def catalog_of(saved: Answer, modality: str, candidates: Sequence[Fallback]) -> Fallback:
    """The catalog that saved items were found in: the recipe's own, which comes first, or one of its others.

    Each catalog has rules of its own for offsets and stores, so that items are only read by those of theirs.

    Raises:
        MdicoError: they are of none of these.
    """
    collections = {item.collection_id for item in saved.items if item.collection_id}
    fitting = [one for one in candidates if not collections or one.source.collection in collections]
    for one in fitting:
        if shown(one.href).rstrip("/") == saved.catalog.rstrip("/"):
            return one
    for one in fitting:
        if not (is_remote(one.href) and is_remote(saved.catalog)):  # a static catalog may be moved or published
            return one
    raise MdicoError(
        f"{modality}: the saved items are of {', '.join(sorted(collections)) or 'no collection'} in {saved.catalog}, "
        f"the recipe asks for {candidates[0].source.collection} in {shown(candidates[0].href)}. Name their catalog and "
        "collection in the recipe, or plan and build without --items to search again."
    )


def recall(
    saved: Answer, href: str | None, source: Source, geobox: GeoBox, period: Period | None
) -> tuple[Answer, dict[str, str]]:
    """Saved items as the answer to this search, and item id -> why it would not have found one, for these.

    Raises:
        MdicoError: an asset's address is of a kind that is never read.
    """
    saved, area = moved(saved, href), outline(geobox)
    strange: dict[str, str] = {}
    for item in saved.items:
        check_hrefs(item, saved.catalog)
        if item.geometry is None or not touches(item.geometry, area):
            strange[item.id] = "outside the area"
        elif not matches(item, source.query):
            strange[item.id] = "not what the query wants"
    asked = question(href or saved.catalog, source.collection, source.query, area.json, _spans(geobox, period))
    return replace(saved, search=asked), strange


def _spans(geobox: GeoBox, period: Period | None) -> list[Span] | None:
    """Spans of UTC time to search, both ends included; None where time does not matter."""
    if period is None:
        return None
    shift, last = timedelta(hours=longitude(geobox) / 15), timedelta(microseconds=1)
    return [(start.to_pydatetime() - shift, stop.to_pydatetime() - shift - last) for start, stop in period.spans()]


def longitude(geobox: GeoBox) -> float:
    """Longitude of a grid's centre in degrees: solar time is UTC plus a fifteenth of it in hours."""
    ((lon, _),) = geobox.extent.centroid.to_crs("EPSG:4326").points
    return float(lon)


def _search_static(
    href: str, source: Source, area: Geometry, spans: list[Span] | None, reading: ReadSection
) -> list[pystac.Item]:
    found: list[pystac.Item] = []
    for item in static_items(href, source, reading):
        inside = spans is None or any(start <= item_time(item) <= stop for start, stop in spans)
        if inside and item.geometry is not None and touches(item.geometry, area):
            found.append(item)
    return found


def _search_api(
    href: str, source: Source, area: Geometry, spans: list[Span] | None, reading: ReadSection
) -> list[pystac.Item]:
    def ask(span: Span | None, hasty: bool) -> Iterator[pystac.Item]:
        where = {"intersects": area.json, "datetime": span}
        return api_items(href, source.collection, source.query, reading, hasty, **where)

    return [item for span in (spans or (None,)) for item in _in_pieces(ask, span)]


def _in_pieces(ask: Callable[[Span | None, bool], Iterator[pystac.Item]], span: Span | None) -> list[pystac.Item]:
    """A search's answer; where the API takes too long for it, the answers for both halves of its time."""
    half = (span[1] - span[0]) / 2 if span else timedelta(0)
    if span is None or half < _SHORTEST:
        return list(ask(span, False))
    try:
        return list(ask(span, True))
    except SlowError:
        middle = span[0] + half
        return [*_in_pieces(ask, (span[0], middle)), *_in_pieces(ask, (middle, span[1]))]


def adopt_keys(item: pystac.Item, source: Source, bands: Sequence[str]) -> pystac.Item:
    """A copy of an item whose assets stand under the usual keys, where missions name them differently."""
    copy = item.clone()
    for keys in (*(source.keys(band) for band in bands), source.quality_keys):
        own = next((key for key in keys if key in copy.assets), None)
        if own is not None and own != keys[0]:
            copy.assets[keys[0]] = copy.assets[own]
    return copy


def _rounded(area: Geometry) -> list[float]:
    """West, south, east, north as a recipe writes them: over the antimeridian west is larger than east."""
    _, south, _, north = area.boundingbox.bbox
    west, east = span([(part.bounds[0], part.bounds[2]) for part in parts([area.json])])
    return [round(edge, 3) for edge in (west, south, east - 360 if east > 180 else east, north)]
