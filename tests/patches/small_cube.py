"""A small cube on disk from arrays: the same pixels whatever its chunks and shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.store import create_cube
from mdico_cube.sensors.dem import MODALITY as DEM
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import LabelClass

STEPS = ("2021-04-01", "2021-05-01", "2021-06-01")
NAMES = ("sentinel1", "sentinel2", "dem")
LAYERS = (
    Layer(SENTINEL1, STEPS),
    Layer(SENTINEL2.select(("B04", "B08")), STEPS),
    Layer(DEM.select(("elevation",)), ("",)),
)
LEGEND = tuple(LabelClass(name, i + 1, "#000000") for i, name in enumerate(("wheat", "maize", "grass")))


def grid(shape: tuple[int, int]) -> GeoBox:
    return GeoBox(shape, Affine(10, 0, 600000, 0, -10, 5600440), "EPSG:32631")


def small_cube(
    path: Path,
    label: npt.NDArray[np.uint8],
    parcel: npt.NDArray[np.int32] | None = None,
    chunk: int = 8,
    shard: int = 16,
    missing: float = 0.3,
) -> Path:
    """Write a cube of three sensors; a share of the optical observations is missing, and one corner wholly."""
    shape = (label.shape[0], label.shape[1])
    shards = (-(-shape[0] // shard), -(-shape[1] // shard))
    create_cube(path, grid(shape), LAYERS, chunk, shard, {}, shards)
    generator = np.random.default_rng(7)
    for layer in LAYERS:
        modality = layer.modality
        array = zarr.open_group(path, mode="r+")[f"{modality.name}/{modality.variable}"]
        values = generator.normal(0.3, 0.05, array.shape)
        if modality.name == "sentinel2":
            values[generator.random(array.shape) < missing] = np.nan
            values[..., :6, :9] = np.nan
        array[...] = modality.storage.pack(values)
        for row, column in np.ndindex(*shards):
            Ledger(path, modality.name, "r+").record(row, column, Entry(DONE, digest=f"{row}-{column}"))
    write_labels(path, label, parcel, LEGEND, {})
    return path


def patchwork(shape: tuple[int, int], seed: int = 0, gaps: float = 0.1) -> npt.NDArray[np.uint8]:
    """Fields of 3 x 4 pixels of three classes, some pixels unlabelled."""
    generator = np.random.default_rng(seed)
    fields = generator.integers(0, 3, (shape[0] // 3 + 1, shape[1] // 4 + 1))
    label = fields.repeat(3, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]].astype(np.uint8)
    label[generator.random(shape) < gaps] = 255
    return label
