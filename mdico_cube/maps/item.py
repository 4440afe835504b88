"""A written map in, its STAC item beside the GeoTIFF out; the maps of a run in, one STAC collection over them out."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import zarr

from mdico_cube.colearn.joint import is_joint, load_joint
from mdico_cube.colearn.mlm import stac_class
from mdico_cube.cube.change import writing
from mdico_cube.cube.items import ITEMS, read_items, uses
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import EXTRAS, beside_cog, read_legend, sensor_entries
from mdico_cube.maps.mapstore import task_of
from mdico_cube.maps.outputs import MAIN, NODATA
from mdico_cube.maps.polygons import VECTORS
from mdico_cube.maps.precision import CHANGES
from mdico_cube.maps.write import find_maps, read_map

STAC = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
COLLECTION = "collection.json"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_ZARR = "application/vnd.zarr; version=3"
_JSON, _GEOJSON = "application/json", "application/geo+json"
_PARQUET = "application/vnd.apache.parquet"


def write_item(source: Path, cube: Location, bundle: Path | Sequence[Path]) -> Path:
    """Write the STAC item of one map as `<stem>.json` beside `<stem>.tif`, whole or not at all.

    It names the grid, the season, the classes with their colours (the labels' bits, the value's scale), and links to
    the cube, to the items the cube was built from and to the item of every model.
    Every address in it is relative, so a run's folder can move, but for a cube that lies elsewhere.

    Args:
        source: folder of a complete Zarr map whose GeoTIFFs stand beside it.
        cube: where the cube it was made from lies.
        bundle: folder of the bundle it was made with, or of several.

    Returns:
        The item's path.

    Raises:
        MdicoError: the map is incomplete or the folder cannot be written.
    """
    source = Path(source)
    target, group = source.with_suffix(".json"), read_map(source)
    facts: dict[str, Any] = dict(group.attrs)
    reader = open_reader(cube)
    west, south, east, north = degrees_box(reader)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    classes = [stac_class(item) for item in read_legend(group)]
    item = {
        "type": "Feature",
        "stac_version": STAC,
        "stac_extensions": [*EXTENSIONS, *([RASTER] if "step" in facts else [])],
        "id": source.stem,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {**_when(reader, facts["modalities"], source), **_properties(facts), **_projection(reader)},
        "links": [*_links(target, reader.path, models_of(bundle)), *_item_links(reader, facts["modalities"], target)],
        "assets": _assets(source, group, classes),
        "collection": "maps",
    }
    return _write(item, target)


def write_collection(out: Path, name: str) -> Path | None:
    """Write `maps/collection.json` over the items of every map of a run; None where no map has an item.

    Args:
        out: folder of the run.
        name: of the run.

    Raises:
        MdicoError: the folder cannot be written.
    """
    paths = [path.with_suffix(".json") for path in find_maps(out) if path.with_suffix(".json").exists()]
    if not paths:
        return None
    target = Path(out) / "maps" / COLLECTION
    items = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    titles = [item["properties"]["title"] for item in items]
    links = [_link("item", path, target, _GEOJSON, title) for path, title in zip(paths, titles, strict=True)]
    collection = {
        "type": "Collection",
        "stac_version": STAC,
        "stac_extensions": [],
        "id": "maps",
        "title": f"{name}: maps",
        "description": "Maps of one region; each says which sensor it was made with.",
        "license": "other",
        "extent": _extent(items),
        "summaries": {
            key: sorted({item["properties"][key] for item in items}) for key in ("mdico:method", "mdico:modality")
        },
        "links": [{"rel": "root", "href": f"./{COLLECTION}", "type": _JSON}, *links],
    }
    return _write(collection, target)


def degrees_box(reader: CubeReader) -> tuple[float, float, float, float]:
    """West, south, east, north of a cube in degrees."""
    left, bottom, right, top = reader.geobox.extent.to_crs("EPSG:4326", resolution=1000).boundingbox.bbox
    return left, bottom, right, top


def _when(reader: CubeReader, modalities: Sequence[str], source: Path) -> dict[str, Any]:
    """The days the sensors' steps begin on; one without time takes those of the cube, else the map's own day."""
    steps = [step for name in (*modalities, *reader.modalities) for step in reader.steps(name) if step]
    if not steps:
        written = datetime.fromtimestamp(source.stat().st_mtime, UTC)
        return {"datetime": written.strftime("%Y-%m-%dT%H:%M:%SZ")}
    own = [step for name in modalities for step in reader.steps(name) if step] or steps
    return {
        "datetime": None,
        "start_datetime": f"{min(own)}T00:00:00Z",
        "end_datetime": f"{max(own)}T00:00:00Z",
    }


def _properties(facts: dict[str, Any]) -> dict[str, Any]:
    names = ("method", "modality", "seed", "protocol", "precision", "backend", "device", "bundle_digest", "cube_digest")
    losses = [name for name in facts if name.partition("_")[2] in CHANGES.values()]
    return {"title": facts["title"], **{f"mdico:{name}": facts[name] for name in (*names, *losses) if name in facts}}


def _projection(reader: CubeReader) -> dict[str, Any]:
    crs = reader.geobox.crs
    code = f"EPSG:{crs.epsg}" if crs is not None and crs.epsg else None
    return {
        "proj:code": code,
        **({"proj:wkt2": str(reader.attrs["proj:wkt2"])} if code is None else {}),
        "proj:shape": list(reader.shape),
        "proj:transform": list(reader.geobox.affine)[:6],
        "proj:bbox": list(reader.geobox.boundingbox.bbox),
    }


def models_of(bundle: Path | Sequence[Path]) -> list[Path]:
    """Folders of the single sensors' bundles that a map rests on: of one that fuses them, those beside it."""
    folders = [Path(bundle)] if isinstance(bundle, str | Path) else [Path(one) for one in bundle]
    if len(folders) == 1 and is_joint(folders[0]):
        return [folders[0].with_name(name) for name in load_joint(folders[0]).config.members]
    return folders


def _item_links(reader: CubeReader, modalities: Sequence[str], target: Path) -> list[dict[str, Any]]:
    """The items that were read, by their address in a STAC API; and the file of them all, where it lies beside."""
    try:
        answers, left_out = read_items(reader.path), uses(reader.path)
    except MdicoError:
        return []  # a cube that keeps no items
    found = dict.fromkeys(
        f"{answers[name].catalog.rstrip('/')}/collections/{item.collection_id}/items/{item.id}"
        for name in modalities
        if name in answers and _is_api(answers[name].catalog)
        for item in answers[name].items
        if item.id not in left_out.get(name, {})
    )
    links = [{"rel": "derived_from", "href": href, "type": _GEOJSON, "title": href.rsplit("/", 1)[1]} for href in found]
    beside = reader.path.with_name(ITEMS) if isinstance(reader.path, Path) else None
    if beside is not None and beside.is_file():
        links.append(_link("derived_from", beside, target, _PARQUET, "The items of the cube, as stac-geoparquet"))
    return links


def _is_api(catalog: str) -> bool:
    """A catalog of files has no address of its own for an item's id."""
    return catalog.startswith(("http://", "https://")) and not catalog.endswith(".json")


def _links(target: Path, cube: Location, bundles: Sequence[Path]) -> list[dict[str, Any]]:
    return [
        {"rel": "root", "href": f"./{COLLECTION}", "type": _JSON},
        {"rel": "parent", "href": f"./{COLLECTION}", "type": _JSON},
        {"rel": "collection", "href": f"./{COLLECTION}", "type": _JSON},
        _link("derived_from", cube, target, _ZARR, "The cube"),
        *(_link("derived_from", bundle / "item.json", target, _GEOJSON, "The model") for bundle in bundles),
    ]


def _link(rel: str, path: Location, target: Path, kind: str, title: str) -> dict[str, Any]:
    return {"rel": rel, "href": _relative(path, target), "type": kind, "title": title}


def _relative(path: Location, target: Path) -> str:
    if isinstance(path, str):
        return path.removeprefix("icechunk+")
    found = Path(os.path.relpath(Path(path).resolve(), target.resolve().parent)).as_posix()
    return found if found.startswith("../") else f"./{found}"


def _assets(source: Path, group: zarr.Group, classes: list[dict[str, Any]]) -> dict[str, Any]:
    byte = {"data_type": "uint8", "nodata": NODATA}
    found: dict[str, Any] = {MAIN[task_of(group)]: _answer(source, group, classes)}
    for name in (name for name in EXTRAS if name in group):
        attrs = dict(group[name].attrs)
        asset = {
            "href": f"./{beside_cog(source, name).name}",
            "type": _COG,
            "title": _sentence(attrs),
            "roles": ["data"],
        }
        unit = {"unit": "%"} if attrs["units"] == "percent" else {}
        own = {"classification:classes": [stac_class(one) for one in sensor_entries(attrs)]} if name == "sensor" else {}
        bits = {"classification:bitfields": bitfields(attrs)} if name == "abstain" else {}
        found[name] = {**asset, **byte, **unit, **own, **bits}
    found["zarr"] = {"href": f"./{source.name}", "type": _ZARR, "title": "The map as Zarr", "roles": ["data"]}
    for kind, media in VECTORS.items():
        href = f"./{source.stem}{kind}"
        found[kind[1:]] = {"href": href, "type": media, "title": "The classes as polygons", "roles": ["data"]}
    return {key: asset for key, asset in found.items() if (source.parent / asset["href"]).exists()}


def _answer(source: Path, group: zarr.Group, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """The asset of what the map tells."""
    task, array = task_of(group), cast(Any, group[MAIN[task_of(group)]])
    whole = array.dtype.kind != "f"
    asset: dict[str, Any] = {
        "href": f"./{source.stem}.tif",
        "type": _COG,
        "title": {"classes": "Classes", "multilabel": "Labels, one bit each"}.get(task, _sentence(dict(array.attrs))),
        "roles": ["data"],
        "data_type": array.dtype.name,
        "nodata": int(array.fill_value) if whole else "nan",
    }
    if task == "regression":
        facts = dict(array.attrs)
        scale = {"raster:scale": facts["scale_factor"], "raster:offset": 0.0} if whole else {}
        return {**asset, **scale, **({"unit": facts["units"]} if "units" in facts else {})}
    if task == "multilabel":
        return {**asset, "classification:bitfields": bitfields(dict(array.attrs))}
    return {**asset, "classification:classes": classes}


def _sentence(attrs: dict[str, Any]) -> str:
    name = str(attrs["long_name"])
    return name[0].upper() + name[1:]


def bitfields(attrs: dict[str, Any]) -> list[dict[str, Any]]:
    """Bits of a layer, as the classification extension writes them."""
    names = str(attrs["flag_meanings"]).split(" ")
    classes = [[{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}]] * len(names)
    return [
        {"offset": bit, "length": 1, "name": name, "description": name.replace("_", " "), "classes": values}
        for bit, (name, values) in enumerate(zip(names, classes, strict=True))
    ]


def _extent(items: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = list(zip(*(item["bbox"] for item in items), strict=True))
    dates = [
        item["properties"].get(key) or item["properties"]["datetime"]
        for item in items
        for key in ("start_datetime", "end_datetime")
    ]
    box = [*(min(values) for values in boxes[:2]), *(max(values) for values in boxes[2:])]
    return {"spatial": {"bbox": [box]}, "temporal": {"interval": [[min(dates), max(dates)]]}}


def _write(data: dict[str, Any], target: Path) -> Path:
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with writing(target):
        try:
            part.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target
