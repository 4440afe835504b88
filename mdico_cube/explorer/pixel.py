"""A pixel of a cube and of its maps in; its series, label and class probabilities out, as JSON or CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geom import point

from mdico_cube.accessor import open_cube
from mdico_cube.colearn.bundle import CONFIG
from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.layers import MapFile
from mdico_cube.explorer.looks import shown
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.plan import AUTO, MapPlan, bundle_digest, plan_map


@dataclass
class PixelTeller:
    """Answers what is known of one pixel."""

    reader: CubeReader
    maps: Sequence[MapFile]
    bundles: Sequence[MapPlan] = ()
    """Bundles that give class probabilities without a map."""
    _plans: dict[str, MapPlan | None] = field(default_factory=dict)

    def table(self, row: int, column: int) -> pd.DataFrame:
        """One row per value: modality, time, band, value, unit.

        Raises:
            MdicoError: outside the cube.
        """
        x, y = self._place(row, column)
        tree: xr.DataTree = open_cube(self.reader.path)
        found: pd.DataFrame = tree.mdico.series(x, y)
        return found

    def facts(self, row: int, column: int) -> dict[str, Any]:
        """Everything known of a pixel.

        Raises:
            MdicoError: outside the cube.
        """
        x, y = self._place(row, column)
        window = slice(row, row + 1), slice(column, column + 1)
        table = self.table(row, column)
        ((lon, lat),) = point(x, y, self.reader.geobox.crs).to_crs("EPSG:4326").points
        label = int(self.reader.labels(*window)[0, 0]) if self.reader.has_labels else -1
        return {
            "row": row,
            "column": column,
            "x": x,
            "y": y,
            "longitude": lon,
            "latitude": lat,
            "label": None if label < 0 else _class(self.reader.legend[label]),
            "series": _panels(table, {name: each.title or name for name, each in self.reader.modalities.items()}),
            "fixed": _fixed(table),
            "maps": [self._of_map(m, *window) for m in self.maps] + [_of_plan(p, *window) for p in self._others()],
        }

    def _place(self, row: int, column: int) -> tuple[float, float]:
        height, width = self.reader.shape
        if not (0 <= row < height and 0 <= column < width):
            raise MdicoError(f"row {row}, column {column} lies outside the cube of {height} x {width} pixels.")
        x, y = self.reader.geobox.affine * (column + 0.5, row + 0.5)
        return float(x), float(y)

    def _of_map(self, map_: MapFile, y: slice, x: slice) -> dict[str, Any]:
        index = int(map_.index(y, x)[0, 0])
        confidence = int(np.asarray(map_.group["confidence"][y, x])[0, 0])
        facts: dict[str, Any] = {
            "key": map_.key,
            "title": map_.title,
            "class": None if index < 0 else _class(map_.classes[index]),
            "confidence": None if confidence == NODATA else confidence,
            "extras": _extras(map_, y, x),
        }
        if "probabilities" in map_.group:
            percent = np.asarray(map_.group["probabilities"][:, y, x])[:, 0, 0]
            return {**facts, "probabilities": _bars(map_.classes, percent), "source": "the map's probabilities"}
        plan = self._plan(map_)
        if plan is None:
            return {**facts, "probabilities": None, "source": "the map keeps no probabilities and its bundle is away"}
        return {**facts, "probabilities": _of_plan(plan, y, x)["probabilities"], "source": "the map's bundle"}

    def _others(self) -> list[MapPlan]:
        """The bundles that no map of this page was made by: the probabilities of those are told with their map."""
        told = {map_.group.attrs.get("bundle_digest") for map_ in self.maps}
        return [plan for plan in self.bundles if bundle_digest(plan) not in told]

    def _plan(self, map_: MapFile) -> MapPlan | None:
        """The bundles that made a map, where they stand in the same run, unchanged."""
        if map_.key not in self._plans:
            facts = dict(map_.group.attrs)
            names = [facts.get("modality")] if facts.get("modality") != AUTO else facts.get("modalities")
            run = [str(facts.get("method")), f"seed-{facts.get('seed')}"]
            sensors = [str(name) for name in names or ()] if isinstance(names, list) else []
            folders = [map_.path.resolve().parent.parent.joinpath("bundles", *run, name) for name in sensors]
            known = all(_is_name(name) for name in (*run, *sensors)) and bool(folders)
            options = {"least": facts["least"]} if isinstance(facts.get("least"), int) else {}
            plan = _try_plan(self.reader, folders, options) if known else None
            same = plan is not None and bundle_digest(plan) == facts.get("bundle_digest")
            self._plans[map_.key] = plan if same else None
        return self._plans[map_.key]


def _is_name(name: str) -> bool:
    """Attributes come from a file: none may lead out of the run's folder."""
    return bool(re.fullmatch(r"[A-Za-z0-9_+-]+", name))


def _try_plan(reader: CubeReader, folders: Sequence[Path], options: dict[str, int]) -> MapPlan | None:
    if not all((folder / CONFIG).is_file() for folder in folders):
        return None
    try:
        return plan_map(
            reader.path, folders[0] if len(folders) == 1 else folders, outputs=("probabilities",), **options
        )
    except MdicoError:
        return None


def _extras(map_: MapFile, y: slice, x: slice) -> list[str]:
    """What else a map says of a pixel: the sensor it took, why it gives no answer, how far it is from what it knows."""
    found = []
    for name in ("sensor", "abstain", "observations", "entropy", "applicability"):
        if name not in map_.group:
            continue
        array = map_.group[name]
        value, facts = int(np.asarray(array[y, x])[0, 0]), dict(array.attrs)
        meanings = str(facts.get("flag_meanings", "")).split()
        if value == NODATA:
            continue
        if "flag_values" in facts and value in facts["flag_values"]:
            found.append(f"{name}: {meanings[facts['flag_values'].index(value)]}")
        elif "flag_masks" in facts:
            bits = [meaning for mask, meaning in zip(facts["flag_masks"], meanings, strict=True) if value & mask]
            found += [f"{name}: {', '.join(bits).replace('_', ' ')}"] if bits else []
        else:
            found.append(f"{name}: {value}{' %' if facts.get('units') == 'percent' else ''}")
    return found


def open_bundles(reader: CubeReader, folders: Sequence[Path]) -> list[MapPlan]:
    """Bundles, each checked to fit the cube.

    Raises:
        MdicoError: no bundle, or one that does not fit.
    """
    found = []
    for folder in folders:
        plan = plan_map(reader.path, folder, pixels=1, outputs=("probabilities",), device="cpu")
        if plan.task != "classes":
            raise MdicoError(f"bundle {folder}: gives several labels, and this page shows classes. Leave it out.")
        found.append(plan)
    return found


def _of_plan(plan: MapPlan, y: slice, x: slice) -> dict[str, Any]:
    """Class probabilities straight from a bundle."""
    config = plan.loaded.configs[0]
    stack = plan.predict(y, x)
    parts = {each.name: each.of(stack) for each in plan.variables}
    values = [item.value for item in config.classes]
    value = int(parts["class"][0, 0])
    confidence = int(parts["confidence"][0, 0])
    return {
        "key": f"bundle {plan.members[0].digest[:8]}",
        "title": f"{config.title or config.modality} alone, {config.method}, seed {config.seed}",
        "class": _class(config.classes[values.index(value)]) if value in values else None,
        "confidence": None if confidence == NODATA else confidence,
        "probabilities": _bars(config.classes, parts["probabilities"][:, 0, 0]),
        "extras": [],
        "source": "bundle",
    }


def _class(item: Any) -> dict[str, str]:
    return {"name": item.name, "color": item.color}


def _bars(classes: Sequence[Any], percent: Any) -> list[dict[str, Any]] | None:
    """Each class with its probability in percent; None where the sensor never saw the pixel."""
    if int(percent[0]) == NODATA:
        return None
    return [{**_class(item), "percent": int(share)} for item, share in zip(classes, percent, strict=True)]


def _panels(table: pd.DataFrame, titles: dict[str, str]) -> list[dict[str, Any]]:
    """One chart per sensor and unit: seconds since 1970 and one list of values per band, null = not observed."""
    panels = []
    timed = table.dropna(subset=["time"])
    for (name, unit), rows in timed.groupby(["modality", "unit"], sort=False):
        wide = rows.pivot(index="time", columns="band", values="value")[list(dict.fromkeys(rows["band"]))]
        read_as, added = shown(str(unit))
        seconds = np.asarray(wide.index, "datetime64[s]").astype(np.int64)
        panels.append(
            {
                "title": titles.get(str(name), str(name)),
                "unit": read_as,
                "times": [int(second) for second in seconds],
                "bands": [{"name": str(band), "values": [_number(v + added) for v in wide[band]]} for band in wide],
            }
        )
    return panels


def _fixed(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What has no time: terrain."""
    rows = table[table["time"].isna()]
    return [
        {"modality": str(row.modality), "band": str(row.band), "value": _number(row.value), "unit": str(row.unit)}
        for row in rows.itertuples()
    ]


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
