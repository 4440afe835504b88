"""Every real STAC item beside the project goes through the rules; what they decide is kept in stac_items.txt."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path

import pystac
import pytest

from mdico_cube.cube.catalog import load_catalog
from mdico_cube.cube.check import judge_item
from mdico_cube.cube.duplicates import newest
from mdico_cube.cube.items import reasons
from mdico_cube.cube.links import read_item
from mdico_cube.recipe import Source
from mdico_cube.sensors.registry import get_sensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "stac-items"
GOLDEN = Path(__file__).with_name("stac_items.txt")
pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Could not parse bucket:UserWarning"),  # pystac, when it migrates an item
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real items are not at {DATA}"),
]

OTHERS = {
    ("eopf", "sentinel-2-l2a"): "cdse",
    ("earth-search-v1", "sentinel-2-c1-l2a"): "earth-search-c1",
    ("stactools", "sentinel1-rtc-aws"): "local",
}
"""Folder and collection -> the catalog file that describes it, where its folder does not name one."""
FOLDERS = {"earth-search-v1": "earth-search", "stactools": "earth-search"}
WORDS = {
    "sentinel-2": ("sentinel2",),
    "sentinel2": ("sentinel2",),
    "sentinel": ("sentinel1",),
    "landsat-c2l2-st": ("landsat_st",),
    "landsat-c2l2-sr": ("landsat",),
    "landsat": ("landsat", "landsat_st"),
    "dem": ("dem",),
}
"""Part of a collection's id -> the sensors that read it; the first that fits."""


def sources_of(folder: str, collection: str) -> list[tuple[str, Source]]:
    """Modalities and sources for a folder of items, as the catalog files have them; none for what no sensor reads."""
    catalog = load_catalog(OTHERS.get((folder, collection), FOLDERS.get(folder, folder)))
    found = []
    for modality in next((names for word, names in WORDS.items() if word in collection), ()):
        described = (*catalog.also.get(modality, ()), *filter(None, [catalog.modalities.get(modality)]))
        base = next((one for one in described if one.collection == collection), described[-1] if described else None)
        source = base or Source(collection=collection)
        found.append((modality, source.model_copy(update={"collection": collection})))
    return found


def table() -> str:
    groups: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    declared: dict[tuple[str, str], set[str]] = defaultdict(set)
    with (DATA / "index.csv").open() as file:
        for row in csv.DictReader(file):
            folder, collection, _ = row["file"].split("/")
            content = json.loads(plain((DATA / row["file"]).read_bytes()))
            if row["kind"] == "Collection":
                declared[folder, collection] |= set(content.get("item_assets", {}))
            found = content["features"] if row["kind"] == "FeatureCollection" else [content]
            if row["kind"] != "Collection":
                groups[folder, collection] += [read_item(item) for item in found]
    keys = sorted({*groups, *declared})
    return "\n".join(line for key in keys for line in lines(*key, groups[key], declared[key])) + "\n"


def plain(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def lines(folder: str, collection: str, items: list[pystac.Item], declared: set[str]) -> list[str]:
    title = f"{folder} / {collection}"
    found = sources_of(folder, collection)
    if not found:
        return [f"{title}: {len(items)} items, no sensor reads them", ""]
    return [line for modality, source in found for line in section(title, modality, source, items, declared)]


def section(title: str, modality: str, source: Source, items: list[pystac.Item], declared: set[str]) -> list[str]:
    decided: Counter[str] = Counter()
    sensor = get_sensor(modality)
    for item in items:
        verdict = judge_item(item, source, sensor)
        if verdict.refused:
            decided[f"refused: {verdict.refused.replace(item.id, '<id>')}"] += 1
        else:
            crs = verdict.crs if "was" in verdict.crs or ":" not in verdict.crs else "declared"
            doubt = f", DOUBT {verdict.doubt}" if verdict.doubt else ""
            decided[f"offset {verdict.radiometry}, CRS {crs}{doubt}"] += 1
    kept, gone = newest(items)
    distinct = len({item.id for item in items})
    heading = f"{title} as {modality}: {len(items)} items, {distinct} ids, {len({i.id for i in kept})} acquisitions"
    keys = [source.keys(band) for band in sensor.reads or sensor.defaults]
    bands = ", ".join("|".join(names) for names in keys)
    keys += [source.quality_keys] if source.quality_keys else []
    lacking = ["|".join(names) for names in keys if not declared & set(names)]
    known = f"lacks {', '.join(lacking)}" if lacking else "has them all"
    return [
        heading,
        f"       bands {bands}; mask {'|'.join(source.quality_keys) or 'none'}",
        *([f"       the collection {known}"] if declared else []),
        *(f"{count:5d}  {text}" for text, count in sorted(decided.items())),
        *(f"{count:5d}  left out: {reason}" for reason, count in sorted(reasons(gone).items())),
        "",
    ]


def test_what_the_rules_decide_about_every_real_item() -> None:
    assert table() == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(table())
