"""A catalog's address in; its own description and the items of one collection out, static or through an API."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError

from mdico_cube.cube.address import hush, is_plain, is_remote, shown
from mdico_cube.cube.catalog import CatalogFile
from mdico_cube.cube.links import read_item
from mdico_cube.cube.patient_io import PatientIO, StaticIO, is_text, told, too_slow
from mdico_cube.cube.query import asked_of
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ReadSection, Source

# pystac tells of every old field it could not bring up to date; none of them is read here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pystac\..*")
hush("pystac.stac_io", "pystac_client", "urllib3")

PATIENT = ReadSection()
"""How long to go on where the recipe does not say."""


class UnreachableError(MdicoError):
    """The catalog did not answer, or only with errors, however often it was asked."""


class SlowError(UnreachableError):
    """The catalog took too long for an answer."""


class NoCollectionError(MdicoError):
    """The catalog can be read but lacks a collection."""


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


def landing_page(href: str, reading: ReadSection = PATIENT) -> dict[str, Any]:
    """The catalog's own description.

    Raises:
        MdicoError: it cannot be read or is no STAC.
    """
    where = shown(href)
    try:
        page = json.loads(PatientIO(href, reading).read_text(href))
    except json.JSONDecodeError as error:
        raise MdicoError(f"catalog {where}: is not JSON ({error.msg}). Give a STAC catalog.json or API.") from error
    except UnicodeDecodeError as error:
        raise MdicoError(f"catalog {where}: is not a text file. Give a STAC catalog.json or API.") from error
    except Exception as error:  # every transport has its own: each means the same to the user
        if not is_text(error):
            raise MdicoError(f"catalog {where}: is not a text file. Give a STAC catalog.json or API.") from error
        raise UnreachableError(
            f"catalog {where}: cannot be read ({told(error)}). Check the address and the network."
        ) from error
    if not isinstance(page, dict) or page.get("type") not in ("Catalog", "Collection") or "stac_version" not in page:
        kind = page.get("type", "no type") if isinstance(page, dict) else type(page).__name__
        raise MdicoError(
            f"catalog {where}: is JSON but no STAC catalog (it says {kind!r}). Give a STAC catalog.json or API."
        )
    return page


def is_api(catalog: CatalogFile, href: str, reading: ReadSection) -> bool:
    """True where a catalog is searched, False where its links are followed."""
    landing = landing_page(href, reading)
    return catalog.kind == "api" or (catalog.kind == "auto" and "conformsTo" in landing)


def first_items(
    catalog: CatalogFile, href: str, collection: str, reading: ReadSection = PATIENT
) -> Iterator[pystac.Item]:
    """Some items of a collection, in the catalog's own order, with absolute addresses.

    Raises:
        MdicoError: the catalog cannot be reached or lacks the collection.
    """
    if is_api(catalog, href, reading):
        found: Iterable[pystac.Item] = api_items(href, collection, {}, reading, limit=20)
    else:
        found = static_items(href, Source(collection=collection), reading)
    try:
        for item in found:
            item.make_asset_hrefs_absolute()
            yield item
    except (APIError, OSError) as error:
        raise MdicoError(f"catalog {shown(href)}: {collection} cannot be read ({told(error)}).") from error


def static_items(href: str, source: Source, reading: ReadSection) -> Iterator[pystac.Item]:
    """Every item of a static collection.

    Raises:
        MdicoError: the catalog lacks the collection, or a linked file cannot be read.
    """
    items = static_collection(href, source, reading).get_items(recursive=True)
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
    why = told(error) if cause is None else f"{told(error).rstrip('.')}: {told(cause)}"
    return UnreachableError(f"catalog {shown(href)}: a linked file cannot be read ({why}).")


def static_collection(href: str, source: Source, reading: ReadSection = PATIENT) -> pystac.Catalog:
    """One collection of a static catalog.

    Raises:
        MdicoError: the catalog lacks it, or a linked file cannot be read.
    """
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


def api_items(
    href: str, collection: str, query: Mapping[str, Any], reading: ReadSection, hasty: bool = False, **where: Any
) -> Iterator[pystac.Item]:
    """Items of an API, which filters by the query where it says that it can.

    Raises:
        MdicoError: the API lacks the collection, or the search failed.
    """
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
        kind = SlowError if too_slow(error) else UnreachableError
        raise kind(f"catalog {shown(href)}: the search failed ({told(error)}). Try again later.") from error


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


def where_to_look(catalog: CatalogFile, href: str, source: Source, reading: ReadSection) -> str:
    """What to check when a search found nothing: what a static collection covers."""
    if is_api(catalog, href, reading):
        return "Check area and period."
    extent = getattr(static_collection(href, source, reading), "extent", None)
    if extent is None:
        return "Check area and period."
    (start, end), box = extent.temporal.intervals[0], [round(edge, 3) for edge in extent.spatial.bboxes[0]]
    dates = " to ".join(str(edge.date()) if edge else "open" for edge in (start, end))
    return f"The collection covers {box} from {dates}."
