"""A catalog in, one verdict per check out: can it be reached, are collections and assets there, are offsets sane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pystac

from mdico_cube.cube.access import Access
from mdico_cube.cube.catalog import CatalogFile, catalog_folder, load_catalog
from mdico_cube.cube.cells import CoarseStore
from mdico_cube.cube.pages import NoCollectionError, catalog_href, check_hrefs, first_items, landing_page
from mdico_cube.cube.place import item_crs, settle_crs
from mdico_cube.cube.read import check_assets
from mdico_cube.cube.search import adopt_keys
from mdico_cube.cube.weather import rules_of
from mdico_cube.errors import MdicoError, some
from mdico_cube.recipe import ReadSection, Source
from mdico_cube.sensors.offsets import doubt_rule
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.sensors.sensor import Sensor
from mdico_cube.sensors.weather import Weather


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What was checked, for example "sentinel2: assets"."""
    passed: bool
    detail: str
    """What was found, or the sentence that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules decide about one item before any pixel is read."""

    item: str
    radiometry: str = ""
    """Offset and why, for example "-0.1 (processing baseline 05.11)"."""
    crs: str = ""
    """CRS as used, "none declared", or "EPSG:32601, was EPSG:3271"."""
    doubt: str = ""
    """What the item's own processing has against that offset; empty where it agrees or does not say."""
    missing: tuple[str, ...] = ()
    """Asset keys that the catalog file names and the item lacks."""
    refused: str = ""
    """The sentence that refuses the item; empty where it is fine."""


def list_catalogs() -> tuple[CatalogFile, ...]:
    """The catalogs that come with the project, by name."""
    return tuple(load_catalog(path.stem) for path in sorted(catalog_folder().glob("*.yml"), key=lambda path: path.stem))


def judge_item(item: pystac.Item, source: Source, sensor: Sensor) -> Verdict:
    """What the rules decide about one item: product, assets, CRS, radiometry."""
    bands = sensor.reads or sensor.defaults
    item = adopt_keys(item, source, bands)
    keys = [source.keys(band)[0] for band in bands]
    keys += source.quality_keys[:1] if sensor.quality else ()
    missing = tuple(key for key in keys if key not in item.assets)
    try:
        if sensor.refuse is not None:
            sensor.refuse(source.collection, item.properties)
        if missing:
            return Verdict(item.id, missing=missing, refused=f"has no asset {', '.join(missing)}")
        check_assets([item], keys)
        first = keys[0]
        before, after = item_crs(item, first), settle_crs(item, first)
        crs = after or "none declared"
        rule = sensor.radiometry(item.id, item.properties, item.assets[first].extra_fields, source)
    except MdicoError as error:
        return Verdict(item.id, refused=str(error))
    doubt = doubt_rule(sensor.sentinel, item.properties, rule.offset) if sensor.sentinel else ""
    return Verdict(item.id, str(rule), crs if before == after else f"{crs}, was {before}", doubt)


def check_catalog(name: str, href: str | None = None, items: int = 3) -> list[Check]:
    """Look at a catalog as a build would, without reading a pixel: one check per line.

    Args:
        name: a catalog that comes with the project, or the path of a YAML file.
        href: where it is, if the file does not say.
        items: items of each collection to look at.

    Raises:
        MdicoError: no such catalog file, or no address.
    """
    catalog = load_catalog(name)
    if href is None and catalog.href is None:
        raise MdicoError(
            f"catalog {name!r} has no address of its own. Say where it is: `mdico catalogs check {name} --href "
            "PATH/catalog.json`, or the address of an API."
        )
    address = catalog_href(catalog, href)
    try:
        landing_page(address)
    except MdicoError as error:
        return [Check("reachable", False, str(error))]
    checks = [Check("reachable", True, address)]
    every = [*catalog.modalities.items(), *((name, one) for name, others in catalog.also.items() for one in others)]
    for modality, source in every:
        name = modality if source is catalog.modalities.get(modality) else f"{modality} from {source.collection}"
        try:
            found = list(islice(_of_source(first_items(catalog, address, source.collection), source), items))
            sensor = get_sensor(modality)
            if not found:
                checks.append(Check(f"{name}: collection", False, f"{source.collection} is there but holds no item"))
            elif isinstance(sensor, Weather):
                checks += _check_weather(name, sensor, source, found, address, catalog.access)
            else:
                checks += _check_modality(name, sensor, source, found, address, catalog.href is None)
        except NoCollectionError as error:
            fine = catalog.href is None  # the file describes what may stand in a catalog, not what does
            checks.append(
                Check(f"{name}: collection", fine, f"{source.collection} is not here" if fine else str(error))
            )
        except MdicoError as error:
            checks.append(Check(f"{name}: collection", False, str(error)))
    if not any(check.name.endswith((": assets", ": stores")) for check in checks):
        checks.append(Check("collections", False, f"none of {', '.join(one.collection for _, one in every)} is here"))
    return checks


def _of_source(items: Iterable[pystac.Item], source: Source) -> Iterator[pystac.Item]:
    """The items that a source names, where it names some."""
    ids = source.zarr.items if source.zarr is not None else ()
    return (item for item in items if not ids or item.id in ids)


def _check_weather(
    name: str, sensor: Weather, source: Source, items: Sequence[pystac.Item], href: str, access: Access
) -> list[Check]:
    """Collection, addresses, and whether each store opens, has the variables that are named, in units that fit."""
    faults, found = _strange(items, href), []
    try:
        rules = rules_of(source, name)
        for item in [] if faults else items:
            for band, variable in rules.variables.items():
                key = variable.asset or rules.asset
                if key in item.assets or key == rules.asset:
                    store = CoarseStore(item, key, rules, access, ReadSection(retries=1))
                    store.check(variable, sensor.unit(band))
                    found.append(f"{band} to {store.times[-1].date()}")
    except MdicoError as error:
        faults = faults or str(error)
    return [
        Check(f"{name}: collection", True, f"{source.collection}, {some(len(items), 'item')} looked at"),
        Check(f"{name}: stores", not faults, faults or _counted(found)),
    ]


def _strange(items: Sequence[pystac.Item], href: str) -> str:
    """What is wrong with the items' addresses; empty where nothing is."""
    try:
        for item in items:
            check_hrefs(item, href)
    except MdicoError as error:
        return str(error)
    return ""


def _check_modality(
    modality: str, sensor: Sensor, source: Source, items: Sequence[pystac.Item], href: str, template: bool
) -> list[Check]:
    """Collection, assets, addresses, rules, offsets, CRS. A template describes what may stand in a catalog."""
    verdicts = [judge_item(item, source, sensor) for item in items]
    lacking = [f"{verdict.item} lacks {', '.join(verdict.missing)}" for verdict in verdicts if verdict.missing]
    complete = not lacking or (sensor.scarce and (template or len(lacking) < len(items)))
    told = "; ".join(lacking) or "every asset is there"
    if lacking and complete:
        keys = ", ".join(sorted({key for verdict in verdicts for key in verdict.missing}))
        told = f"{len(lacking)} of {len(items)} items lack {keys}; such scenes are left out"
    doubts = [f"{verdict.item}: {verdict.doubt}" for verdict in verdicts if verdict.doubt]
    refused = [verdict.refused for verdict in verdicts if verdict.refused and not verdict.missing]
    strange = _strange(items, href)
    rules = _counted([verdict.radiometry for verdict in verdicts if verdict.radiometry])
    fine = "as the items' processing has it"
    return [
        Check(f"{modality}: collection", True, f"{source.collection}, {some(len(items), 'item')} looked at"),
        Check(f"{modality}: assets", complete, told),
        Check(f"{modality}: addresses", not strange, strange or "plain files"),
        Check(f"{modality}: rules", not refused, "; ".join(refused) or rules or "not looked at"),
        Check(f"{modality}: offsets", not doubts, "; ".join(doubts) or (fine if rules else "not looked at")),
        Check(f"{modality}: CRS", not refused, _counted([v.crs for v in verdicts if v.crs]) or "not looked at"),
    ]


def _counted(texts: Sequence[str]) -> str:
    return "; ".join(f"{count} x {text}" for text, count in sorted(Counter(texts).items()) if text)
