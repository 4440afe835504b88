"""A small real run: a cube with labels, two methods' bundles, folds. Nothing is faked but the folds' file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from mdico_cube.batch import Batch
from mdico_cube.colearn.applicability import references
from mdico_cube.colearn.bundle import CONFIG, save_bundle
from mdico_cube.colearn.bundle_config import read_config
from mdico_cube.colearn.joint import save_joint
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.tasks import FIGURE, Scale
from mdico_cube.colearn.trained import UNSCALED
from mdico_cube.colearn.trainer import TrainedModel
from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.maps.write import map_path, write_map
from mdico_cube.progress import console
from mdico_cube.recipe import ColearnSection
from mdico_cube.sensors.dem import MODALITY as DEM
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import BandStats, InputSpec, LabelClass, Modality

SHAPE, CHUNK, SHARD = (44, 52), 8, 16  # 3 x 4 shards, the last of each row and column cut
STEPS = ("2021-04-01", "2021-05-01", "2021-06-01", "2021-07-01")
CLASSES = (
    LabelClass("wheat", 1, "#e8c547"),
    LabelClass("maize & beet", 2, "#f08a24"),
    LabelClass("forest", 4, "#2e7d32"),
)
MODALITIES = {
    "sentinel1": SENTINEL1,
    "sentinel2": SENTINEL2.select(("B02", "B03", "B04", "B08")),
    "dem": DEM,
}


@dataclass(frozen=True)
class Run:
    """Where things are, and the folds that the split gives."""

    out: Path
    folds: np.ndarray
    shape: tuple[int, int] = SHAPE
    chunk: int = CHUNK
    shard: int = SHARD
    classes: tuple[LabelClass, ...] = CLASSES

    @property
    def cube(self) -> Path:
        return self.out / "cube.zarr"

    @property
    def reader(self) -> CubeReader:
        return open_reader(self.cube)

    @property
    def everything(self) -> tuple[slice, slice]:
        return slice(0, SHAPE[0]), slice(0, SHAPE[1])

    def make_cube(self, path: Path, seed: int) -> None:
        make_cube(path, seed)

    def make_bundles(
        self, folder: Path, method: str, seed: int, encoder: dict[str, object] | None = None, **facts: Any
    ) -> None:
        make_bundles(folder, method, seed, encoder, **facts)

    def bundle(self, modality: str = "sentinel2", method: str = "mdico", seed: int = 0) -> Path:
        return self.out / "bundles" / method / f"seed-{seed}" / modality


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(console, "quiet", True)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny batches are faster on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _master(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    make_cube(out / "cube.zarr")
    for method in ("independent", "mdico"):
        for seed in (0, 1):
            make_bundles(out / "bundles" / method / f"seed-{seed}", method, seed)
    return out


@pytest.fixture(scope="session")
def _mapped_master(_master, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mapped") / "run"
    shutil.copytree(_master, out)
    console.quiet = True
    for modality in ("sentinel1", "sentinel2"):
        for method in ("independent", "mdico"):
            for seed in (0, 1):
                bundle = out / "bundles" / method / f"seed-{seed}" / modality
                write_map(out / "cube.zarr", bundle, map_path(out, method, modality, seed), pixels=256)
    console.quiet = False
    return out


@pytest.fixture
def run(_master, tmp_path, monkeypatch) -> Run:
    """A copy of the run that a test may change."""
    return copy_of(_master, tmp_path / "run", monkeypatch)


@pytest.fixture
def mapped(_mapped_master, tmp_path, monkeypatch) -> Run:
    """The same with a map of every method, sensor and seed."""
    return copy_of(_mapped_master, tmp_path / "run", monkeypatch)


def copy_of(master: Path, out: Path, monkeypatch) -> Run:
    shutil.copytree(master, out)
    folds = np.ones(SHAPE, np.uint8)
    folds[:, 20:36] = 3
    folds[:, 16:20] = 0
    for module in ("evaluate", "gallery", "task_gallery"):
        split = SimpleNamespace(folds=lambda reader, y, x: folds[y, x])
        monkeypatch.setattr(f"mdico_cube.maps.{module}.open_split", lambda path, split=split: split)
    return Run(out, folds)


def make_cube(path: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    geobox = GeoBox(SHAPE, Affine(10, 0, 600000, 0, -10, 5600440), "EPSG:32631")
    layers = [Layer(m, STEPS if m.temporal else ("",)) for m in MODALITIES.values()]
    grid = (-(-SHAPE[0] // SHARD), -(-SHAPE[1] // SHARD))
    create_cube(path, geobox, layers, CHUNK, SHARD, {}, grid)
    truth = make_truth()
    reader = CubeReader(path)
    for layer in layers:
        _fill(path, reader, layer.modality, truth, rng)
        for row, column in np.ndindex(*grid):
            Ledger(path, layer.modality.name, "r+").record(row, column, Entry(DONE, digest=f"{seed}-{row}-{column}"))
    labels = truth.astype(np.uint8)
    labels[:3] = 255
    write_labels(path, labels, None, CLASSES, {})


def make_truth() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((y // 7 + x // 9) % len(CLASSES)).astype(np.int16)


def _fill(path: Path, reader: CubeReader, modality: Modality, truth: np.ndarray, rng: np.random.Generator) -> None:
    array = zarr.open_group(path, mode="r+")[f"{modality.name}/{modality.variable}"]
    lead = array.shape[:-2]
    level, spread = {"reflectance": (0.2, 0.05), "dB": (-12.0, 2.0), "m": (80.0, 9.0)}[modality.units[0]]
    values = level + spread * (0.6 * truth + rng.normal(size=(*lead, *SHAPE)))
    if modality.name == "sentinel2":
        values[rng.random((*lead[:1], 1, *SHAPE)).repeat(lead[1], axis=1) < 0.3] = np.nan
        values[:, :, 5:9, 30:44] = np.nan  # never observed
    array[...] = modality.storage.pack(values)


def make_bundles(
    folder: Path,
    method: str,
    seed: int,
    encoder: dict[str, object] | None = None,
    task: dict[str, object] | None = None,
    classes: tuple[LabelClass, ...] = CLASSES,
    scale: Scale = UNSCALED,
) -> None:
    """Bundles of untrained networks: what they predict is arbitrary, but it is a real function of the pixels."""
    section = ColearnSection(
        modalities=("sentinel1", "sentinel2"),
        methods=(method,),
        encoder={"width": 8, "hidden": 6, "dense": 12, **(encoder or {})},
        task=task or {},
    )
    inputs = {}
    for name in section.modalities:
        modality = MODALITIES[name]
        count = len(modality.bands)
        mean = (0.2,) * count if name == "sentinel2" else (-12.0,) * count
        std = (0.05,) * count if name == "sentinel2" else (2.0,) * count
        inputs[name] = InputSpec(modality, STEPS, BandStats(mean, std, 100))
    torch.manual_seed(seed + 10 * (method == "mdico"))
    model = get_method(method)(inputs, len(classes), section, None).eval()
    for name in section.modalities:
        _balance(model.single(name), inputs[name], len(classes))
    figure = f"val_{FIGURE[section.task.kind][0]}"
    row = {
        "epoch": 0,
        "train_loss": 1.0,
        "val_loss": 1.0,
        figure: 0.5,
        f"{figure}_sentinel1": 0.5,
        f"{figure}_sentinel2": 0.7,
    }
    trained = TrainedModel(
        model, method, inputs, classes, section, [row], 0, 10, (4, 3, 3)[: len(classes)], 1.0, seed, scale
    )
    draw = torch.Generator().manual_seed(seed)
    batches = [_windows(inputs, 60, draw) for _ in range(2)]
    known = references({name: model.single(name) for name in inputs}, batches[:1], batches[1:], len(classes))
    for name in section.modalities:
        save_bundle(folder / name, trained, name, reference=known[name])
    save_joint(folder / "fused", trained, {name: read_config(folder / name / CONFIG) for name in inputs})


def _windows(inputs: dict[str, InputSpec], count: int, draw: torch.Generator) -> Batch:
    images, valid = {}, {}
    for name, spec in inputs.items():
        mean, std = (torch.tensor(values)[:, None, None] for values in (spec.stats.mean, spec.stats.std))
        images[name] = mean + std * torch.randn(count, len(STEPS), len(spec.stats.mean), 1, 1, generator=draw)
        valid[name] = torch.ones(count, len(STEPS), 1, 1, dtype=torch.bool)
    return Batch(images, valid, torch.arange(count).view(-1, 1, 1) % len(CLASSES))


def _balance(model: torch.nn.Module, spec: InputSpec, classes: int = len(CLASSES)) -> None:
    """An untrained network says the same class everywhere: make its head stronger and its mean logits equal."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.stats.mean, spec.stats.std))
    images = mean + std * torch.randn(200, len(STEPS), len(spec.stats.mean), 1, 1)
    valid = torch.ones(200, len(STEPS), 1, 1, dtype=torch.bool)
    heads = [parameter for parameter in model.parameters() if parameter.shape[0] == classes]
    with torch.no_grad():
        for parameter in heads:
            parameter *= 20
        excess = model(images, valid).mean(dim=(0, 2, 3))
        for parameter in heads:
            if parameter.dim() == 1:
                parameter -= excess
