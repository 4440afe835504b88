"""Scenes of one step and a block in; each scene's calibrated planes out, and what could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from odc.geo.geobox import GeoBox

from mdico_cube.cube.ledger import FailedRead
from mdico_cube.cube.plan import LayerPlan, Scene
from mdico_cube.cube.read import read_scenes, unreadable
from mdico_cube.cube.standin import stand_in
from mdico_cube.errors import MdicoError
from mdico_cube.sensors.offsets import dark_floor
from mdico_cube.sensors.quality import seen
from mdico_cube.sensors.sensor import Radiometry, declared
from mdico_cube.spec import Array, Bools, Resampling


@dataclass
class Notes:
    """What computing a block tells besides its pixels; filled on the way."""

    floors: dict[str, float] = field(default_factory=dict)
    """Item id -> dark floor, for sensors whose offset is watched."""
    rules: dict[str, Radiometry] = field(default_factory=dict)
    """Item id -> how its counts were calibrated."""
    failed: list[FailedRead] = field(default_factory=list)
    """Files that could not be read for good."""
    stand_ins: dict[str, str] = field(default_factory=dict)
    """Item id -> "catalog/collection/id" of what was read in its place."""


@dataclass(frozen=True)
class Calibrated:
    """One scene, ready to be composited."""

    scene: Scene
    work: Array
    """(C, h, w) counts or linear power."""
    observed: Bools
    """(h, w)"""


def read_calibrated(
    layer: LayerPlan, scenes: Sequence[Scene], geobox: GeoBox, threads: int, notes: Notes
) -> list[Calibrated]:
    """Scenes in the order given, each calibrated by its own rule, without those that saw nothing of the block.

    Those that cannot be read are left out and noted.

    Args:
        layer: what to read.
        scenes: one or more.
        geobox: onto which grid.
        threads: files read at once.
        notes: filled.

    Raises:
        MdicoError: a file cannot be read and the recipe does not allow gaps.
    """
    found, failed = _read_all(layer, scenes, geobox, threads, notes)
    broken = {read.item for read in failed}
    for i, scene in enumerate(scenes):
        if scene.item.id in broken and layer.fallbacks:
            found[i] = _elsewhere(layer, scene, geobox, threads, notes, failed)
    notes.failed += failed
    if failed and layer.reading.failed == "stop":
        raise MdicoError(unreadable([scene.item for scene in scenes], failed))
    return [one for one in found if one is not None]


def _elsewhere(
    layer: LayerPlan, scene: Scene, geobox: GeoBox, threads: int, notes: Notes, failed: list[FailedRead]
) -> Calibrated | None:
    """The same acquisition from another catalog; where that works, its own failed reads are taken off the list."""
    whys = []
    for fallback in layer.fallbacks:
        name = fallback.catalog.name
        try:
            other = stand_in(layer, fallback, scene)
        except MdicoError as error:
            whys.append(f"{name}: {error}")
            continue
        if other is None:
            whys.append(f"{name} does not have it")
            continue
        ((one,), wrong) = _read_all(other, other.scenes, geobox, threads, notes)
        if not wrong:
            item = other.scenes[0].item
            notes.stand_ins[scene.item.id] = f"{name}/{item.collection_id}/{item.id}"
            failed[:] = [read for read in failed if read.item != scene.item.id]
            return None if one is None else replace(one, scene=scene)
        whys.append(f"{name}: {wrong[0].error}")
    failed[:] = [
        replace(read, error=f"{read.error}; {'; '.join(whys)}") if read.item == scene.item.id else read
        for read in failed
    ]
    return None


def _read_all(
    layer: LayerPlan, scenes: Sequence[Scene], geobox: GeoBox, threads: int, notes: Notes
) -> tuple[list[Calibrated | None], list[FailedRead]]:
    """Scenes in the order given and the reads that failed for good.

    None stands for a scene that cannot be read, and for one that saw nothing: the quality layer comes first, and where
    all of the block is hidden the bands are not asked for.
    """
    failed: list[FailedRead] = []
    clear = _read_seen(layer, scenes, geobox, threads, failed)
    broken = {read.item for read in failed}
    wanted = [i for i, scene in enumerate(scenes) if scene.item.id not in broken and (clear is None or clear[i].any())]
    nodata = _nodata(layer, scenes)
    raw = _read(layer, [scenes[i] for i in wanted], geobox, nodata, threads, failed) if wanted else ()
    broken = {read.item for read in failed}
    for scene in scenes:
        if scene.item.id not in broken:
            notes.rules[scene.item.id] = layer.radiometry(scene)
    found: list[Calibrated | None] = [None] * len(scenes)
    for i, counts in zip(wanted, raw, strict=True):
        scene = scenes[i]
        if scene.item.id in broken:
            continue
        rule = notes.rules[scene.item.id]
        work, observed = layer.sensor.calibrate(counts, nodata, rule)
        if clear is not None:
            observed = observed & clear[i]
        if layer.sensor.sentinel is not None:
            notes.floors[scene.item.id] = dark_floor(counts, observed, layer.sensor.sentinel.scale, rule.offset)
        found[i] = Calibrated(scene, work, observed)
    return found, failed


def _read(
    layer: LayerPlan, scenes: Sequence[Scene], geobox: GeoBox, nodata: float, threads: int, failed: list[FailedRead]
) -> Array:
    """Raw counts (N, C, h, w), one plane per scene."""
    methods = resampling_of(layer, geobox)
    return read_scenes(
        [scene.item for scene in scenes],
        layer.assets,
        geobox,
        dtype=layer.sensor.raw_dtype,
        nodata=nodata,
        resampling={asset: methods[band] for asset, band in zip(layer.assets, layer.bands, strict=True)},
        access=layer.access,
        reading=layer.reading,
        failed=failed,
        hopeless=layer.reading.failed == "stop" and not layer.fallbacks,
        threads=threads,
    )


def resampling_of(layer: LayerPlan, geobox: GeoBox) -> dict[str, Resampling]:
    """Band -> how it is resampled: as the recipe says, else by its kind, the average on a grid twice as coarse."""
    sensor = layer.sensor
    metres = abs(geobox.resolution.y) * (110_574 if geobox.crs is not None and geobox.crs.geographic else 1)
    return {
        band.name: layer.resampling
        or ("average" if metres >= 2 * sensor.gsd.get(band.name, np.inf) else band.resampling)
        for band in sensor.modality.bands
    }


def _read_seen(
    layer: LayerPlan, scenes: Sequence[Scene], geobox: GeoBox, threads: int, failed: list[FailedRead]
) -> Array | None:
    """(N, h, w) True where each scene saw the ground; None where the source has no quality layer.

    The layer is read wider than the block by the dilation, so that a cloud beyond the edge is widened into it.
    """
    rule, dilate = layer.sensor.quality, layer.source.dilate
    if rule is None or not layer.quality_assets:
        return None
    values = read_scenes(
        [scene.item for scene in scenes],
        layer.quality_assets,
        geobox.pad(dilate) if dilate else geobox,
        dtype=rule.dtype,
        nodata=rule.missing,
        resampling=dict.fromkeys(layer.quality_assets, "nearest"),
        access=layer.access,
        reading=layer.reading,
        failed=failed,
        hopeless=layer.reading.failed == "stop" and not layer.fallbacks,
        threads=threads,
    )
    return np.stack([seen(plane[0], rule, layer.hides, dilate) for plane in values])


def _nodata(layer: LayerPlan, scenes: Sequence[Scene]) -> float:
    """The source's no-data value: the catalog file's, else what the item declares, else 0."""
    if layer.source.nodata is not None:
        return layer.source.nodata
    return float(declared(scenes[0].item.assets[layer.assets[0]].extra_fields).get("nodata") or 0)
