"""One sensor's model in, the same predictions several times faster out: for pixel series, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor, nn

from mdico_cube.colearn.backends import CPU, KINDS, ON_CARDS, compiled, row_model
from mdico_cube.colearn.chains import Affine, Chain, Chained, UnfoldableError, fold, joined
from mdico_cube.colearn.encoders.registry import halo_of
from mdico_cube.colearn.engines import Taps
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.int8 import Ranges
from mdico_cube.colearn.tapped import Tapped
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Engine, Precision

TOLERANCE: dict[Precision, float] = {"32-true": 1e-3, "bf16": 0.25, "fp16": 0.05, "int8": 0.75}
"""Largest difference of a logit from the plain model's, in standard deviations of the logits."""
CHECKED = 256
"""Random pixels a form is checked on."""


class SeriesModel(Protocol):
    """What a map needs of a model."""

    def __call__(self, values: Tensor, valid: Tensor) -> Tensor:
        """(T, C, N) float32 in physical units and (T, N) True = observed to logits (N, K) float32."""


def fast_form(
    model: nn.Module,
    precision: Precision = "32-true",
    backend: Engine = "torch",
    ranges: Ranges | None = None,
    pixels: int = CHECKED,
    device: torch.device = CPU,
    embedding: bool = False,
) -> nn.Module:
    """The fastest form of a sensor's model that gives its predictions: a SeriesModel.

    A path that says what it computes (`Chained`) is folded: only the encoders this sensor needs, batch norm and head
    multiplied in. Any other runs as it is, in torch. Before it is handed out it is compared with the plain model in
    float32 on random pixels (TOLERANCE); each form but the plain one.

    Args:
        model: in eval mode, images (B, T, C, H, W) and valid (B, T, H, W) to logits (B, K, H, W), pixel by pixel.
        precision: of the arithmetic. But for float32 the last map of each branch and the sum stay in float32.
        backend: what computes it.
        ranges: of the values inside the folded model, for int8, as `observe` gives them.
        pixels: that will go through at once; backends that prepare for one number are checked with it.
        device: where it computes, and where it takes its input.
        embedding: give (N, K + d), what the head reads behind the logits, from the same pass. The logits are the same.

    Raises:
        MdicoError: the model looks beyond the pixel, a backend that is not installed or does not know the precision or
            the model, or other predictions than the plain model's.
    """
    branched = folded(model)
    once = backend in ON_CARDS if branched is not None else backend == "torch"
    inside = embedding and once
    if branched is not None:
        taps = taps_of(model) if inside else None
        form: nn.Module = FoldedForm(*branched, precision, backend, ranges, taps, device)
    else:
        own = model if device.type == "cpu" else deepcopy(model)
        form = PlainForm(Tapped(model) if inside else own, precision, backend).to(device)
    if embedding and not once:
        form = Twice(form, PlainForm(Tapped(model)))
    if branched is not None or precision != "32-true" or backend != "torch" or device.type != "cpu":
        check_equal(form, model, precision, backend, pixels, device, embedding)
    return form


@torch.no_grad()
def folded(model: nn.Module) -> tuple[Chain, list[list[Affine]]] | None:
    """The chain of a model and its branches as affine maps with the head multiplied in; None where it has no such."""
    chain = model.chain() if isinstance(model, Chained) else None
    if chain is None:
        return None
    try:
        steps = chain.inputs.days.numel()
        return chain, _headed(chain, [fold(layers, steps) for layers in chain.branches])
    except UnfoldableError:
        return None


@torch.no_grad()
def taps_of(model: nn.Module) -> Taps:
    """Of a model that was folded: from what stands in front of each branch's last map to its part of the embedding."""
    chain = model.chain() if isinstance(model, Chained) else None
    assert chain is not None
    whole = [fold(layers, chain.inputs.days.numel()) for layers in chain.branches]
    return [
        maps[-1] if len(both) == len(maps) else None for maps, both in zip(whole, _headed(chain, whole), strict=True)
    ]


def check_equal(
    form: nn.Module,
    model: nn.Module,
    precision: Precision,
    backend: Engine,
    pixels: int,
    device: torch.device = CPU,
    embedding: bool = False,
) -> None:
    """Raise MdicoError unless a form gives the model's logits on random pixels, a quarter of their steps missing.

    With `embedding`, what its head reads too.
    """
    inputs = next(each for each in model.modules() if isinstance(each, Normalise))
    draw = torch.Generator().manual_seed(7)
    steps, bands = inputs.days.numel(), inputs.mean.numel()
    values = torch.randn(steps, bands, pixels, generator=draw) * inputs.std.cpu().view(-1, 1)
    values += inputs.mean.cpu().view(-1, 1)
    valid = torch.rand(steps, pixels, generator=draw) > 0.25
    with torch.inference_mode():
        expected = PlainForm(Tapped(model) if embedding else model)(values, valid)
        count = PlainForm(model)(values[..., :1], valid[:, :1]).shape[1]
        found = form(values.to(device), valid.to(device)).cpu()
    parts = [(each[:, :count], each[:, count:]) for each in (found, expected)]
    away = max(_away(one, other) for one, other in zip(*parts, strict=True) if one.shape[1])
    if not away <= TOLERANCE[precision]:
        raise MdicoError(
            f"maps.backend {backend} in {precision}: its logits lie up to {away:.2g} standard deviations from "
            f"the plain model's, at most {TOLERANCE[precision]:g} are allowed. Use backend torch and precision fp32."
        )


def _away(found: Tensor, expected: Tensor) -> float:
    """Largest difference in standard deviations of what is expected."""
    spread = max(float(expected.std()), 1e-3 * float(expected.abs().max()), 1e-6)
    return float((found - expected).abs().max()) / spread


class Twice(nn.Module):
    """A form that knows nothing of the embedding, and a second pass that gives it: (N, K + d)."""

    def __init__(self, form: nn.Module, both: nn.Module) -> None:
        super().__init__()
        self.form, self.both = form, both

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """As the form, with the embedding behind its logits."""
        logits: Tensor = self.form(values, valid)
        return torch.cat([logits.float(), self.both(values, valid)[:, logits.shape[1] :]], dim=1)


class PlainForm(nn.Module):
    """Any pixel model behind the series interface."""

    def __init__(self, model: nn.Module, precision: Precision = "32-true", backend: Engine = "torch") -> None:
        super().__init__()
        if halo_of(model):
            raise MdicoError(
                f"this model looks {halo_of(model)} pixels around each pixel and reads no single series: map with it "
                "block by block, or train an encoder of series, as tempcnn."
            )
        if backend in ("onnx", "openvino") or precision == "int8":
            asked = "precision int8" if precision == "int8" else f"maps.backend {backend}"
            raise MdicoError(
                f"{asked} is for models of convolutions and dense layers (encoders tempcnn and mlp), this has "
                "others. Use backend torch or compile in fp32 or bf16."
            )
        self.model = model
        self.kind = KINDS[precision]
        self.run: Callable[..., Tensor] = compiled(model) if backend == "compile" else model

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """See SeriesModel."""
        images = values.permute(2, 0, 1)[..., None, None].contiguous()  # (N, T, C, 1, 1)
        with torch.autocast(values.device.type, self.kind, enabled=self.kind != torch.float32):
            logits: Tensor = self.run(images, valid.t()[..., None, None])  # (N, K, 1, 1)
        return logits[:, :, 0, 0].float()


class FoldedForm(nn.Module):
    """A chain of affine maps, in whatever computes them."""

    def __init__(
        self,
        chain: Chain,
        branches: list[list[Affine]],
        precision: Precision = "32-true",
        backend: Engine = "torch",
        ranges: Ranges | None = None,
        taps: Taps | None = None,
        device: torch.device = CPU,
    ) -> None:
        super().__init__()
        self.maps = row_model(branches, precision, backend, ranges, taps, device)  # refuses what it does not know
        self.inputs = chain.inputs if device.type == "cpu" else deepcopy(chain.inputs).to(device)
        self.rest = nn.Sequential(*chain.head[1:])
        self.rest = self.rest if device.type == "cpu" else deepcopy(self.rest).to(device)
        self.classes = None if taps is None else len(branches[0][-1].bias)

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """See SeriesModel; (N, K + d) where the branches are tapped."""
        found = self.maps(self.inputs.rows(values, valid))
        if self.classes is None:
            logits: Tensor = self.rest(found)
            return logits
        return torch.cat([self.rest(found[:, : self.classes]), found[:, self.classes :]], dim=1)


def _headed(chain: Chain, branches: list[list[Affine]]) -> list[list[Affine]]:
    return _with_head(branches, chain.head[0])


def _with_head(branches: list[list[Affine]], head: nn.Module) -> list[list[Affine]]:
    """Each branch with its columns of the head: the sum of their outputs is the head of the joined branches."""
    if not isinstance(head, nn.Linear):
        raise UnfoldableError(type(head).__name__)
    widths = [len(maps[-1].bias) for maps in branches]
    bias = fold([head], 1)[0].bias
    columns = torch.split(head.weight.double(), widths, dim=1)
    biases = [bias, *(torch.zeros_like(bias) for _ in widths[1:])]
    return [joined([*maps, Affine(w, b)]) for maps, w, b in zip(branches, columns, biases, strict=True)]
