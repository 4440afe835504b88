"""What a search found, to a stac-geoparquet file and back: a cube can be built again from exactly the same items."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import rustac
import shapely

from mdico_cube.cube.address import is_remote, placed
from mdico_cube.cube.change import changing
from mdico_cube.cube.place import item_box
from mdico_cube.cube.target import Location, locate, open_group
from mdico_cube.errors import MdicoError
from mdico_cube.schema import LEDGER

ITEMS = "items.parquet"
"""File beside the cube."""
USED = "used"
_ITEM, _MODALITY, _USE, _CATALOG, _SEARCH = (f"mdico:{key}" for key in ("item", "modality", "use", "catalog", "search"))
_TYPES = (str, int, float, bool)
_COLUMNS = (_MODALITY, _USE, _CATALOG, _SEARCH, _ITEM)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a catalog answered when one modality was searched for."""

    catalog: str
    """Address of the catalog, without a query."""
    search: str
    """SHA-256 of what was asked: catalog, collection, query, area and period."""
    items: tuple[pystac.Item, ...]
    """As the catalog gave them, with absolute addresses; by time and id."""


@dataclass(frozen=True, slots=True)
class Change:
    """One item that is not as it was."""

    modality: str
    item: str
    kind: Literal["new", "changed", "gone"]


def question(catalog: str, collection: str, query: Mapping[str, Any], area: Any, span: Any) -> str:
    """SHA-256 of what is asked of a catalog."""
    facts = [catalog.split("?")[0], collection, query, area, span]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def plain_item(item: pystac.Item) -> dict[str, Any]:
    """An item as JSON data without links and without the query of any address, where signatures live."""
    facts: dict[str, Any] = without_queries(item.to_dict(include_self_link=False, transform_hrefs=False))
    return {**facts, "links": []}


def without_queries(value: Any) -> Any:
    """JSON data whose addresses (`href`) have no query, where signatures live."""
    if isinstance(value, dict):
        return {
            key: one.split("?")[0] if key == "href" and isinstance(one, str) else without_queries(one)
            for key, one in value.items()
        }
    return [without_queries(one) for one in value] if isinstance(value, list) else value


def pack_items(answers: Mapping[str, Answer], left_out: Mapping[str, Mapping[str, str]]) -> bytes:
    """Every item found as stac-geoparquet: one row per modality and item.

    The usual columns are for any reader; `mdico:modality` and `mdico:use` say what it was found for and whether it was
    read, or why not; `mdico:item` keeps the item itself, to the last digit, which the typed columns cannot.

    Args:
        answers: modality -> what was found.
        left_out: modality -> item id -> why it is not read.
    """
    rows = [
        _row(item, name, left_out.get(name, {}).get(item.id, USED), answer)
        for name, answer in answers.items()
        for item in answer.items
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        rustac.write_sync(str(path), _consistent(rows))
        return _settled(path)


def _settled(path: Path) -> bytes:
    """The same file with its kinds of geometry in order: they come out of a hash set, and so in any order."""
    table = pq.read_table(path)
    notes = pq.read_metadata(path).metadata
    geo = json.loads(notes[b"geo"])
    for column in geo["columns"].values():
        column["geometry_types"] = sorted(column["geometry_types"])
    buffer = io.BytesIO()
    kept = {b"geo": json.dumps(geo).encode(), b"stac-geoparquet": notes[b"stac-geoparquet"]}
    pq.write_table(table.replace_schema_metadata(kept), buffer, compression="zstd")
    return buffer.getvalue()


def _row(item: pystac.Item, modality: str, use: str, answer: Answer) -> dict[str, Any]:
    text = json.dumps(plain_item(item), sort_keys=True)  # the order of its keys must not decide the file's bytes
    exact = json.loads(text)
    own = {_MODALITY: modality, _USE: use, _CATALOG: answer.catalog, _SEARCH: answer.search}
    return {
        **{key: exact[key] for key in ("type", "stac_version", "id", "links")},
        "bbox": list(item_box(item) or ()),
        "collection": exact.get("collection"),
        "geometry": _whole(exact["geometry"]),
        "properties": {
            **{key: value for key, value in exact["properties"].items() if key not in exact and type(value) in _TYPES},
            **own,
            _ITEM: text,
        },
        "assets": {
            key: {name: asset.get(name) for name in ("href", "type", "title", "roles") if asset.get(name)}
            for key, asset in exact["assets"].items()
        },
    }


def _whole(geometry: dict[str, Any]) -> dict[str, Any]:
    """A geometry without the empty parts that some catalogs write and no reader takes."""
    if geometry["type"].startswith("Multi"):
        geometry = {**geometry, "coordinates": [part for part in geometry["coordinates"] if part]}
    found: dict[str, Any] = shapely.geometry.mapping(shapely.geometry.shape(geometry))
    return found


def _consistent(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose properties have one type each: a column cannot hold a text here and a number there."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row["properties"].items():
            kinds.setdefault(key, set()).add(float if type(value) is int else type(value))
    keep = {key for key, types in kinds.items() if len(types) == 1}
    return [{**row, "properties": {k: _number(v) for k, v in row["properties"].items() if k in keep}} for row in rows]


def _number(value: Any) -> Any:
    return float(value) if type(value) is int else value


def unpack_items(content: bytes, name: str) -> dict[str, Answer]:
    """Modality -> answer, as `pack_items` wrote it.

    Raises:
        MdicoError: not Parquet, or not a file that a build wrote.
    """
    try:
        known = set(pq.read_schema(io.BytesIO(content)).names)
        if lacking := sorted(set(_COLUMNS) - known):
            raise MdicoError(f"items {name}: has no column {', '.join(lacking)}. Give the {ITEMS} that a build wrote.")
        table = pq.read_table(io.BytesIO(content), columns=list(_COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise MdicoError(f"items {name}: cannot be read ({reason}). Give the {ITEMS} that a build wrote.") from error
    answers: dict[str, Answer] = {}
    for row in table.to_pylist():
        before = answers.get(row[_MODALITY], Answer(row[_CATALOG], row[_SEARCH], ()))
        item = pystac.Item.from_dict(json.loads(row[_ITEM]))
        answers[row[_MODALITY]] = Answer(before.catalog, before.search, (*before.items, item))
    return answers


def save_items(content: bytes, folder: Path, cube: Location) -> None:
    """Put the items beside the cube and into its ledger, where they do not stand already.

    Inside, they are one uncompressed chunk of bytes: `ledger/items/c/0` is the same Parquet file.
    """
    target = folder / ITEMS
    if not target.exists() or target.read_bytes() != content:
        draft = target.with_name(f".{ITEMS}.draft")
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(target)
    if _inside(cube) != content:
        values = np.frombuffer(content, dtype=np.uint8)
        with changing(cube, "items kept", metadata=True) as change:
            array = open_group(change.target, "a", LEDGER).create_array(
                "items",
                shape=values.shape,
                chunks=values.shape,
                dtype="uint8",
                compressors=None,
                dimension_names=("byte",),
                attributes={"media_type": "application/vnd.apache.parquet"},
                overwrite=True,
            )
            array[:] = values


def _inside(cube: Location) -> bytes | None:
    try:
        return np.asarray(open_group(cube, "r", LEDGER)["items"][:]).tobytes()  # type: ignore[index]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def read_items(place: Location) -> dict[str, Answer]:
    """The saved items of a file, or of a cube that keeps them, by modality.

    Raises:
        MdicoError: no such file, or not one that a build wrote.
    """
    path = locate(place)
    try:
        content = path.read_bytes() if isinstance(path, Path) and not path.is_dir() else _inside(path)
    except OSError as error:
        raise MdicoError(f"items {path}: cannot be read ({error.strerror}). Give the {ITEMS} of a build.") from error
    if content is None:
        raise MdicoError(f"items {path}: is no cube that keeps its items. Give the {ITEMS} of a build.")
    return unpack_items(content, str(path))


def uses(cube: Location) -> dict[str, dict[str, str]]:
    """Modality -> item that was found and not read -> why, as a cube keeps it; nothing where it keeps no items."""
    content = _inside(cube)
    found: dict[str, dict[str, str]] = {}
    rows = [] if content is None else pq.read_table(io.BytesIO(content), columns=["id", _MODALITY, _USE]).to_pylist()
    for row in rows:
        if row[_USE] != USED:
            found.setdefault(row[_MODALITY], {})[row["id"]] = row[_USE]
    return found


def reasons(left_out: Mapping[str, str]) -> dict[str, int]:
    """Why items are left out -> how many, without the name of what replaced each."""
    return dict(Counter(why.partition(": ")[2] or why for why in left_out.values()).most_common())


def moved(answer: Answer, href: str | None) -> Answer:
    """Saved items of a static catalog on this machine that was moved to `href`, with their addresses there."""
    old, folder = answer.catalog, str(href).rpartition("/")[0]
    if href is None or is_remote(old) or is_remote(href) or Path(old).exists() or not Path(href).is_file():
        return answer
    items = tuple(item.clone() for item in answer.items)
    for asset in (asset for item in items for asset in item.assets.values()):
        rest = placed(asset.href, old)
        asset.href = asset.href if rest == asset.href else f"{folder}/{rest}"
    return replace(answer, catalog=href, items=items)


def _compared(answer: Answer) -> dict[str, dict[str, Any]]:
    """Item id -> what is compared of it: addresses from the catalog's folder on, as a moved catalog is the same."""
    found = {item.id: plain_item(item) for item in answer.items}
    for facts in found.values():
        for asset in facts["assets"].values():
            asset["href"] = placed(asset["href"], answer.catalog)
    return found


def compare_items(before: Mapping[str, Answer], after: Mapping[str, Answer]) -> list[Change]:
    """What is new, changed or gone between two searches of the same modalities, in the order of the second."""
    changes: list[Change] = []
    for modality, answer in after.items():
        old, new = _compared(before[modality]) if modality in before else {}, _compared(answer)
        changes += [Change(modality, name, "new") for name in new if name not in old]
        changes += [Change(modality, name, "changed") for name in new if name in old and new[name] != old[name]]
        changes += [Change(modality, name, "gone") for name in old if name not in new]
    return changes
