"""A DemoRegion in, a folder out: simulated scenes as a STAC catalog, labels, and region.json that says what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mdico_cube.demo.catalog import Collection, Json, Scene, write_catalog, write_collection, write_json, write_scene
from mdico_cube.demo.labels import write_labels
from mdico_cube.demo.landscape import CLASSES, CRS
from mdico_cube.demo.scenes import landsat, sentinel1, sentinel2, terrain, weather
from mdico_cube.demo.world import World, build_world
from mdico_cube.errors import MdicoError
from mdico_cube.progress import track

VERSION = 1
"""Changes when the same DemoRegion gives other pixels than before."""
COLLECTIONS: tuple[Collection, ...] = (
    sentinel2.COLLECTION,
    sentinel1.COLLECTION,
    landsat.COLLECTION,
    weather.COLLECTION,
    terrain.COLLECTION,
)


@dataclass(frozen=True, slots=True)
class DemoRegion:
    """What is simulated. The same values give the same pixels."""

    seed: int = 0
    size: int = 512
    """Region side in pixels of 10 m; an even number from 48 to 2048."""
    year: int = 2021
    label_noise: float = 0.0
    """Share of parcels whose crop in the label file is wrong; the truth raster stays right."""
    s2_days: int = 5
    """Days between two Sentinel-2 dates."""
    s1_days: int = 12
    """Days between two Sentinel-1 passes of the same orbit direction."""
    landsat_days: int = 8
    """Days between two Landsat dates."""
    collections: tuple[str, ...] = tuple(collection.id for collection in COLLECTIONS)
    """Collections to write; fewer are written faster."""


def write_region(folder: Path, region: DemoRegion = DemoRegion()) -> Path:
    """Simulate a region and write it; a folder that already holds the same region is left as it is.

    Args:
        folder: made if it is not there; catalog.json is written last, so a catalog is never half there.
        region: what to simulate.

    Returns:
        Path of catalog.json.

    Raises:
        MdicoError: a value outside its range, a folder with another region, or a folder that cannot be written.
    """
    _check(region)
    folder = Path(folder)
    if _already_there(folder, region):
        return folder / "catalog.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder, region)
    except OSError as error:
        raise MdicoError(f"{folder}: the embedded region cannot be written ({error}). Give another folder.") from error


def _write(folder: Path, region: DemoRegion) -> Path:
    world = build_world(region.seed, region.size, region.year)
    chosen = [collection for collection in COLLECTIONS if collection.id in region.collections]
    jobs = [(collection, job) for collection in chosen for job in _jobs(world, region, collection)]

    def run(number: int) -> tuple[str, Json]:
        collection, job = jobs[number]
        return collection.id, write_scene(folder, collection, job())

    items: dict[str, list[Json]] = {collection.id: [] for collection in chosen}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for name, item in track(pool.map(run, range(len(jobs))), "embedded region", len(jobs)):
            items[name].append(item)
    for collection in chosen:
        write_collection(folder, collection, items[collection.id])
    write_labels(folder / "labels", world.landscape, region.seed, region.label_noise)
    write_json(folder / "region.json", _card(world, region))
    return write_catalog(folder, chosen)


def _jobs(world: World, region: DemoRegion, collection: Collection) -> list[Callable[[], Scene]]:
    makers: dict[str, Callable[[], list[Callable[[], Scene]]]] = {
        sentinel2.COLLECTION.id: lambda: sentinel2.scenes(world, region.s2_days),
        sentinel1.COLLECTION.id: lambda: sentinel1.scenes(world, region.s1_days),
        landsat.COLLECTION.id: lambda: landsat.scenes(world, region.landsat_days),
        weather.COLLECTION.id: lambda: weather.scenes(world),
        terrain.COLLECTION.id: lambda: terrain.scenes(world),
    }
    return makers[collection.id]()


def _card(world: World, region: DemoRegion) -> Json:
    """What region.json says."""
    frame = world.landscape.frame
    return {
        **_request(region),
        "epsg": int(CRS.removeprefix("EPSG:")),
        "crs": CRS,
        "bounds": list(frame.bounds),
        "resolution": 10.0,
        "period": {"start": f"{region.year}-01-01", "end": f"{region.year}-12-31"},
        "classes": [{"name": c.name, "value": c.value, "color": c.color} for c in CLASSES],
        "labels": {"parcels": "labels/parcels.gpkg", "truth": "labels/truth.tif"},
    }


def _request(region: DemoRegion) -> Json:
    return {"version": VERSION, **asdict(region), "collections": sorted(region.collections)}


def _already_there(folder: Path, region: DemoRegion) -> bool:
    if not (folder / "catalog.json").exists():
        return False
    try:
        card = json.loads((folder / "region.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = {}
    if all(card.get(key) == value for key, value in _request(region).items()):
        return True
    raise MdicoError(f"{folder}: holds another catalog. Give an empty folder, or delete this one first.")


def _check(region: DemoRegion) -> None:
    known = [collection.id for collection in COLLECTIONS]
    unknown = [name for name in region.collections if name not in known]
    rules = {
        f"size must be an even number from 48 to 2048, came {region.size}": region.size % 2 == 0
        and 48 <= region.size <= 2048,
        f"seed must be 0 or more, came {region.seed}": region.seed >= 0,
        f"year must lie between 1980 and 2100, came {region.year}": 1980 <= region.year <= 2100,
        f"label_noise must lie between 0 and 1, came {region.label_noise}": 0 <= region.label_noise <= 1,
        "days between two dates must be 1 or more": min(region.s2_days, region.s1_days, region.landsat_days) >= 1,
        f"unknown collection {', '.join(unknown)}, known are {', '.join(known)}": not unknown,
        "name at least one collection": bool(region.collections),
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise MdicoError(f"embedded region: {'; '.join(broken)}.")
