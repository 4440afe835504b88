"""A catalog, an area and a period in, STAC items out: one way for static catalogs and for APIs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pystac
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pystac_client import Client
from pystac_client.exceptions import APIError

from mdico_cube.cube.address import hush, is_plain, is_remote, plain, shown
from mdico_cube.cube.catalog import CatalogFile
from mdico_cube.cube.duplicates import item_time
from mdico_cube.cube.globe import outline, touches
from mdico_cube.cube.items import Answer, question
from mdico_cube.cube.links import read_item
from mdico_cube.cube.patient_io import PatientIO, StaticIO, too_slow
from mdico_cube.cube.query import asked_of, matches
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ReadSection, Source
from mdico_cube.spec import Period

# pystac tells of every old field it could not bring up to date; none of them is read here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pystac\..*")
hush("pystac.stac_io", "pystac_client", "urllib3")


PATIENT = ReadSection()
"""How long to go on where the recipe does not say."""
Span = tuple[datetime, datetime]
"""Of UTC time, both ends included."""
_SHORTEST = timedelta(hours=12)
"""No span of time is searched in shorter pieces."""


class UnreachableError(MdicoError):
    """The catalog did not answer, or only with errors, however often it was asked."""


class _SlowError(UnreachableError):
    """The catalog took too long for an answer."""


class NoCollectionError(MdicoError):
    """The catalog can be read but lacks a collection."""


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
            f"{_hint(href, _is_api(catalog, href, reading), source, reading)}"
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
    is_api = _is_api(catalog, href, reading)
    found = (_search_api if is_api else _search_static)(href, source, area, spans, reading)
    items = list({item.id: item for item in found if matches(item, source.query)}.values())
    for item in items:
        item.make_asset_hrefs_absolute()
        check_hrefs(item, href)
    return sorted(items, key=lambda item: (item_time(item), item.id))


def recall(
    saved: Answer, href: str | None, source: Source, geobox: GeoBox, period: Period | None
) -> tuple[Answer, dict[str, str]]:
    """Saved items as the answer to this search, and item id -> why it would not have found one, for these.

    Raises:
        MdicoError: an asset's address is of a kind that is never read.
    """
    area, strange = outline(geobox), {}
    for item in saved.items:
        check_hrefs(item, saved.catalog)
        if item.geometry is None or not touches(item.geometry, area):
            strange[item.id] = "outside the area"
        elif not matches(item, source.query):
            strange[item.id] = "not what the query wants"
    asked = question(href or saved.catalog, source.collection, source.query, area.json, _spans(geobox, period))
    return replace(saved, search=asked), strange


def recall_stores(saved: Answer) -> Answer:
    """Saved items of stores, once their addresses are checked.

    Raises:
        MdicoError: an asset's address is of a kind that is never read.
    """
    for item in saved.items:
        check_hrefs(item, saved.catalog)
    return saved


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
    if _is_api(catalog, href, reading):
        where: dict[str, Any] = {"ids": list(ids)} if ids else {"datetime": span}
        found: Iterable[pystac.Item] = _search(href, source.collection, source.query, reading, **where)
    else:
        found = _items(href, source, reading)
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
            f"{_hint(href, _is_api(catalog, href, reading), source, reading)}"
        )
    for item in inside:
        item.make_asset_hrefs_absolute()
        check_hrefs(item, href)
    return Answer(shown(href), asked, tuple(sorted(inside, key=lambda item: (item_time(item), item.id))))


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


def first_items(
    catalog: CatalogFile, href: str, collection: str, reading: ReadSection = PATIENT
) -> Iterator[pystac.Item]:
    """Some items of a collection, in the catalog's own order, with absolute addresses.

    Raises:
        MdicoError: the catalog cannot be reached or lacks the collection.
    """
    if _is_api(catalog, href, reading):
        found: Iterable[pystac.Item] = _search(href, collection, {}, reading, limit=20)
    else:
        found = _items(href, Source(collection=collection), reading)
    try:
        for item in found:
            item.make_asset_hrefs_absolute()
            yield item
    except (APIError, OSError) as error:
        raise MdicoError(f"catalog {shown(href)}: {collection} cannot be read ({plain(error)}).") from error


def _is_api(catalog: CatalogFile, href: str, reading: ReadSection) -> bool:
    landing = landing_page(href, reading)
    return catalog.kind == "api" or (catalog.kind == "auto" and "conformsTo" in landing)


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


def landing_page(href: str, reading: ReadSection = PATIENT) -> dict[str, Any]:
    """The catalog's own description.

    Raises:
        MdicoError: it cannot be read or is no STAC.
    """
    where = shown(href)
    try:
        page = json.loads(PatientIO(href, reading).read_text(href))
    except json.JSONDecodeError as error:
        raise MdicoError(
            f"catalog {shown(href)}: is not JSON ({error.msg}). Give a STAC catalog.json or API."
        ) from error
    except UnicodeDecodeError as error:
        raise MdicoError(f"catalog {shown(href)}: is not a text file. Give a STAC catalog.json or API.") from error
    except Exception as error:  # every transport has its own: each means the same to the user
        raise UnreachableError(
            f"catalog {shown(href)}: cannot be read ({plain(error)}). Check the address and the network."
        ) from error
    if not isinstance(page, dict) or page.get("type") not in ("Catalog", "Collection") or "stac_version" not in page:
        kind = page.get("type", "no type") if isinstance(page, dict) else type(page).__name__
        raise MdicoError(
            f"catalog {where}: is JSON but no STAC catalog (it says {kind!r}). Give a STAC catalog.json or API."
        )
    return page


def _search_static(
    href: str, source: Source, area: Geometry, spans: list[Span] | None, reading: ReadSection
) -> list[pystac.Item]:
    found: list[pystac.Item] = []
    for item in _items(href, source, reading):
        inside = spans is None or any(start <= item_time(item) <= stop for start, stop in spans)
        if inside and item.geometry is not None and touches(item.geometry, area):
            found.append(item)
    return found


def _items(href: str, source: Source, reading: ReadSection) -> Iterator[pystac.Item]:
    items = _collection(href, source, reading).get_items(recursive=True)
    while True:
        try:
            item = next(items, None)
        except MdicoError:
            raise
        except Exception as error:  # pystac passes on whatever its reader met
            raise _broken_link(href, error) from error
        if item is None:
            return
        yield item


def _broken_link(href: str, error: Exception) -> MdicoError:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, MdicoError):
        return cause
    return UnreachableError(f"catalog {shown(href)}: a linked file cannot be read ({plain(error)}).")


def _collection(href: str, source: Source, reading: ReadSection = PATIENT) -> pystac.Catalog:
    try:
        pages = StaticIO(href, reading)
        root = pages.read_stac_object(href)
        assert isinstance(root, pystac.Catalog)
        root._stac_io = pages
        if root.id == source.collection:
            return root
        children = {child.id: child for child in root.get_children()}
    except MdicoError:
        raise
    except Exception as error:  # pystac passes on whatever its reader met
        raise _broken_link(href, error) from error
    if source.collection not in children:
        raise NoCollectionError(
            f"catalog {shown(href)} has no collection {source.collection!r}: it has {', '.join(sorted(children))}. "
            f"Set the modality's source.collection.{did_you_mean(source.collection, children)}"
        )
    return children[source.collection]


def _search_api(
    href: str, source: Source, area: Geometry, spans: list[Span] | None, reading: ReadSection
) -> list[pystac.Item]:
    def ask(span: Span | None, hasty: bool) -> Iterator[pystac.Item]:
        where = {"intersects": area.json, "datetime": span}
        return _search(href, source.collection, source.query, reading, hasty, **where)

    return [item for span in (spans or (None,)) for item in _in_pieces(ask, span)]


def _in_pieces(ask: Callable[[Span | None, bool], Iterator[pystac.Item]], span: Span | None) -> list[pystac.Item]:
    """A search's answer; where the API takes too long for it, the answers for both halves of its time."""
    half = (span[1] - span[0]) / 2 if span else timedelta(0)
    if span is None or half < _SHORTEST:
        return list(ask(span, False))
    try:
        return list(ask(span, True))
    except _SlowError:
        middle = span[0] + half
        return [*_in_pieces(ask, (span[0], middle)), *_in_pieces(ask, (middle, span[1]))]


def _search(
    href: str, collection: str, query: Mapping[str, Any], reading: ReadSection, hasty: bool = False, **where: Any
) -> Iterator[pystac.Item]:
    """Items of an API, which filters by the query where it says that it can."""
    try:
        client = Client.open(href, stac_io=PatientIO(href, reading, hasty), timeout=reading.timeout)
        known = {one.id for one in client.get_collections()}
        if collection not in known:
            raise NoCollectionError(
                f"catalog {shown(href)} has no collection {collection!r}: it has {', '.join(sorted(known))}. "
                f"Set the modality's source.collection.{did_you_mean(collection, known)}"
            )
        found = client.search(collections=[collection], **where, **asked_of(client, query))
        yield from map(read_item, found.items_as_dicts())
    except APIError as error:
        kind = _SlowError if too_slow(error) else UnreachableError
        raise kind(f"catalog {shown(href)}: the search failed ({plain(error)}). Try again later.") from error


def adopt_keys(item: pystac.Item, source: Source, bands: Sequence[str]) -> pystac.Item:
    """A copy of an item whose assets stand under the usual keys, where missions name them differently."""
    copy = item.clone()
    for keys in (*(source.keys(band) for band in bands), source.quality_keys):
        own = next((key for key in keys if key in copy.assets), None)
        if own is not None and own != keys[0]:
            copy.assets[keys[0]] = copy.assets[own]
    return copy


def check_hrefs(item: pystac.Item, href: str) -> None:
    """A remote catalog must not make us read this machine's files, nor open one dressed up as another.

    Raises:
        MdicoError: an asset's address is of a kind that is never read.
    """
    for key, asset in item.assets.items():
        if not is_plain(asset.href, remote=is_remote(href)):
            raise MdicoError(
                f"{item.collection_id}: item {item.id}, asset {key} points to {shown(asset.href)}, which a remote "
                "catalog may not ask for. Only http(s), s3, gs and az addresses of plain files are read."
            )


def _hint(href: str, is_api: bool, source: Source, reading: ReadSection) -> str:
    if is_api:
        return "Check area and period."
    extent = getattr(_collection(href, source, reading), "extent", None)
    if extent is None:
        return "Check area and period."
    (start, end), box = extent.temporal.intervals[0], [round(edge, 3) for edge in extent.spatial.bboxes[0]]
    dates = " to ".join(str(edge.date()) if edge else "open" for edge in (start, end))
    return f"The collection covers {box} from {dates}."


def _rounded(area: Geometry) -> list[float]:
    return [round(edge, 3) for edge in area.boundingbox.bbox]


def catalog_href(catalog: CatalogFile, href: str | None) -> str:
    """Where the catalog is: the recipe's address, else the catalog file's own.

    Raises:
        MdicoError: neither says it, or the local file does not exist.
    """
    address = href or catalog.href
    if address is None:
        raise MdicoError(f"catalog {catalog.name!r} has no address of its own: set `href` in the recipe.")
    if "://" not in address and not Path(address).is_file():
        raise MdicoError(f"catalog {address}: no such file. Set `href` to a catalog.json or an API's address.")
    return address
