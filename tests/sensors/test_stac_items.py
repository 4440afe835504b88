"""Every real STAC item beside the project goes through the rules; what they decide is kept in stac_items.txt."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import pystac
import pytest

from mdico_cube.cube.catalog import load_catalog
from mdico_cube.cube.check import judge_item
from mdico_cube.cube.duplicates import newest
from mdico_cube.recipe import Source
from mdico_cube.sensors.registry import get_sensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "stac-items"
GOLDEN = Path(__file__).with_name("stac_items.txt")
pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Could not parse bucket:UserWarning"),  # pystac, when it migrates an item
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real items are not at {DATA}"),
]

_OLD_LANDSAT = {
    "blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir08": "SR_B5", "swir16": "SR_B6", "swir22": "SR_B7",
}  # fmt: skip
OTHERS = {
    ("eopf", "sentinel-2-l2a"): ("cdse", "sentinel2", {}),
    ("earth-search-v1", "sentinel-2-c1-l2a"): ("earth-search-c1", "sentinel2", {}),
    ("planetary-computer", "landsat-8-c2-l2"): (
        "planetary-computer",
        "landsat",
        {"assets": _OLD_LANDSAT, "quality": "QA_PIXEL"},
    ),
    ("planetary-computer", "nasadem"): (
        "planetary-computer",
        "dem",
        {"assets": {"elevation": "elevation"}, "nodata": None},
    ),
    ("stactools", "sentinel1-rtc-aws"): (
        "local",
        "sentinel1",
        {"assets": {"vv": "gamma0_vv", "vh": "gamma0_vh"}, "nodata": 0},
    ),
}
"""Folder and collection -> catalog, modality and what a recipe's source section would say on top."""
FOLDERS = {"earth-search-v1": "earth-search", "stactools": "earth-search"}
WORDS = {
    "sentinel-2": "sentinel2",
    "sentinel2": "sentinel2",
    "sentinel": "sentinel1",
    "landsat": "landsat",
    "dem": "dem",
}


def source_of(folder: str, collection: str) -> tuple[str, Source] | None:
    """Modality and source for a folder of items; None for what no sensor reads yet."""
    name, modality, changes = OTHERS.get(
        (folder, collection),
        (FOLDERS.get(folder, folder), next((m for word, m in WORDS.items() if word in collection), ""), {}),
    )
    if not modality:
        return None
    base = load_catalog(name).modalities.get(modality) or Source(collection=collection)
    return modality, base.model_copy(update={"collection": collection, **changes})


def table() -> str:
    groups: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    with (DATA / "index.csv").open() as file:
        for row in csv.DictReader(file):
            if row["kind"] == "Feature":
                folder, collection, _ = row["file"].split("/")
                groups[folder, collection].append(pystac.Item.from_dict(json.loads((DATA / row["file"]).read_text())))
    return "\n".join(line for key, items in sorted(groups.items()) for line in lines(*key, items)) + "\n"


def lines(folder: str, collection: str, items: list[pystac.Item]) -> list[str]:
    found = source_of(folder, collection)
    title = f"{folder} / {collection}"
    if found is None:
        return [f"{title}: {len(items)} items, no sensor reads them", ""]
    modality, source = found
    decided: Counter[str] = Counter()
    for item in items:
        verdict = judge_item(item, source, get_sensor(modality))
        if verdict.refused:
            decided[f"refused: {verdict.refused.replace(item.id, '<id>')}"] += 1
        else:
            crs = verdict.crs if "was" in verdict.crs or ":" not in verdict.crs else "declared"
            decided[f"offset {verdict.radiometry}, CRS {crs}"] += 1
    kept = newest(items)[0]
    distinct = len({item.id for item in items})
    heading = f"{title} as {modality}: {len(items)} items, {distinct} ids, {len({i.id for i in kept})} acquisitions"
    return [heading, *(f"{count:5d}  {text}" for text, count in sorted(decided.items())), ""]


def test_what_the_rules_decide_about_every_real_item() -> None:
    assert table() == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(table())
