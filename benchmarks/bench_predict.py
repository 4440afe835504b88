"""Pixels per second of a map: the hardware's peak, the model alone in each form, then whole maps from disk to disk.

Run: .venv/bin/python benchmarks/bench_predict.py [--size 1024] [--shard 256] [--rounds 7] [--folder DIR]
     [--only kernel|maps|memory|workers ...] [--forms fp32 bf16 int8] [--compile]

The parts can be run one by one: `kernel` is the model alone in each form; `maps` whole maps against it and against the
reference way; `workers` one against two; `memory` the peak of 16384 against 4096 pixels. Peaks are measured with kernel
and maps alike.

Everything is timed in one run, by turns; the table gives medians. Peak and kernel run on one thread, as each worker of
a map does; "per processor" counts processor seconds of all threads, the figure to read on a machine that others use
too. A share of the peak compares the operations of the unfolded model with what the best of several matrix products of
the same precision reaches in the same run. The reference way of mapping is the module as trained, all of its heads
computed, handed to map_blocks as an argument, one block after another; it maps one part of the cube, as its speed does
not depend on the size. The model is trained for a moment on simulated series, so that 8-bit integers are judged on a
model that tells classes apart. Memory is the child's own peak, with a source that makes its blocks up and a model that
does next to nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
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

from mdico_cube.colearn.backends import ABLE
from mdico_cube.colearn.bundle import change_config, load_bundle, save_bundle
from mdico_cube.colearn.bundle_config import Quantisation
from mdico_cube.colearn.fast import PlainForm, fast_form, folded
from mdico_cube.colearn.int8 import observe, quantise_weight
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.maps.forms import Loaded
from mdico_cube.maps.write import write_map
from mdico_cube.period import Period
from mdico_cube.progress import console
from mdico_cube.recipe import ColearnSection, MapOptions
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass

STEPS = Period("2021-01-01", "2021-12-31").steps()
OPTICAL = replace(SENTINEL2, bands=(*SENTINEL2.bands, Band("extra1", "1"), Band("extra2", "1")))
"""Twelve bands, as the figures of the literature have."""
CLASSES = tuple(LabelClass(f"class {k}", k, "#888888") for k in range(1, 11))
PARTS, FORMS = ["kernel", "maps", "workers", "memory"], ["fp32", "bf16", "int8"]
MODALITIES = {"sentinel2": OPTICAL, "sentinel1": SENTINEL1}
Goal = tuple[str, str, float, bool]
"""What, how much of it is wanted, how much was found, and whether that reaches it."""


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


def simulated(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Series (T, C, N) with noise and gaps, what was observed (T, N), and their classes (N,)."""
    draw = torch.Generator().manual_seed(99)
    curves = 0.2 + 0.08 * torch.randn(len(CLASSES), len(STEPS), len(OPTICAL.bands), generator=draw)
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(CLASSES), (count,), generator=draw)
    values = curves[labels].permute(1, 2, 0) + 0.1 * torch.randn(*curves.shape[1:], count, generator=draw)
    return values.contiguous(), torch.rand(len(STEPS), count, generator=draw) > 1 / 3, labels


def train_a_moment(path: nn.Module, steps: int = 60, batch: int = 256) -> None:
    """So that the twins differ and the logits tell the classes apart."""
    path.train()
    optimiser = torch.optim.AdamW(path.parameters(), 1e-3)
    for step in range(steps):
        values, valid, labels = simulated(batch, step)
        logits = path(values.permute(2, 0, 1)[..., None, None], valid.t()[..., None, None])[:, :, 0, 0]
        optimiser.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
    path.eval()


def stats(bands: tuple[Band, ...]) -> BandStats:
    return BandStats((0.2,) * len(bands), (0.1,) * len(bands), 1000)


def write_bundle(folder: Path, width: int = 128) -> Path:
    """The bundle of sentinel2."""
    model, inputs, section = make_model(width)
    train_a_moment(model.single("sentinel2"))
    row = {"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "val_f1": 0.5, **{f"val_f1_{m}": 0.5 for m in inputs}}
    trained = TrainedModel(model, "mdico", inputs, CLASSES, section, [row], 0, 10, (1,) * len(CLASSES), 1.0, 0)
    save_bundle(folder, trained, "sentinel2")
    calibrate(folder)
    return folder


def calibrate(folder: Path) -> None:
    """8-bit ranges from some series, changed classes from others."""
    path = load_bundle(folder).model
    chain, branches = folded(path)
    values, valid, _ = simulated(16384, 1000)
    ranges = observe(branches, chain.inputs.rows(values, valid))
    values, valid, _ = simulated(16384, 1001)
    with torch.inference_mode():
        exact = fast_form(path)(values, valid).argmax(dim=1)
        rough = fast_form(path, "int8", ranges=ranges)(values, valid).argmax(dim=1)
    changed = float((exact != rough).float().mean())
    change_config(folder, int8=Quantisation(ranges=ranges, pixels=16384, changed=changed, counted=16384))


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
    """Matrix products of several shapes: what the processor gives at best through torch."""
    cases = []
    for rows, inner, out in ((8192, 1536, 512), (1024, 1536, 512), (1024, 1024, 1024), (2048, 640, 128)):
        for name, run in _products(rows, inner, out).items():
            cases.append(Case(f"{name} {rows}x{inner}x{out}", run, rows, 2.0 * inner * out, name))
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        image = torch.randn(512, 128, 1, 16).to(kind).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 1, 5).to(kind).contiguous(memory_format=torch.channels_last)
        run = partial(F.conv2d, image, weight)
        cases.append(Case(f"{name} convolution 128 to 128", run, 512 * 12, 2.0 * 5 * 128 * 128, name))
    return cases


def best_peaks(cases: list[Case]) -> dict[str, Case]:
    """Precision -> the product with the most operations per second."""
    names = dict.fromkeys(case.peak for case in cases)
    return {name: max((c for c in cases if c.peak == name), key=lambda c: c.per_processor * c.flops) for name in names}


def _products(rows: int, inner: int, out: int) -> dict[str, Callable[[], object]]:
    a, b = torch.randn(rows, inner), torch.randn(out, inner)
    low = a.bfloat16(), b.bfloat16()
    coded, step = quantise_weight(b)
    ops, zeros, bytes_ = torch.ops.onednn, torch.zeros(out, dtype=torch.int64), (a * 20 + 128).clamp(0, 255).byte()
    packed = ops.qlinear_prepack(coded, [rows, inner])
    about = (0.05, 128, packed, step, zeros, None, 1.0, 0, torch.uint8, "none", [], "")
    return {
        "fp32": lambda: F.linear(a, b),
        "bf16": lambda: F.linear(*low),
        "int8": lambda: ops.qlinear_pointwise(bytes_, *about),
    }


def kernel_cases(folder: Path, pixels: int, compile_too: bool) -> list[Case]:
    """The model alone on series in memory, gap filling included."""
    loaded = load_bundle(folder)
    model, ranges = loaded.model, loaded.config.int8.ranges
    values, valid, _ = simulated(pixels, 2000)
    flops = count_flops(model, len(STEPS), len(OPTICAL.bands))
    forms = {
        f"eager, {pixels} at once": (PlainForm(model), pixels, "fp32"),
        "eager, 1024 at once": (PlainForm(model), 1024, "fp32"),
    }
    for precision, name in (("32-true", "fp32"), ("bf16", "bf16"), ("int8", "int8")):
        for backend, able in ABLE.items():
            if precision in able and (compile_too or backend != "compile"):
                at_once = MapOptions(precision=precision).at_once
                try:
                    form = fast_form(model, precision, backend, ranges, at_once)
                except MdicoError as error:
                    console.print(f"left out: {error}")
                    continue
                forms[f"{backend} {name}"] = (form, at_once, name)
    return [
        Case(name, _batches(form, values, valid, n), pixels, flops, kind) for name, (form, n, kind) in forms.items()
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


def fast_map(cube: Path, bundle: Path, target: Path, precision: str, alone: bool = False) -> None:
    """A map by what `mdico predict` does; `alone` = by one worker, on one processor."""
    everywhere = os.sched_getaffinity(0)
    if alone:
        os.sched_setaffinity(0, {min(everywhere)})
    try:
        write_map(cube, bundle, target, overwrite=True, precision=precision, device="cpu")
    finally:
        os.sched_setaffinity(0, everywhere)


def map_cases(folder: Path, size: int, cube: Path, bundle: Path, forms: list[str]) -> list[Case]:
    """Whole maps, from the cube on disk to the map on disk."""
    side = min(size, 384)
    part = write_cube(folder / "part.zarr", side, side)
    flops, pixels = count_flops(load_bundle(bundle).model, len(STEPS), len(OPTICAL.bands)), size * size
    return [
        Case("write_map, reference way", partial(reference_map, part, folder), side**2, flops, "fp32"),
        *(
            Case(
                f"write_map {form}", partial(fast_map, cube, bundle, folder / f"{form}.zarr", form), pixels, flops, form
            )
            for form in forms
        ),
    ]


def worker_cases(folder: Path, size: int, cube: Path, bundle: Path, form: str) -> list[Case]:
    """The same map by all workers and by one."""
    flops = count_flops(load_bundle(bundle).model, len(STEPS), len(OPTICAL.bands))
    every, one = (
        partial(fast_map, cube, bundle, folder / f"workers-{alone}.zarr", form, alone) for alone in (False, True)
    )
    return [
        Case(f"write_map {form}", every, size * size, flops, form),
        Case(f"write_map {form}, one worker on one processor", one, size * size, flops, form),
    ]


def peak_memory(size: int) -> float:
    """Megabytes that a process takes at most to map a made-up cube of this size."""
    found = subprocess.run([sys.executable, __file__, "--memory-of", str(size)], check=True, capture_output=True)
    return float(found.stdout.split()[-1])


def map_made_up(folder: Path, size: int) -> None:
    """A map of a cube whose blocks are made up, by a model that does next to nothing."""
    shard, steps = 512, 4
    count = -(-size // shard)
    bundle = write_bundle(folder / "bundle", width=8)
    geobox = GeoBox((size, size), Affine(10, 0, 600000, 0, -10, 5600000), "EPSG:32631")
    cube = folder / "cube.zarr"
    create_cube(cube, geobox, [Layer(OPTICAL, STEPS)], 64, shard, {}, (count, count))
    ledger = Ledger(cube, OPTICAL.name, "r+")
    for row, column in np.ndindex(count, count):
        ledger.record(row, column, Entry(DONE, digest="made-up"))

    def stored(reader: CubeReader, modality: str, y: slice, x: slice) -> np.ndarray:
        return np.full((steps, 3, y.stop - y.start, x.stop - x.start), 2000, np.uint16)

    CubeReader.stored = stored  # type: ignore[method-assign]
    Loaded.scorer = lambda self, options, device: lambda values, valid: values[0, :1].t().expand(-1, len(CLASSES))  # type: ignore
    write_map(cube, bundle, folder / "map.zarr", pixels=65536, device="cpu")


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
    parser.add_argument("--shard", type=int, default=256, help="side of a shard in pixels")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of the kernel; maps take a third of them")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; default: all")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="arithmetic of the maps; default: all")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes to compile")
    parser.add_argument("--memory-sizes", nargs=2, type=int, default=(4096, 16384), help="sides of the made-up cubes")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    console.quiet = True
    torch.set_num_threads(1)
    show = Console(width=120)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        if options.memory_of:
            map_made_up(folder, options.memory_of)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        goals: list[Goal] = []
        for part in [part for part in PARTS if part in options.only]:
            console.quiet = True
            goals += measured_part(part, folder, options, show)
        show.print(goal_table(goals))
    sys.stdout.flush()


def measured_part(part: str, folder: Path, options: argparse.Namespace, show: Console) -> list[Goal]:
    """One part: its table is printed, its goals come back."""
    if part == "memory":
        small, large = options.memory_sizes
        peaks = [peak_memory(size) for size in (small, large)]
        show.print(f"peak memory: {peaks[0]:.0f} MB at {small} x {small}, {peaks[1]:.0f} MB at {large} x {large}")
        growth = peaks[1] / peaks[0]
        return [(f"peak memory, {large} against {small}", "at most 1.10", growth, growth <= 1.1)]
    bundle = folder / "bundle" if (folder / "bundle").exists() else write_bundle(folder / "bundle")
    if part == "kernel":
        products, kernel = peak_cases(), kernel_cases(bundle, 8192, options.compile)
        measure([*products, *kernel], options.rounds)
        peaks = best_peaks(products)
        title = f"MDiCo single(sentinel2), {len(STEPS)} steps x {len(OPTICAL.bands)} bands, "
        title += f"{kernel[0].flops / 1e6:.2f} MFLOP per pixel, one thread"
        show.print(table(title, [*peaks.values(), *kernel], kernel[0].name, peaks))
        return kernel_goals(kernel, peaks, load_bundle(bundle).config.int8)
    cube = folder / "cube.zarr"
    if not cube.exists():
        write_cube(cube, options.size, options.shard)
    torch.set_num_threads(os.cpu_count() or 1)
    rounds = max(1, options.rounds // 5)
    where = f"{options.size} x {options.size} pixels, disk to disk, {os.cpu_count()} processors"
    if part == "workers":
        cases = worker_cases(folder, options.size, cube, bundle, options.forms[-1])
        measure(cases, rounds, warm=False)
        torch.set_num_threads(1)
        gain = cases[0].per_second / cases[1].per_second
        shown = " ".join(f"{case.name} {case.per_second:,.0f} pixels/s." for case in cases)
        show.print(f"workers, {where}: {shown}")
        return [(f"{os.cpu_count()} workers against one, wall clock", "at least 1.80", gain, gain >= 1.8)]
    products = peak_cases()
    maps = map_cases(folder, options.size, cube, bundle, options.forms)
    torch.set_num_threads(1)
    kernel = [case for case in kernel_cases(bundle, 8192, False) if case.name.startswith(("eager, 8192", "torch "))]
    measure([*products, *kernel], 3)
    for _ in range(rounds):  # the kernel between the maps, so that both meet the same machine
        torch.set_num_threads(os.cpu_count() or 1)
        measure(maps, 1, warm=False)
        torch.set_num_threads(1)
        measure(kernel, 1, warm=False)
    show.print(table(f"maps of {where}", [*kernel, *maps], "write_map, reference way", best_peaks(products)))
    return map_goals(kernel, maps, options.forms)


def kernel_goals(kernel: list[Case], peaks: dict[str, Case], int8: Quantisation) -> list[Goal]:
    """Share of the peak of each precision, by the default backend and by the best."""
    found = []
    for name, least in (("fp32", 0.85), ("bf16", 0.85), ("int8", 0.80)):
        peak = peaks[name].per_processor * peaks[name].flops
        shares = {c.name: c.per_processor * c.flops / peak for c in kernel if c.name.endswith(f" {name}")}
        best = max(shares, key=lambda each: shares[each])
        for each in dict.fromkeys((f"torch {name}", best)):
            found.append((f"{each}: share of the peak", f"at least {least:.2f}", shares[each], shares[each] >= least))
    found.append(("int8: share of classes changed", "at most .005", int8.changed, int8.changed <= 0.005))
    return found


def map_goals(kernel: list[Case], maps: list[Case], forms: list[str]) -> list[Goal]:
    """Maps against the kernel and the reference way."""
    by = {case.name: case for case in [*kernel, *maps]}
    reference, found = by["write_map, reference way"], []
    for name in forms:
        made = by[f"write_map {name}"]
        part = made.per_processor / by[f"torch {name}"].per_processor
        found.append((f"map {name}: of the kernel's pixels per processor-second", "at least .90", part, part >= 0.9))
        times = made.per_processor / reference.per_processor
        found.append((f"map {name}: times the reference way, per processor-second", "at least 4", times, times >= 4))
    return found


def goal_table(goals: list[Goal]) -> Table:
    found = Table("goal", "wanted", "found", "reached")
    for name, wanted, figure, reached in goals:
        found.add_row(name, wanted, f"{figure:.3f}", "yes" if reached else "no")
    return found


if __name__ == "__main__":
    main()
