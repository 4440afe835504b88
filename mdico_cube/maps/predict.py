"""A cube and one sensor's bundle in, class and confidence per pixel out: pure arrays first, Dask around them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from odc.geo.xr import xr_coords
from torch import nn

from mdico_cube.colearn.bundle import Bundle, check_fit, load_bundle
from mdico_cube.cube.ledger import Ledger
from mdico_cube.cube.store import CubeReader, open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Bools, Floats, LabelClass

Bytes = npt.NDArray[np.uint8]
NODATA = 255
"""Value of class and confidence where the sensor never observed the pixel."""
PIXELS = 1024
"""Pixels of one mini-batch: small enough to stay in a processor's cache."""


def predict_block(
    model: nn.Module, values: Floats, valid: Bools, class_values: tuple[int, ...], pixels: int = PIXELS
) -> tuple[Bytes, Bytes]:
    """Class and confidence of every pixel of one block.

    Every mini-batch has the same shape (the last one is filled up), so that a pixel's result does not depend on which
    block it lies in.

    Args:
        model: a sensor's pixel model: (N, T, C, 1, 1) physical and (N, T, 1, 1) bool to logits (N, K, 1, 1).
        values: (T, C, h, w) physical units, 0 where missing.
        valid: (T, h, w) True = observed.
        class_values: the map value of each of the K classes.
        pixels: pixels that go through the model at once.

    Returns:
        (h, w) map value and (h, w) rounded percent of the largest softmax; both 255 where no step was observed.
    """
    steps, bands, height, width = values.shape
    series = values.reshape(steps, bands, height * width)  # (T, C, h*w)
    masks = valid.reshape(steps, height * width)
    classes, confidence = (np.full(height * width, NODATA, np.uint8) for _ in range(2))
    written = np.asarray(class_values, np.uint8)
    images = np.zeros((pixels, steps, bands, 1, 1), np.float32)
    seen_steps = np.zeros((pixels, steps, 1, 1), np.bool_)
    observed = np.flatnonzero(masks.any(axis=0))
    for start in range(0, len(observed), pixels):
        chosen = observed[start : start + pixels]
        count = len(chosen)
        images[:count, :, :, 0, 0] = series[:, :, chosen].transpose(2, 0, 1)
        seen_steps[:count, :, 0, 0] = masks[:, chosen].T
        best, share = _classify(model, images, seen_steps, len(written))
        classes[chosen] = written[best[:count]]
        confidence[chosen] = np.rint(100 * share[:count]).astype(np.uint8)
    return classes.reshape(height, width), confidence.reshape(height, width)


def _classify(
    model: nn.Module, images: Floats, valid: Bools, classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Index and softmax value of the best class of N pixels."""
    weight = next(model.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).to(device), torch.from_numpy(valid).to(device))[:, :, 0, 0]  # (N, K)
        if logits.shape[1] != classes:
            raise MdicoError(
                f"bundle: its model gives {logits.shape[1]} classes, its config names {classes}. Export it again."
            )
        share, best = logits.float().softmax(dim=1).max(dim=1)
    return best.cpu().numpy(), share.cpu().numpy()


@dataclass(frozen=True, slots=True)
class MapPlan:
    """One cube and one bundle that were found to fit: everything a worker needs, and nothing heavy."""

    cube: Path
    bundle: Path
    digest: str
    """Of the bundle: a worker refuses one that was swapped under the plan."""
    pixels: int

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
        bundle = _loaded(self.bundle)
        if bundle.config.digest != self.digest:
            raise MdicoError(f"bundle {self.bundle}: changed while the map was being made. Start the map again.")
        return bundle

    def predict(self, y: slice, x: slice) -> npt.NDArray[np.uint8]:
        """Read one window of the cube and map it: (2, h, w), class then confidence."""
        bundle = self.loaded
        values, valid = self.reader.read(bundle.config.modality, y, x)
        return np.stack(predict_block(bundle.model, values, valid, class_values(bundle), self.pixels))


def plan_map(cube: Path, bundle: Path, pixels: int = PIXELS) -> MapPlan:
    """Check that a bundle fits a cube before anything is built.

    Raises:
        MdicoError: no such cube or bundle, or bands, units or steps differ.
    """
    cube, bundle = Path(cube).resolve(), Path(bundle).resolve()
    reader = open_reader(cube)
    config = _loaded(bundle).config
    name = config.modality
    if name not in reader.modalities:
        raise MdicoError(
            f"cube {cube}: has no {name}, which bundle {bundle} maps with. It holds: {', '.join(reader.modalities)}."
        )
    check_fit(config, reader.modalities[name], reader.steps(name))
    return MapPlan(cube, bundle, config.digest, pixels)


def predict_map(cube: Path, bundle: Path, pixels: int = PIXELS) -> xr.Dataset:
    """The map of a whole cube, lazily: Dask blocks aligned with the cube's shards, each reading its own pixels.

    Only paths stand in the graph; each process opens the cube and loads the bundle once.

    Returns:
        Dataset of class(y, x) and confidence(y, x), uint8, 255 = no prediction, with x, y and spatial_ref.

    Raises:
        MdicoError: the bundle does not fit the cube.
    """
    plan = plan_map(cube, bundle, pixels)
    stack = lazy_stack(plan)
    facts = variable_attrs(plan.loaded)
    variables = {name: (("y", "x"), stack[i], facts[name]) for i, name in enumerate(facts)}
    coords = xr_coords(plan.reader.geobox, always_yx=True, dims=("y", "x"))
    return xr.Dataset(variables, coords, map_attrs(plan))


def lazy_stack(plan: MapPlan, strips: int = 1) -> da.Array:
    """Class and confidence as one lazy array (2, y, x).

    Its blocks are the cube's shards, each cut into this many strips of whole inner chunks, so that a few shards can
    keep many workers busy.
    """
    reader = plan.reader
    height, width = reader.shape
    side = -(-reader.shard // (strips * reader.chunk)) * reader.chunk
    rows = tuple(n for tall in blocks(height, reader.shard) for n in blocks(tall, side))
    meta = np.empty((0, 0, 0), np.uint8)
    return da.map_blocks(  # type: ignore[no-untyped-call,no-any-return]
        _predict, plan=plan, chunks=((2,), rows, blocks(width, reader.shard)), dtype=np.uint8, meta=meta
    )


def blocks(length: int, side: int) -> tuple[int, ...]:
    """Lengths of the blocks along one axis; the last may be shorter."""
    return tuple(min(side, length - start) for start in range(0, length, side))


def windows(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """Every shard of a raster as row and column slices, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def _predict(plan: MapPlan, block_info: Any = None) -> npt.NDArray[np.uint8]:
    _, y, x = block_info[None]["array-location"]
    return plan.predict(slice(*y), slice(*x))


def class_values(bundle: Bundle) -> tuple[int, ...]:
    """The map value of each class, in the order of the logits."""
    return tuple(item.value for item in bundle.config.classes)


def variable_attrs(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """CF attributes of the map's two variables, class first."""
    classes: tuple[LabelClass, ...] = tuple(bundle.config.classes)
    return {
        "class": {
            "long_name": "class",
            "flag_values": [item.value for item in classes],
            "flag_meanings": " ".join(item.name.strip().replace(" ", "_") for item in classes),
            "_FillValue": NODATA,
            "grid_mapping": "spatial_ref",
        },
        "confidence": {
            "long_name": "largest class probability",
            "units": "percent",
            "_FillValue": NODATA,
            "grid_mapping": "spatial_ref",
        },
    }


def map_attrs(plan: MapPlan) -> dict[str, Any]:
    """What a map says about itself: how it was made and with what."""
    config = plan.loaded.config
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
    }


def cube_digest(reader: CubeReader, modality: str) -> str:
    """SHA-256 of what a map depends on in a cube: the grid, the modality and what was written into each shard."""
    grid = [*reader.geobox.affine, *reader.shape, str(reader.geobox.crs)]
    digest = hashlib.sha256(repr((grid, reader.modalities[modality], reader.steps(modality))).encode())
    ledger = Ledger(reader.path, modality)
    states = ledger.states()
    for row, column in np.ndindex(*states.shape):
        digest.update(f"{states[row, column]} {ledger.read(row, column).digest}".encode())
    return digest.hexdigest()


_lock = threading.Lock()
_bundles: dict[Path, tuple[int, Bundle]] = {}


def _loaded(path: Path) -> Bundle:
    """A bundle from this process's cache, loaded where it is new or its files changed."""
    with _lock:
        stamp = max((file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()), default=0)
        if path not in _bundles or _bundles[path][0] != stamp:
            _bundles[path] = (stamp, load_bundle(path))
        return _bundles[path][1]
