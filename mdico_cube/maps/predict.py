"""A cube and one sensor's bundle in, class and confidence per pixel out: pure arrays first, Dask around them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch
import xarray as xr
from odc.geo.xr import xr_coords

from mdico_cube.colearn.bundle import Bundle, check_fit, load_bundle
from mdico_cube.colearn.fast import SeriesModel, fast_form
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.target import Location, locate
from mdico_cube.errors import MdicoError
from mdico_cube.maps.outputs import LABEL, NODATA, Bytes, Variable, count_observations, depth, encode, variables
from mdico_cube.recipe import MapOutput, Precision
from mdico_cube.spec import Bools, Floats

CHANGED = "bf16_changed_classes"
"""Score of a bundle: share of validation pixels whose class is another one in bf16."""
PIXELS = 1024
"""Pixels of one mini-batch: small enough to stay in a processor's cache."""


def predict_block(
    model: SeriesModel,
    values: Floats,
    valid: Bools,
    class_values: tuple[int, ...],
    pixels: int = PIXELS,
    outputs: tuple[MapOutput, ...] = (),
) -> Bytes:
    """Class, confidence and the wanted extras of every pixel of one block.

    Every mini-batch has the same shape (the last one is filled up), so that a pixel's result does not depend on which
    block it lies in.

    Args:
        model: (T, C, N) physical and (T, N) observed to logits (N, K), as `fast_form` gives it.
        values: (T, C, h, w) physical units, 0 where missing.
        valid: (T, h, w) True = observed.
        class_values: the map value of each of the K classes.
        pixels: pixels that go through the model at once.
        outputs: what to give beyond class and confidence.

    Returns:
        (L, h, w) in the order of `mdico_cube.maps.outputs.variables`; 255 where no step was observed.
    """
    steps, bands, height, width = values.shape
    series, masks = values.reshape(steps, bands, -1), valid.reshape(steps, -1)  # (T, C, h*w), (T, h*w)
    legend = torch.tensor(class_values, dtype=torch.uint8)
    logit_layers = 2 + len(class_values) * ("probabilities" in outputs) + ("entropy" in outputs)
    stack = np.full((logit_layers + ("observations" in outputs), height * width), NODATA, np.uint8)
    batch, batch_valid = np.zeros((steps, bands, pixels), np.float32), np.zeros((steps, pixels), np.bool_)
    observed = np.flatnonzero(masks.any(axis=0))
    for start in range(0, len(observed), pixels):
        chosen = observed[start : start + pixels]
        count = len(chosen)
        unbroken = chosen[-1] - chosen[0] + 1 == count
        place = slice(chosen[0], chosen[-1] + 1) if unbroken else chosen
        batch[..., :count], batch_valid[:, :count] = series[..., place], masks[:, place]
        stack[:logit_layers, place] = _encoded(model, batch, batch_valid, legend, outputs)[:, :count]
    if "observations" in outputs:
        stack[-1] = count_observations(masks)
    return stack.reshape(-1, height, width)


def _encoded(
    model: SeriesModel, batch: Floats, valid: Bools, legend: torch.Tensor, outputs: tuple[MapOutput, ...]
) -> Bytes:
    """(L, N) bytes of one mini-batch (T, C, N)."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(batch), torch.from_numpy(valid))  # (N, K)
        if logits.shape[1] != len(legend):
            raise MdicoError(
                f"bundle: its model gives {logits.shape[1]} classes, its config names {len(legend)}. Export it again."
            )
        return encode(logits, legend, outputs).numpy()


@dataclass(frozen=True, slots=True)
class MapPlan:
    """One cube and one bundle that were found to fit: everything a worker needs, and nothing heavy."""

    cube: Location
    bundle: Path
    digest: str
    """Of the bundle: a worker refuses one that was swapped under the plan."""
    pixels: int = PIXELS
    """That go through the model at once."""
    precision: Precision = "32-true"
    outputs: tuple[MapOutput, ...] = ()
    """Beyond class and confidence."""

    @property
    def reader(self) -> CubeReader:
        """The cube, opened once per process."""
        return open_reader(self.cube)

    @property
    def loaded(self) -> Bundle:
        """The bundle, loaded once per process.

        Raises:
            MdicoError: the bundle changed since the plan was made.
        """
        return self._current().bundle

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What the map holds."""
        return variables(self.loaded.config.classes, self.outputs)

    def predict(self, y: slice, x: slice) -> Bytes:
        """Read one window of the cube and map it: (L, h, w) in the order of `variables`."""
        current = self._current()
        values, valid = self.reader.read(current.bundle.config.modality, y, x)
        legend = class_values(current.bundle)
        return predict_block(current.form(self.precision), values, valid, legend, self.pixels, self.outputs)

    def _current(self) -> _Loaded:
        current = _loaded(self.bundle)
        if current.bundle.config.digest != self.digest:
            raise MdicoError(f"bundle {self.bundle}: changed while the map was being made. Start the map again.")
        return current


def plan_map(
    cube: Location,
    bundle: Path,
    pixels: int = PIXELS,
    precision: Precision = "32-true",
    outputs: Sequence[MapOutput] = (),
) -> MapPlan:
    """Check that a bundle fits a cube before anything is built.

    Raises:
        MdicoError: no such cube or bundle, or bands, units or steps differ.
    """
    cube, bundle = locate(cube), Path(bundle).resolve()
    reader = open_reader(cube)
    config = _loaded(bundle).bundle.config
    name = config.modality
    if name not in reader.modalities:
        raise MdicoError(
            f"cube {cube}: has no {name}, which bundle {bundle} maps with. It holds: {', '.join(reader.modalities)}."
        )
    check_fit(config, reader.modalities[name], reader.steps(name))
    if config.task.kind != "classes":
        raise MdicoError(
            f"bundle {bundle}: its model gives {config.task.kind} outputs, and maps hold classes. Predict with "
            "load_bundle(...).answer(images, valid)."
        )
    return MapPlan(cube, bundle, config.digest, pixels, precision, tuple(outputs))


def predict_map(
    cube: Location,
    bundle: Path,
    pixels: int = PIXELS,
    precision: Precision = "32-true",
    outputs: Sequence[MapOutput] = (),
) -> xr.Dataset:
    """The map of a whole cube, lazily: Dask blocks aligned with the cube's shards, each reading its own pixels.

    Only paths stand in the graph; each process opens the cube and loads the bundle once.

    Args:
        cube: folder of the cube.
        bundle: folder of the bundle.
        pixels: pixels that go through the model at once.
        precision: "32-true" or "bf16".
        outputs: what to give beyond class and confidence: "probabilities", "entropy", "observations".

    Returns:
        Dataset of class(y, x) and confidence(y, x), uint8, 255 = no prediction, with x, y and spatial_ref; the extras
        are uint8 too, probabilities(label, y, x) with the map values as coordinate.

    Raises:
        MdicoError: the bundle does not fit the cube.
    """
    plan = plan_map(cube, bundle, pixels, precision, outputs)
    stack = lazy_stack(plan)
    found = {each.name: (each.dims, each.of(stack), each.attrs) for each in plan.variables}
    return xr.Dataset(found, map_coords(plan), map_attrs(plan))


def map_coords(plan: MapPlan) -> dict[Any, Any]:
    """x, y and spatial_ref, and the classes' map values where the map holds their probabilities."""
    coords: dict[Any, Any] = dict(xr_coords(plan.reader.geobox, always_yx=True, dims=("y", "x")))
    if "probabilities" in plan.outputs:
        names = " ".join(item.name.strip().replace(" ", "_") for item in plan.loaded.config.classes)
        values = np.asarray(class_values(plan.loaded), np.uint8)
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


def class_values(bundle: Bundle) -> tuple[int, ...]:
    """The map value of each class, in the order of the logits."""
    return tuple(item.value for item in bundle.config.classes)


def map_attrs(plan: MapPlan) -> dict[str, Any]:
    """What a map says about itself: how it was made and with what."""
    config = plan.loaded.config
    loss = {CHANGED: config.scores[CHANGED]} if plan.precision == "bf16" and CHANGED in config.scores else {}
    return {
        "Conventions": "CF-1.11",
        "title": f"{config.title or config.modality} alone, {config.method}",
        "method": config.method,
        "modality": config.modality,
        "sensor": config.title or config.modality,
        "seed": config.seed,
        "protocol": config.protocol,
        "legend": [{"name": item.name, "value": item.value, "color": item.color} for item in config.classes],
        "bundle_digest": plan.digest,
        "cube_digest": cube_digest(plan.reader, config.modality),
        "precision": plan.precision,
        "outputs": sorted(plan.outputs),
        **loss,
    }


def cube_digest(reader: CubeReader, modality: str) -> str:
    """SHA-256 of what a map depends on in a cube: the grid, the modality and what was written into each shard."""
    grid = [*reader.geobox.affine, *reader.shape, str(reader.geobox.crs)]
    digest = hashlib.sha256(repr((grid, reader.modalities[modality], reader.steps(modality))).encode())
    for name in reader.rests_on(modality):
        digest.update(Ledger(reader.path, name).digests().tobytes())
    return digest.hexdigest()


@dataclass(slots=True)
class _Loaded:
    """A bundle and the forms of its model that this process has made."""

    stamp: int
    bundle: Bundle
    forms: dict[Precision, SeriesModel] = field(default_factory=dict)

    def form(self, precision: Precision) -> SeriesModel:
        """Its model, folded for fast predictions."""
        with _lock:
            if precision not in self.forms:
                self.forms[precision] = fast_form(self.bundle.model, precision)
            return self.forms[precision]


_lock = threading.Lock()
_bundles: dict[Path, _Loaded] = {}


def _loaded(path: Path) -> _Loaded:
    """A bundle from this process's cache, loaded where it is new or its files changed."""
    with _lock:
        stamp = max((file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()), default=0)
        if path not in _bundles or _bundles[path].stamp != stamp:
            _bundles[path] = _Loaded(stamp, load_bundle(path))
        return _bundles[path]
