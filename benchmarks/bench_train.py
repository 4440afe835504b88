"""How fast co-learning trains: MDiCo on 12 steps of two sensors, TempCNN, batches of 128, against a bare loop.

    python benchmarks/bench_train.py [--rounds 3] [--threads 1]

Every pair of figures is taken in turns in one process, as processor time divided by the threads, and the median of the
rounds counts. "Bare" is forward, backward and Adam's step of the same modules on batches that lie ready; "trained" is
what a user runs: `fit` with its loader, Lightning, loss records, validation, history and checkpoints, as the difference
between many epochs and few.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.utils.flop_counter import FlopCounterMode

from mdico_cube.batch import Batch
from mdico_cube.benchmarks.feed import SeriesLoader
from mdico_cube.colearn.losses import nt_xent
from mdico_cube.colearn.mdico import MDiCoPath
from mdico_cube.colearn.method import CoLearner
from mdico_cube.colearn.registry import get_method
from mdico_cube.colearn.trainer import fit
from mdico_cube.progress import console
from mdico_cube.recipe import ColearnSection
from mdico_cube.spec import Band, BandStats, InputSpec, LabelClass, Modality, Storage

STEPS, BATCH, ROWS, CLASSES = 12, 128, 4096, 8
BANDS = {"sentinel1": 2, "sentinel2": 10}
LEGEND = tuple(LabelClass(f"class {k}", k + 1, "#888888") for k in range(CLASSES))
FEW, MANY = 1, 4  # epochs


def make_section(epochs: int = 1, precision: str = "32-true") -> ColearnSection:
    """The recipe's defaults."""
    train = {"epochs": epochs, "batch": BATCH, "accelerator": "cpu", "precision": precision}
    return ColearnSection.model_validate({"modalities": tuple(BANDS), "train": train})


def make_inputs() -> dict[str, InputSpec]:
    """Two sensors of monthly series."""
    months = tuple(f"2021-{month:02d}-01" for month in range(1, STEPS + 1))
    inputs = {}
    for name, count in BANDS.items():
        bands = tuple(Band(f"b{i}", "1") for i in range(count))
        modality = Modality(name, name, bands, Storage("float32", 1.0, float("nan")))
        inputs[name] = InputSpec(modality, months, BandStats((0.0,) * count, (1.0,) * count, 1000))
    return inputs


def make_batch(rows: int) -> Batch:
    """Series with a fifth of the steps missing."""
    draw = torch.Generator().manual_seed(0)
    images = {m: torch.randn(rows, STEPS, c, 1, 1, generator=draw) for m, c in BANDS.items()}
    valid = {m: torch.rand(rows, STEPS, 1, 1, generator=draw) > 0.2 for m in BANDS}
    return Batch(images, valid, torch.randint(0, CLASSES, (rows, 1, 1), generator=draw))


def make_model(method: str = "mdico") -> CoLearner:
    """A fresh model in training mode."""
    torch.manual_seed(0)
    return get_method(method)(make_inputs(), CLASSES, make_section(), torch.ones(CLASSES)).train()


class Clock:
    """Processor seconds per thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __call__(self, work: Callable[[], object]) -> float:
        """Of one piece of work."""
        start = time.process_time()
        work()
        return (time.process_time() - start) / self.threads

    def turns(self, rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median of each, taken in turns after one round that does not count."""
        found: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(rounds + 1):
            for name, work in works.items():
                seconds = self(work)
                if turn:
                    found[name].append(seconds)
        return {name: statistics.median(seconds) for name, seconds in found.items()}


def bare_loop(model: CoLearner, batch: Batch, size: int = BATCH, bf16: bool = False) -> Callable[[], None]:
    """One epoch of forward, backward and step."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    parts = [batch.rows(start, start + size) for start in range(0, len(batch), size)]

    def epoch() -> None:
        for part in parts:
            adam.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = torch.stack(list(model.losses(part).values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()

    return epoch


def fitted(batch: Batch, epochs: int) -> Callable[[], None]:
    """A whole training, from nothing."""

    def work() -> None:
        loader = SeriesLoader(batch, torch.arange(len(batch)), BATCH, shuffle=True)
        watched = SeriesLoader(batch, torch.arange(BATCH), BATCH, shuffle=False)
        assert batch.target is not None
        counts = np.bincount(batch.target.flatten().numpy(), minlength=CLASSES).tolist()
        with tempfile.TemporaryDirectory() as folder:
            fit("mdico", make_inputs(), LEGEND, make_section(epochs), loader, watched, counts, Path(folder), 0)

    return work


def flops_of_epoch(batch: Batch) -> int:
    """Multiplications and additions of forward and backward over all rows."""
    model = make_model()
    with FlopCounterMode(display=False) as counter:
        torch.stack(list(model.losses(batch.rows(0, BATCH)).values())).sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops()) * len(batch) // BATCH


def matmul_peak(clock: Clock, rounds: int) -> float:
    """FLOP per second and thread-second of a large float32 product."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    return 2 * 1536**3 / clock.turns(rounds, {"mm": lambda: a @ b})["mm"]


def contrast(count: int) -> tuple[Tensor, Tensor]:
    """Two views of `count` embeddings."""
    draw = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, 64, generator=draw, requires_grad=True) for _ in range(2))  # type: ignore[return-value]


def contrast_times(clock: Clock, rounds: int) -> tuple[dict[str, float], float]:
    """Seconds of ours and the authors' way, forward and backward, and the largest difference of loss or gradient."""
    first, second = contrast(BATCH)
    theirs_loss = SelfSupervisedLoss(NTXentLoss(temperature=0.1))

    def gradients(loss: Tensor) -> list[Tensor]:
        return [loss.detach().view(1), *(g.flatten() for g in torch.autograd.grad(loss, (first, second)))]

    def ours() -> list[Tensor]:
        return gradients(nt_xent(first, second, 0.1))

    def theirs() -> list[Tensor]:
        return gradients(theirs_loss(first, second))

    apart = max(float((a - b).abs().max()) for a, b in zip(ours(), theirs(), strict=True))
    many = {"ours": lambda: [ours() for _ in range(20)], "theirs": theirs}
    found = clock.turns(rounds, many)
    return {"ours": found["ours"] / 20, "theirs": found["theirs"]}, apart


def saved_bytes(count: int) -> int:
    """What NT-Xent of `count` pairs keeps for its backward pass."""
    kept = 0

    def count_bytes(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        nt_xent(*contrast(count), 0.1)
    return kept


def twin_times(clock: Clock, rounds: int) -> dict[str, float]:
    """The two encoders of a sensor one after the other, and as one batched module, forward and backward."""
    batch, model = make_batch(BATCH), make_model()
    path = model.paths["sentinel2"]
    assert isinstance(path, MDiCoPath)
    twins = [path.encoder_unique, path.encoder_common]
    series, seen = path.inputs(batch.images["sentinel2"], batch.valid["sentinel2"]), batch.valid["sentinel2"]
    weights, buffers = stack_module_state(twins)  # type: ignore[arg-type]

    def together(parameters: dict[str, Tensor], states: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(twins[0], (parameters, states), (series, seen))
        return found

    batched = torch.vmap(together, randomness="different")

    def apart() -> None:
        for _ in range(10):
            torch.stack([twin(series, seen).sum() for twin in twins]).sum().backward()  # type: ignore[no-untyped-call]

    def fused() -> None:
        for _ in range(10):
            batched(weights, buffers).sum().backward()

    return clock.turns(rounds, {"apart": apart, "fused": fused})


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    console.quiet = True
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    clock, rounds, batch = Clock(options.threads), options.rounds, make_batch(ROWS)
    bare = bare_loop(make_model(), batch)
    few, many = fitted(batch, FEW), fitted(batch, MANY)
    epoch = clock.turns(rounds, {"bare": bare, "few": few, "many": many})
    trained = (epoch["many"] - epoch["few"]) / (MANY - FEW)
    peak, work = matmul_peak(clock, rounds), flops_of_epoch(batch)
    pair, apart = contrast_times(clock, rounds)
    twins = twin_times(clock, rounds)
    small = batch.rows(0, ROWS // 4)
    forms = clock.turns(rounds, {"32": bare_loop(make_model(), small), "16": bare_loop(make_model(), small, bf16=True)})
    plus = {m: bare_loop(make_model(m), small) for m in ("independent", "mdico-plus")}
    others = clock.turns(rounds, {**plus, "mdico": bare_loop(make_model(), small)})
    memory = [saved_bytes(count) for count in (512, 1024)]

    table = Table("", title=f"training, {options.threads} thread(s), {torch.__version__}")
    for title in ("measured", "goal", ""):
        table.add_column(title, justify="right")

    def row(name: str, measured: str, goal: str = "", reached: bool | None = None) -> None:
        table.add_row(name, measured, goal, "" if reached is None else "yes" if reached else "NO")

    share, gain = epoch["bare"] / trained, pair["theirs"] / pair["ours"]
    row("MDiCo, bare loop", f"{ROWS / epoch['bare']:,.0f} samples/s")
    row("MDiCo, trained with fit", f"{ROWS / trained:,.0f} samples/s")
    row("... of the bare loop", f"{share:.2f}", "0.90", share >= 0.9)
    row("matmul peak, float32", f"{peak / 1e9:,.0f} GFLOP/s")
    row("bare loop, of the peak", f"{work / epoch['bare'] / peak:.0%}")
    row("trained, of the peak", f"{work / trained / peak:.0%}")
    row("NT-Xent, batch 128, ours", f"{1e3 * pair['ours']:.2f} ms")
    row("... pytorch-metric-learning", f"{1e3 * pair['theirs']:.0f} ms")
    row("... times faster", f"{gain:,.0f}", "25", gain >= 25)
    row("... largest difference of loss and gradients", f"{apart:.1e}", "1e-05", apart <= 1e-5)
    row(
        "NT-Xent's memory at 1,024 pairs by 512",
        f"{memory[1] / memory[0]:.1f} (O(N^2): 4)",
        "4.2",
        memory[1] <= 4.2 * memory[0],
    )
    row(
        "twin encoders as one batched module", f"{twins['apart'] / twins['fused']:.2f} times as fast", "fused where > 1"
    )
    row("bf16 by float32", f"{forms['32'] / forms['16']:.2f} times as fast")
    for name, seconds in others.items():
        row(f"{name}, bare loop", f"{len(small) / seconds:,.0f} samples/s")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
