"""Pixels per second of a map: the hardware's peak, the model alone in each form, then whole maps from disk to disk.

Run: .venv/bin/python benchmarks/bench_predict.py [--size 1024] [--rounds 7] [--folder DIR] [--kernel-only]

Everything is timed in one run, by turns; the table gives medians. Peak and kernel run on one thread, as each worker of
a map does; "per processor" counts processor seconds of all threads, the figure to read on a machine that others use
too. A share of the peak compares the operations of the unfolded model with what matrix products of the same precision
reach here. The reference way of mapping is the module as trained, all of its heads computed, handed to map_blocks as an
argument, one block after another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import torch
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mdico_cube.colearn.bundle import load_bundle, save_bundle
from mdico_cube.colearn.fast import PlainForm, fast_form
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.maps.write import write_map
from mdico_cube.progress import console
from mdico_cube.recipe import ColearnSection
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass, Period

STEPS = Period("2021-01-01", "2021-12-31").steps()
OPTICAL = replace(SENTINEL2, bands=(*SENTINEL2.bands, Band("extra1", "1"), Band("extra2", "1")))
"""Twelve bands, as the figures of the literature have."""
CLASSES = tuple(LabelClass(f"class {k}", k, "#888888") for k in range(1, 11))
MODALITIES = {"sentinel2": OPTICAL, "sentinel1": SENTINEL1}


@dataclass
class Case:
    """One line of the table."""

    name: str
    run: Callable[[], object]
    pixels: int
    flops: float = 0.0
    """Multiplications and additions per pixel of the model as trained."""
    peak: str = ""
    """Name of the case whose operations per second are the ceiling."""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self) -> None:
        """One more round."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    @property
    def per_processor(self) -> float:
        """Pixels per processor-second."""
        return self.pixels / statistics.median(self.cpu)

    @property
    def per_second(self) -> float:
        """Pixels per second of wall time."""
        return self.pixels / statistics.median(self.wall)


def make_model(width: int) -> tuple[nn.Module, dict[str, InputSpec], ColearnSection]:
    """Untrained MDiCo of two sensors whose batch norms have seen random series."""
    section = ColearnSection(modalities=tuple(MODALITIES), methods=("mdico",), encoder={"width": width})
    inputs = {name: InputSpec(each, STEPS, stats(each.bands)) for name, each in MODALITIES.items()}
    torch.manual_seed(0)
    return get_method("mdico")(inputs, len(CLASSES), section, None).eval(), inputs, section


def stats(bands: tuple[Band, ...]) -> BandStats:
    return BandStats((0.2,) * len(bands), (0.1,) * len(bands), 1000)


def write_bundle(folder: Path, width: int = 128) -> Path:
    """The bundle of sentinel2."""
    model, inputs, section = make_model(width)
    row = {"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "val_f1": 0.5, **{f"val_f1_{m}": 0.5 for m in inputs}}
    trained = TrainedModel(model, "mdico", inputs, CLASSES, section, [row], 0, 10, (1,) * len(CLASSES), 1.0, 0)
    return save_bundle(folder, trained, "sentinel2")


def write_cube(folder: Path, size: int, shard: int) -> Path:
    """Random reflectances with a third of the steps hidden, written shard by shard."""
    count = -(-size // shard)
    geobox = GeoBox((size, size), Affine(10, 0, 600000, 0, -10, 5600000), "EPSG:32631")
    create_cube(folder, geobox, [Layer(OPTICAL, STEPS)], 64, shard, {}, (count, count))
    array = zarr.open_group(folder, mode="r+")[f"{OPTICAL.name}/{OPTICAL.variable}"]
    draw = np.random.default_rng(0)
    for row, column in np.ndindex(count, count):
        y, x = (slice(i * shard, min((i + 1) * shard, size)) for i in (row, column))
        block = draw.integers(500, 5000, (len(STEPS), len(OPTICAL.bands), y.stop - y.start, x.stop - x.start))
        block[(draw.random(block[:, :1].shape) < 1 / 3).repeat(block.shape[1], axis=1)] = OPTICAL.storage.missing
        array[:, :, y, x] = block.astype(OPTICAL.storage.dtype)
        Ledger(folder, OPTICAL.name, "r+").record(row, column, Entry(DONE, digest=f"{row}-{column}"))
    return folder


def peak_cases() -> list[Case]:
    """Matrix products as large as the dense layers: what the processor gives at best through torch."""
    rows, inner, out = 8192, 1536, 512
    cases = []
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(rows, inner).to(kind), torch.randn(out, inner).to(kind)
        run = _product(a, b)
        cases.append(Case(f"matrix product {name}", run, rows, 2.0 * inner * out, f"matrix product {name}"))
    return cases


def _product(a: Tensor, b: Tensor) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.inference_mode():
            return F.linear(a, b)

    return run


def kernel_cases(model: nn.Module, pixels: int) -> list[Case]:
    """The model alone on series in memory, gap filling included."""
    steps, bands = len(STEPS), len(OPTICAL.bands)
    draw = torch.Generator().manual_seed(1)
    values = 0.2 + 0.1 * torch.randn(steps, bands, pixels, generator=draw)
    valid = torch.rand(steps, pixels, generator=draw) > 1 / 3
    flops = count_flops(model, steps, bands)
    forms = {
        f"eager, {pixels} at once": (PlainForm(model), pixels, "fp32"),
        "eager, 1024 at once": (PlainForm(model), 1024, "fp32"),
        "fast fp32": (fast_form(model), 1024, "fp32"),
        "fast bf16": (fast_form(model, "bf16"), 1024, "bf16"),
    }
    return [
        Case(name, _batches(form, values, valid, batch), pixels, flops, f"matrix product {kind}")
        for name, (form, batch, kind) in forms.items()
    ]


def _batches(form: nn.Module, values: Tensor, valid: Tensor, batch: int) -> Callable[[], object]:
    parts = [
        (a.contiguous(), b.contiguous()) for a, b in zip(values.split(batch, 2), valid.split(batch, 1), strict=True)
    ]

    def run() -> None:
        with torch.inference_mode():
            for series, seen in parts:
                form(series, seen)

    return run


def count_flops(model: nn.Module, steps: int, bands: int) -> float:
    """Operations per pixel of the module as it stands."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(2, steps, bands, 1, 1), torch.ones(2, steps, 1, 1, dtype=torch.bool))
    return counter.get_total_flops() / 2


def map_cases(folder: Path, size: int, shard: int, bundle: Path) -> list[Case]:
    """Whole maps, from the cube on disk to the map on disk."""
    cube = write_cube(folder / "cube.zarr", size, shard)
    flops, pixels = count_flops(load_bundle(bundle).model, len(STEPS), len(OPTICAL.bands)), size * size

    def fast(precision: str) -> Callable[[], object]:
        target = folder / f"{precision}.zarr"
        return lambda: write_map(cube, bundle, target, overwrite=True, precision=precision)  # type: ignore[arg-type]

    return [
        Case("write_map, reference way", lambda: reference_map(cube, folder), pixels, flops, "matrix product fp32"),
        Case("write_map fp32", fast("32-true"), pixels, flops, "matrix product fp32"),
        Case("write_map bf16", fast("bf16"), pixels, flops, "matrix product bf16"),
    ]


def reference_map(cube: Path, folder: Path) -> None:
    """The plain way: module and cube as map_blocks arguments, all heads, one block after another."""
    model, _, _ = make_model(128)
    reader = open_reader(cube)
    sides = [tuple(min(reader.shard, n - i) for i in range(0, n, reader.shard)) for n in reader.shape]
    stack = da.map_blocks(
        reference_block, model, cube, chunks=((2,), *sides), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    group = zarr.open_group(folder / "reference.zarr", mode="w")
    target = group.create_array("map", shape=stack.shape, dtype="uint8", chunks=(2, reader.shard, reader.shard))
    with dask.config.set(scheduler="synchronous"):
        da.store(stack, target, lock=False)


def reference_block(model: nn.Module, cube: Path, block_info: dict | None = None) -> np.ndarray:
    """Class and confidence of one block in batches of 8,192 pixels."""
    _, y, x = (slice(*span) for span in block_info[None]["array-location"])
    values, valid = open_reader(cube).read("sentinel2", y, x)
    height, width = valid.shape[1:]
    images = torch.from_numpy(values).flatten(2).permute(2, 0, 1)[..., None, None]  # (N, T, C, 1, 1)
    seen = torch.from_numpy(valid).flatten(1).t()[..., None, None]
    found = [all_heads(model, a, b) for a, b in zip(images.split(8192), seen.split(8192), strict=True)]
    return torch.cat(found, dim=1).view(2, height, width).numpy()


def all_heads(model: nn.Module, images: Tensor, valid: Tensor) -> Tensor:
    """(2, N) uint8; what the training needs is computed as well."""
    with torch.inference_mode():
        path = model.paths["sentinel2"]
        spaces = path.embed(images.contiguous(), valid)
        for head, z in ((model.auxiliary, spaces.specific), (model.auxiliary, spaces.shared)):
            head(z)
        model.discriminate_specific(spaces.specific), model.discriminate_unused(spaces.unused)
        share, best = path.classify(spaces)[:, :, 0, 0].softmax(dim=1).max(dim=1)
    return torch.stack([best + 1, (100 * share).round()]).to(torch.uint8)


def measure(cases: list[Case], rounds: int, warm: bool = True) -> None:
    """By turns, so that whatever else the machine does falls on all of them."""
    if warm:
        for case in cases:
            case.run()
    for _ in range(rounds):
        for case in cases:
            case.time()


def table(title: str, cases: list[Case], against: str, peaks: dict[str, Case]) -> Table:
    """Pixels per second, share of the peak and ratio to one line."""
    found = Table("form", title=title)
    for column in ("per processor", "share of peak", "ratio", "GFLOP/s", "by the wall clock", "ratio"):
        found.add_column(column, justify="right", no_wrap=True)
    base = next(case for case in cases if case.name == against)
    for case in cases:
        peak = peaks[case.peak]
        operations = case.per_processor * case.flops
        found.add_row(
            case.name,
            f"{case.per_processor:,.0f}",
            f"{operations / (peak.per_processor * peak.flops):.0%}",
            f"{case.per_processor / base.per_processor:.2f}",
            f"{operations / 1e9:.0f}",
            f"{case.per_second:,.0f}",
            f"{case.per_second / base.per_second:.2f}",
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the synthetic cube in pixels")
    parser.add_argument("--shard", type=int, default=512, help="side of a shard in pixels")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of the kernel; maps take a third of them")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--kernel-only", action="store_true", help="no maps")
    options = parser.parse_args()
    console.quiet = True
    torch.set_num_threads(1)
    show = Console(width=120)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        bundle = write_bundle(folder / "bundle")
        model = load_bundle(bundle).model
        peaks = peak_cases()
        cases = [*peaks, *kernel_cases(model, 8192)]
        measure(cases, options.rounds)
        by_name = {case.name: case for case in peaks}
        flops = cases[-1].flops / 1e6
        title = f"MDiCo single(sentinel2), {len(STEPS)} steps x {len(OPTICAL.bands)} bands, {flops:.2f} MFLOP per pixel"
        show.print(table(f"{title}, one thread", cases, "eager, 8192 at once", by_name))
        if not options.kernel_only:
            maps = map_cases(folder, options.size, options.shard, bundle)
            torch.set_num_threads(os.cpu_count() or 1)
            measure(maps, max(1, options.rounds // 3), warm=False)
            lines = [*cases[-2:], *maps]
            title = f"maps of {options.size} x {options.size} pixels, disk to disk, {os.cpu_count()} processors"
            show.print(table(title, lines, "write_map, reference way", by_name))
            for case, kernel in zip(maps[1:], cases[-2:], strict=True):
                part = case.per_processor / kernel.per_processor
                show.print(f"{case.name}: {part:.2f} of the kernel's pixels per processor-second")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
