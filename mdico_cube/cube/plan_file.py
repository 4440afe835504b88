"""A build plan to JSON and back, so that worker processes read it once: known kinds of objects only, no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from importlib import import_module
from typing import Any

import numpy as np
import pystac
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pydantic import BaseModel
from rasterio.transform import Affine
from shapely import from_wkb

from mdico_cube.cube.plan import BuildPlan, LayerPlan, Scene
from mdico_cube.sensors.registry import get_sensor
from mdico_cube.sensors.sensor import Sensor
from mdico_cube.sensors.weather import Weather

_PACKAGE = "mdico_cube."
_KIND, _VALUE = "@", "="


def dump_plan(plan: BuildPlan) -> bytes:
    """The plan as JSON text; of each item only what is read from it."""
    return json.dumps(_dump(plan), separators=(",", ":")).encode()


def load_plan(text: bytes) -> BuildPlan:
    """The plan that `dump_plan` wrote."""
    plan = _load(json.loads(text))
    assert isinstance(plan, BuildPlan)
    return plan


def _dump(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, LayerPlan):
        keep = {*value.assets, *value.quality_assets}
        scenes = [_tagged(_name(Scene), {**_fields(scene), "item": _item(scene.item, keep)}) for scene in value.scenes]
        return _tagged(_name(LayerPlan), {**_fields(value, but="scenes"), "scenes": _tagged("tuple", scenes)})
    if isinstance(value, Sensor | Weather):
        return _tagged("Sensor", value.modality.name)
    if isinstance(value, BuildPlan):
        return _tagged(_name(BuildPlan), _fields(value, but="answers"))
    for kind, plain in _PLAIN.items():
        if isinstance(value, plain[0]):
            return _tagged(kind, plain[1](value))
    if _is_ours(type(value)):
        facts = value.model_dump(mode="json") if isinstance(value, BaseModel) else _fields(value)
        return _tagged(_name(type(value)), facts)
    if isinstance(value, tuple):
        return _tagged("tuple", [_dump(one) for one in value])
    if isinstance(value, list):
        return [_dump(one) for one in value]
    if isinstance(value, Mapping):
        return _tagged("dict", [[_dump(key), _dump(one)] for key, one in value.items()])
    raise TypeError(f"a plan holds one {type(value).__name__}: teach cube/plan_file.py to write it")


def _load(value: Any) -> Any:
    if isinstance(value, list):
        return [_load(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind, content = value[_KIND], value[_VALUE]
    if kind in _PLAIN:
        return _PLAIN[kind][2](content)
    if kind == "tuple":
        return tuple(_load(one) for one in content)
    if kind == "dict":
        return {_load(key): _load(one) for key, one in content}
    if kind == "Sensor":
        return get_sensor(content)
    module, _, name = kind.partition(":")
    found: Any = getattr(import_module(module), name) if module.startswith(_PACKAGE) else None
    if not _is_ours(found):
        raise ValueError(f"a plan file names {kind}, which no plan holds")
    if issubclass(found, BaseModel):
        return found.model_validate(content)
    return found(**{name: _load(one) for name, one in content.items()})


def _is_ours(kind: Any) -> bool:
    """True for the project's own records: dataclasses and sections of recipes and catalog files."""
    plain = isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel))
    return plain and kind.__module__.startswith(_PACKAGE)


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__name__}"


def _tagged(kind: str, content: Any) -> dict[str, Any]:
    return {_KIND: kind, _VALUE: content}


def _fields(record: Any, but: str = "item") -> dict[str, Any]:
    return {field.name: _dump(getattr(record, field.name)) for field in fields(record) if field.name != but}


def _item(item: pystac.Item, assets: set[str]) -> dict[str, Any]:
    """An item without links and without the assets that are not read."""
    facts = item.to_dict(include_self_link=False, transform_hrefs=False)
    facts["assets"] = {key: asset for key, asset in facts["assets"].items() if key in assets}
    return _tagged("Item", {**facts, "links": []})


def _load_item(facts: dict[str, Any]) -> pystac.Item:
    return pystac.Item.from_dict(facts, migrate=False)


_PLAIN: dict[str, tuple[Any, Any, Any]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "Geometry": (
        Geometry,
        lambda geometry: [geometry.geom.wkb_hex, _crs_text(geometry.crs)],
        lambda pair: Geometry(from_wkb(pair[0]), pair[1]),
    ),
    "GeoBox": (
        GeoBox,
        lambda box: [list(box.shape), list(box.affine)[:6], _crs_text(box.crs)],
        lambda facts: GeoBox(tuple(facts[0]), Affine(*facts[1]), facts[2]),
    ),
    "number": (np.generic, lambda number: number.item(), lambda number: number),
    "Item": (pystac.Item, lambda item: _item(item, set(item.assets))[_VALUE], _load_item),
}
"""Kind -> (type, to JSON, from JSON)."""


def _crs_text(crs: CRS | None) -> str | None:
    """An authority's code where the CRS has one, else the whole definition."""
    if crs is None:
        return None
    return f"EPSG:{crs.epsg}" if crs.epsg is not None else str(crs.to_wkt())
