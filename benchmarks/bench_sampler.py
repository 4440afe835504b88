"""Samples per second that reach a trainer: from the cube, from the samples store, and as others do it, in one run.

Run: .venv/bin/python benchmarks/bench_sampler.py [--size 1024] [--rounds 3] [--workers 2] [--folder DIR]

One cube on disk, windows of 64 pixels x 12 months x (Sentinel-1 with 2 + Sentinel-2 with 10 bands). Everybody reads
with the same number of workers: processes for the others, started before the clock runs; threads for this project.
"cold" means that the files were dropped from the page cache before (posix_fadvise),
"warm" that they were read before. Rounds go by turns; figures are medians.

- plain zarr slicing: each window as `array[:, :, y, x]`, stored integers, dropped in the worker: the limit.
- direct: this project's loader over the cube: physical values and masks as tensors, shuffled, ready for the trainer.
- extracted: the same over a samples store, streamed, not held in memory.
- xbatcher: MapDataset over the cube opened with xarray, in torch's DataLoader.
- GeoTIFF: windows at random from one GeoTIFF per month and sensor through rasterio, files kept open, as torchgeo's
  RandomGeoSampler and RasterDataset do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
import torch
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table
from scipy.ndimage import zoom
from torch.utils.data import DataLoader, Dataset
from xbatcher import BatchGenerator
from xbatcher.loaders.torch import MapDataset

from mdico_cube.batch import Batch
from mdico_cube.colearn.trainer import fit
from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import open_cube
from mdico_cube.cube.store import create_cube
from mdico_cube.patches.cutting import sorted_windows
from mdico_cube.patches.dataset import make_loader
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import open_samples
from mdico_cube.patches.sources import CubeWindows, StoredWindows, WindowSource
from mdico_cube.patches.windows import Windows
from mdico_cube.period import Period
from mdico_cube.progress import console
from mdico_cube.recipe import ColearnSection, SampleSection
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import LabelClass

STEPS = Period("2021-01-01", "2021-12-31").steps()
MODALITIES = {"sentinel1": SENTINEL1, "sentinel2": SENTINEL2}
NAMES = tuple(MODALITIES)
SIDE, CHUNK, SHARD, BATCH = 64, 64, 512, 32
LEGEND = tuple(LabelClass(f"class {k}", k, "#888888") for k in range(1, 5))
WINDOW_BYTES = SIDE * SIDE * len(STEPS) * 12 * 2


@dataclass
class Case:
    """One line of the table."""

    name: str
    passes: Callable[[], Iterable[int]]
    """One epoch: how many samples each step brought."""
    files: Path
    """What it reads."""
    most: int = 1 << 30
    """Samples after which a timed pass stops."""
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Samples per second of one pass."""
        start, done = time.perf_counter(), 0
        for count in self.passes():
            done += count
            if done >= self.most:
                break
        return done / (time.perf_counter() - start)

    def time(self) -> None:
        """One cold and one warm pass."""
        forget(self.files)
        self.cold.append(self.run())
        self.warm.append(self.run())


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def values(modality: Any, side: int, draw: np.random.Generator) -> np.ndarray:
    """A smooth landscape with noise, and a quarter of Sentinel-2 under clouds: (T, C, side, side) as stored."""
    shape = (len(STEPS), len(modality.bands), side // 8, side // 8)
    smooth = zoom(draw.normal(0, 1, shape).astype("f4"), (1, 1, 8, 8), order=1)
    noise = draw.normal(0, 0.1, smooth.shape).astype("f4")
    if modality is SENTINEL1:
        return modality.storage.pack(3 * smooth - 12 + 8 * noise)
    stored = modality.storage.pack(0.2 + 0.06 * smooth + 0.03 * noise)
    cloud = zoom(draw.random((len(STEPS), side // 64, side // 64)), (1, 64, 64), order=0) < 0.25
    stored[cloud[:, None].repeat(stored.shape[1], axis=1)] = modality.storage.missing
    return stored


def write_world(folder: Path, size: int) -> tuple[Path, Path]:
    """The cube, with labels in stripes, and the same pixels as GeoTIFFs: one per sensor and month."""
    cube, tiffs = folder / "cube.zarr", folder / "tiffs"
    count = -(-size // SHARD)
    geobox = GeoBox((size, size), Affine(10, 0, 600000, 0, -10, 5600000), "EPSG:32631")
    create_cube(cube, geobox, [Layer(m, STEPS) for m in MODALITIES.values()], CHUNK, SHARD, {}, (count, count))
    draw = np.random.default_rng(0)
    tiffs.mkdir()
    for name, modality in MODALITIES.items():
        array: Any = zarr.open_group(cube, mode="r+")[f"{name}/{modality.variable}"]
        for row, column in np.ndindex(count, count):
            y, x = (slice(i * SHARD, min((i + 1) * SHARD, size)) for i in (row, column))
            array[..., y, x] = values(modality, SHARD, draw)[..., : y.stop - y.start, : x.stop - x.start]
            Ledger(cube, name, "r+").record(row, column, Entry(DONE, digest=f"{row}-{column}"))
        for month in range(len(STEPS)):
            with rasterio.open(
                tiffs / f"{name}-{month}.tif", "w", driver="GTiff", width=size, height=size,
                count=len(modality.bands), dtype=modality.storage.dtype, crs="EPSG:32631", transform=geobox.affine,
                tiled=True, blockxsize=256, blockysize=256, compress="deflate", nodata=modality.storage.missing,
            ) as file:  # fmt: skip
                file.write(array[month])
    rows, columns = np.mgrid[0:size, 0:size]
    parcel = (rows // 16 * (size // 16) + columns // 16 + 1).astype(np.int32)
    write_labels(cube, (columns // SIDE % len(LEGEND)).astype(np.uint8), parcel, LEGEND, {})
    return cube, tiffs


def grid(size: int) -> Windows:
    """Every window of the grid."""
    y, x = (a.ravel().astype(np.int64) for a in np.meshgrid(*[np.arange(0, size - SIDE + 1, SIDE)] * 2, indexing="ij"))
    return Windows(y, x, np.ones(y.size, np.uint8), np.zeros(y.size, np.int64), SIDE)


def anywhere(size: int, count: int, side: int = SIDE) -> Windows:
    """Windows at random positions."""
    y, x = np.random.default_rng(1).integers(0, size - side + 1, (2, count))
    return Windows(y, x, np.ones(count, np.uint8), np.zeros(count, np.int64), side)


class Ours:
    """This project's loader over a source; each pass has a loader of its own, so that none is begun early."""

    def __init__(self, source: WindowSource, workers: int, batch: int = BATCH) -> None:
        self.source, self.workers, self.batch, self.epoch = source, workers, batch, 0

    def __call__(self) -> Iterable[int]:
        """The next epoch."""
        self.epoch += 1
        return (len(batch) for batch in make_loader(self.source, self.batch, self.epoch, self.workers))


@lru_cache(maxsize=1)
def arrays(cube: Path) -> list[Any]:
    root: Any = zarr.open_group(cube, mode="r")
    return [root[f"{name}/{modality.variable}"] for name, modality in MODALITIES.items()]


class PlainZarr(Dataset[int]):
    """Windows of the cube by zarr alone; nothing is handed over."""

    def __init__(self, cube: Path, windows: Windows) -> None:
        self.cube, self.windows = cube, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> int:
        y, x = int(self.windows.y[index]), int(self.windows.x[index])
        for array in arrays(self.cube):
            np.asarray(array[:, :, y : y + SIDE, x : x + SIDE])
        return 1


class Sequential(Dataset[int]):
    """The samples store by zarr alone, shard after shard; nothing is handed over."""

    def __init__(self, samples: Path) -> None:
        self.samples = samples
        root: Any = zarr.open_group(samples, mode="r")
        self.count, self.step = root[NAMES[0]].shape[0], root[NAMES[0]].shards[0]

    def __len__(self) -> int:
        return -(-self.count // self.step)

    def __getitem__(self, index: int) -> int:
        root: Any = zarr.open_group(self.samples, mode="r")
        rows = slice(index * self.step, min((index + 1) * self.step, self.count))
        for name in NAMES:
            np.asarray(root[name][rows])
        return rows.stop - rows.start


@lru_cache(maxsize=64)
def opened(path: Path) -> Any:
    return rasterio.open(path)


class GeoTiffs(Dataset[tuple[torch.Tensor, ...]]):
    """Windows through rasterio, one read per sensor and month."""

    def __init__(self, folder: Path, windows: Windows) -> None:
        self.folder, self.windows = folder, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        window = Window(int(self.windows.x[index]), int(self.windows.y[index]), SIDE, SIDE)
        months = range(len(STEPS))
        stacks = [np.stack([opened(self.folder / f"{n}-{m}.tif").read(window=window) for m in months]) for n in NAMES]
        return tuple(torch.from_numpy(stack.astype(np.float32)) for stack in stacks)


def torch_loader(dataset: Dataset[Any], workers: int, batch: int | None = BATCH) -> Callable[[], Iterable[int]]:
    """Torch's DataLoader with persistent workers."""
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: (_count(batch) for batch in loader)


def _count(batch: Any) -> int:
    """Samples of a batch: a list of tensors, or the counts that a limit hands over."""
    if isinstance(batch, list | tuple):
        return len(batch[0])
    return int(batch.sum()) if isinstance(batch, torch.Tensor) else int(batch)


def xbatcher_data(cube: Path) -> MapDataset:
    """Both sensors through xarray and Dask."""
    dask.config.set(scheduler="synchronous")
    tree = open_cube(cube)
    one, two = (
        BatchGenerator(tree[name].to_dataset()[modality.variable], {"y": SIDE, "x": SIDE}, preload_batch=False)
        for name, modality in MODALITIES.items()
    )
    return MapDataset(one, two)


def cases(folder: Path, size: int, workers: int, section: SampleSection) -> tuple[list[Case], list[Case], list[Case]]:
    """(windows on the grid, windows anywhere, pixel series)."""
    cube, tiffs = write_world(folder, size)
    windows = sorted_windows(grid(size), CHUNK)
    samples = extract_samples(cube, folder / "samples.zarr", NAMES, section)
    pixels = extract_samples(cube, folder / "pixels" / "samples.zarr", NAMES, SampleSection(per_class=16384, block=128))
    store, series = open_samples(samples), open_samples(pixels)
    folds = (1, 2, 3)
    regular = [
        Case("plain zarr slicing (the limit)", torch_loader(PlainZarr(cube, windows), workers), cube),
        Case("direct", Ours(CubeWindows(cube, windows, NAMES), workers), cube),
        Case("sequential zarr read of the store", torch_loader(Sequential(samples), workers, None), samples),
        Case("extracted", Ours(StoredWindows(store, folds, NAMES, hold=False), workers), samples),
        Case("xbatcher + DataLoader", torch_loader(xbatcher_data(cube), workers, BATCH // 4), cube, 64),
        Case("GeoTIFF windows + DataLoader", torch_loader(GeoTiffs(tiffs, windows), workers, BATCH // 4), tiffs, 64),
    ]
    free = anywhere(size, 2 * len(windows))
    random = [
        Case("plain zarr slicing (the limit)", torch_loader(PlainZarr(cube, free), workers), cube, len(windows)),
        Case("direct", Ours(CubeWindows(cube, free, NAMES), workers), cube),
        Case("GeoTIFF windows + DataLoader", torch_loader(GeoTiffs(tiffs, free), workers, BATCH // 4), tiffs, 64),
    ]
    whole = np.arange(min(size, 512))
    y, x = (a.ravel() for a in np.meshgrid(whole, whole, indexing="ij"))
    dense = Windows(y, x, np.ones(y.size, np.uint8), np.zeros(y.size, np.int64), 1)
    single = [
        Case("direct, every pixel", Ours(CubeWindows(cube, dense, NAMES), workers, 1024), cube),
        Case("extracted", Ours(StoredWindows(series, folds, NAMES, hold=False), workers, 1024), pixels),
        Case("extracted, held in memory", Ours(StoredWindows(series, folds, NAMES), workers, 1024), pixels),
    ]
    return regular, random, single


def training(folder: Path, workers: int, direct: bool) -> float:
    """Share of the step time that a TempCNN waits for pixel series: the worst of two epochs."""
    store = open_samples(folder / "pixels" / "samples.zarr")
    rows = store.where(1)[::8]
    target = np.asarray(store.array("target").oindex[rows])
    source: WindowSource = CubeWindows(folder / "cube.zarr", store.windows(rows), NAMES, target)
    if not direct:
        source = StoredWindows(store, (1,), NAMES, hold=False)
    section = ColearnSection(modalities=NAMES, train={"epochs": 2, "accelerator": "cpu", "loggers": (), "batch": 256})
    check = CubeWindows(folder / "cube.zarr", store.windows(rows[:256]), NAMES, target[:256])
    counts = np.bincount(store.label[rows], minlength=len(LEGEND)).tolist()
    loaders = (Few(make_loader(source, 256, 0, workers), 30), make_loader(check, 256))
    run = fit("independent", store.inputs, LEGEND, section, *loaders, counts, folder / "model", 0)
    return max(float(row["data_wait"]) for row in run.history)


class Few:
    """The first batches of a loader."""

    def __init__(self, loader: Any, most: int) -> None:
        self.loader, self.most = loader, min(most, len(loader))
        self.dataset, self.set_epoch, self.begin = loader.dataset, loader.set_epoch, loader.begin

    def __len__(self) -> int:
        return self.most

    def __iter__(self) -> Iterable[Batch]:  # type: ignore[misc]
        batches = iter(self.loader)
        for _ in range(self.most):
            yield next(batches)


def measure(turns: list[Case], rounds: int) -> None:
    """By turns, after one pass of each that starts its workers."""
    for case in turns:
        case.run()
    for _ in range(rounds):
        for case in turns:
            case.time()


def table(title: str, unit: str, turns: list[Case], size: float = 0.0) -> Table:
    """Figures of some cases; `size` is the bytes of one sample as stored."""
    found = Table(title, *(f"{unit}, {kind}" for kind in ("cold", "warm")), *(["MB/s as stored, warm"] if size else []))
    for column in found.columns[1:]:
        column.justify = "right"
    for case in turns:
        cold, warm = statistics.median(case.cold), statistics.median(case.warm)
        found.add_row(case.name, f"{cold:,.0f}", f"{warm:,.0f}", *([f"{warm * size / 1e6:,.0f}"] if size else []))
    return found


def goals(regular: list[Case], random: list[Case], single: list[Case], waits: dict[str, float]) -> Table:
    """Every goal beside its figure."""
    by = {f"{kind} {case.name}": case for kind, group in (("grid", regular), ("any", random)) for case in group}

    def ratio(one: str, two: str) -> list[float]:
        pairs = ((by[one].cold, by[two].cold), (by[one].warm, by[two].warm))
        return [statistics.median(a / b for a, b in zip(*pair, strict=True)) for pair in pairs]

    limit = "plain zarr slicing (the limit)"
    lines = [
        ("direct / xbatcher", 10.0, ratio("grid direct", "grid xbatcher + DataLoader")),
        ("direct / plain zarr slicing", 0.7, ratio("grid direct", f"grid {limit}")),
        ("direct / plain zarr slicing, windows anywhere", 0.7, ratio("any direct", f"any {limit}")),
        ("extracted / sequential zarr read", 0.8, ratio("grid extracted", "grid sequential zarr read of the store")),
    ]
    found = Table("goal", "wanted", "cold", "warm", "met", title="goals")
    for name, wanted, (cold, warm) in lines:
        met = "yes" if min(cold, warm) >= wanted else "no"
        found.add_row(name, f">= {wanted:g}", f"{cold:.2f}", f"{warm:.2f}", met)
    for case in single[:2]:
        cold, warm = statistics.median(case.cold), statistics.median(case.warm)
        met = "yes" if min(cold, warm) >= 200_000 else "no"
        found.add_row(f"pixel series, {case.name}", ">= 200,000/s", f"{cold:,.0f}", f"{warm:,.0f}", met)
    for name, wait in waits.items():
        found.add_row(f"data wait, TempCNN, {name}", "< 5 %", "", f"{wait:.1%}", "yes" if wait < 0.05 else "no")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the synthetic cube in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of every loader")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    console.quiet = True
    warnings.filterwarnings("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    show = Console(width=120)
    section = SampleSection(patch=SIDE, per_class=100_000, block=SIDE, guard=0, min_valid=0)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        regular, random, single = cases(folder, options.size, options.workers, section)
        written = time.perf_counter() - begin
        for turns in (regular, random, single):
            measure(turns, options.rounds)
        waits = {n: training(folder, options.workers, d) for n, d in (("direct", True), ("extracted", False))}
        title = f"64 px x {len(STEPS)} months x 12 bands, {options.workers} workers"
        show.print(table(f"windows on the grid, {title}", "samples/s", regular, WINDOW_BYTES))
        show.print(table(f"windows anywhere, {title}", "samples/s", random, WINDOW_BYTES))
        show.print(table("pixel series", "series/s", single))
        show.print(goals(regular, random, single, waits))
    total = time.perf_counter() - begin
    show.print(f"{total:.0f} s, of which {written:.0f} s to write the data; {os.cpu_count()} processors")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
