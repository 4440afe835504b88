"""A cube and bundles in, every layer of the map out: lazily, block by block, and what the map says about itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from mdico_cube.cube.target import Location
from mdico_cube.maps.block import predict_block
from mdico_cube.maps.origin import cube_digest, grid_digest
from mdico_cube.maps.outputs import LABEL, Bytes, depth
from mdico_cube.maps.plan import AUTO, FUSED, MapPlan, bundle_digest, class_values, plan_map
from mdico_cube.maps.precision import change_name

__all__ = ["MapPlan", "plan_map", "predict_block", "predict_map"]


def predict_map(cube: Location, bundle: Path | Sequence[Path], **options: Any) -> xr.Dataset:
    """The map of a whole cube, lazily: Dask blocks aligned with the cube's shards, each reading its own pixels.

    Only paths stand in the graph; each process opens the cube and loads the bundle once.

    Args:
        cube: where the cube lies.
        bundle: folder of one bundle, or of several: then each pixel takes the best that was observed there.
        options: as in `plan_map`.

    Returns:
        Dataset of class(y, x) and confidence(y, x), uint8, 255 = no prediction, with x, y and spatial_ref; the extras
        are uint8 too, probabilities(label, y, x) with the map values as coordinate. Of a multi-label bundle
        labels(y, x) in bits and probabilities stand in their place, of a regression value(y, x), NaN = no prediction.

    Raises:
        MdicoError: the bundle does not fit the cube.
    """
    plan = plan_map(cube, bundle, **options)
    stack = lazy_stack(plan)
    found = {each.name: (each.dims, each.of(stack), each.attrs) for each in plan.variables}
    return xr.Dataset(found, map_coords(plan), map_attrs(plan))


def map_coords(plan: MapPlan) -> dict[Any, Any]:
    """x, y and spatial_ref, and the classes' map values where the map holds their probabilities."""
    coords: dict[Any, Any] = dict(xr_coords(plan.reader.geobox, always_yx=True, dims=("y", "x")))
    if plan.layers.probabilities:
        names = " ".join(item.name.strip().replace(" ", "_") for item in plan.classes)
        values = np.asarray(class_values(plan.classes), np.uint8)
        coords[LABEL] = (LABEL, values, {"long_name": "map value", "flag_meanings": names})
    return coords


def lazy_stack(plan: MapPlan, strips: int = 1) -> da.Array:
    """Every layer of the map as one lazy array (L, y, x).

    Its blocks are the cube's shards, each cut into this many strips of whole inner chunks, so that a few shards can
    keep many workers busy.
    """
    reader = plan.reader
    height, width = reader.shape
    side = -(-reader.shard // (strips * reader.chunk)) * reader.chunk
    rows = tuple(n for tall in blocks(height, reader.shard) for n in blocks(tall, side))
    meta = np.empty((0, 0, 0), np.uint8)
    return da.map_blocks(  # type: ignore[no-untyped-call,no-any-return]
        _predict,
        plan=plan,
        chunks=((depth(plan.variables),), rows, blocks(width, reader.shard)),
        dtype=np.uint8,
        meta=meta,
    )


def blocks(length: int, side: int) -> tuple[int, ...]:
    """Lengths of the blocks along one axis; the last may be shorter."""
    return tuple(min(side, length - start) for start in range(0, length, side))


def windows(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """Every shard of a raster as row and column slices, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def _predict(plan: MapPlan, block_info: Any = None) -> Bytes:
    _, y, x = block_info[None]["array-location"]
    return plan.predict(slice(*y), slice(*x))


def map_attrs(plan: MapPlan) -> dict[str, Any]:
    """What a map says about itself: how it was made and with what."""
    loaded, settings = plan.loaded, plan.settings
    config = loaded.configs[0]
    name = change_name(plan.options.precision, plan.task)
    loss = {name: config.scores[name]} if name in config.scores else {}
    if plan.options.precision == "int8" and config.int8 is not None:
        loss = {name: config.int8.changed}
    title = config.title or config.modality if plan.modality == config.modality else _TITLES[plan.modality]
    names = ("abstain", "mask", "window", "least", "int8", "step", "device")
    told = {key: settings[key] for key in names if settings.get(key) is not None}
    return {
        "Conventions": "CF-1.11",
        "title": f"{title} alone, {config.method}" if plan.modality == config.modality else f"{title}, {config.method}",
        "method": config.method,
        **({} if plan.task == "classes" else {"task": plan.task, "task_options": _task_options(plan)}),
        "modality": plan.modality,
        "modalities": list(plan.modalities),
        "sensor": title,
        "seed": config.seed,
        "protocol": config.protocol,
        "legend": [{"name": item.name, "value": item.value, "color": item.color} for item in plan.classes],
        "bundle_digest": bundle_digest(plan),
        "cube_digest": cube_digest(plan.reader, *plan.modalities),
        "grid_digest": grid_digest(plan.reader, *plan.modalities),
        "precision": settings["precision"],
        "backend": settings["backend"],
        "outputs": settings["outputs"],
        **told,
        **loss,
    }


def _task_options(plan: MapPlan) -> dict[str, Any]:
    """What a score has to know of labels side by side: when a class counts as there, and in which square."""
    config = plan.loaded.configs[0]
    return {"share": config.task.share, "patch": config.encoder.pool} if plan.task == "multilabel" else {}


_TITLES = {AUTO: "The best sensor observed at each pixel", FUSED: "All sensors observed at each pixel"}
