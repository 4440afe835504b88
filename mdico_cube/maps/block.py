"""One block's arrays and a model in, every layer of its map out: pure, batch by batch of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdico_cube.colearn.fast import SeriesModel
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import ImageModel, Input, Tiling, blend
from mdico_cube.maps.outputs import NO_SENSOR, NODATA, Bytes, Layers, count_observations, encode
from mdico_cube.spec import Bools, Floats

PIXELS = 1024
"""Pixels of one mini-batch: small enough to stay in a processor's cache."""
_PLAIN = Layers()
Scorer = Callable[..., Tensor]
"""(T, C, N) physical and (T, N) observed of each sensor in turn, to scores (N, F) as `encode` takes them."""


def predict_block(
    model: SeriesModel,
    values: Floats,
    valid: Bools,
    class_values: tuple[int, ...],
    pixels: int = PIXELS,
    layers: Layers = _PLAIN,
    wanted: Bools | None = None,
) -> Bytes:
    """Class, confidence and the wanted extras of every pixel of one block, one sensor alone.

    Every mini-batch has the same shape (the last one is filled up), so that a pixel's result does not depend on which
    block it lies in, nor on which of its pixels are wanted.

    Args:
        model: (T, C, N) physical and (T, N) observed to scores (N, F): the logits, as `fast_form` gives them, and with
            applicability the distance as one column more.
        values: (T, C, h, w) physical units, 0 where missing.
        valid: (T, h, w) True = observed.
        class_values: the map value of each of the K classes.
        pixels: pixels that go through the model at once.
        layers: what to give beyond class and confidence.
        wanted: (h, w) True = to be mapped; None = all.

    Returns:
        (L, h, w) in the order of `mdico_cube.maps.outputs.variables`; 255 where no step was observed or not wanted.
    """
    return predict_together(model, ((values, valid),), class_values, pixels, layers, wanted)


def predict_together(
    model: Scorer,
    inputs: Sequence[Input],
    class_values: tuple[int, ...],
    pixels: int = PIXELS,
    layers: Layers = _PLAIN,
    wanted: Bools | None = None,
) -> Bytes:
    """The same with several sensors: a pixel is mapped where any of them was observed."""
    shape = inputs[0][1].shape[1:]
    observed = seen(inputs) if wanted is None else seen(inputs) & wanted
    series = [(values.reshape(*values.shape[:2], -1), valid.reshape(len(valid), -1)) for values, valid in inputs]
    stack = _empty(class_values, layers, shape[0] * shape[1])
    batches = [_batch(values, pixels) for values, _ in series]
    places = np.flatnonzero(observed)
    for start in range(0, len(places), pixels):
        chosen = places[start : start + pixels]
        count = len(chosen)
        place = slice(chosen[0], chosen[-1] + 1) if chosen[-1] - chosen[0] + 1 == count else chosen
        for (image, mask), (values, valid) in zip(batches, series, strict=True):
            image[..., :count], mask[:, :count] = values[..., place], valid[:, place]
        with torch.inference_mode():
            scores = model(*(torch.from_numpy(part) for batch in batches for part in batch))  # (N, F)
        encoded = _encoded(scores, class_values, layers)
        stack[: len(encoded), place] = encoded[:, :count]
    return _finished(stack.reshape(-1, *shape), inputs, layers, wanted)


def predict_windows(
    model: ImageModel,
    inputs: Sequence[Input],
    corner: tuple[int, int],
    block: tuple[slice, slice],
    tiling: Tiling,
    class_values: tuple[int, ...],
    layers: Layers = _PLAIN,
    wanted: Bools | None = None,
) -> Bytes:
    """The same for a model that looks at neighbours, in blended windows of the cube's own grid.

    Args:
        model: scores (1, F, S, S) of one window.
        inputs: values and masks of each sensor, of the block and what its windows read around it.
        corner: row and column of the arrays' first pixel in the cube.
        block: rows and columns of the cube that are asked for.
        tiling: the windows.
        class_values: the map value of each of the K classes.
        layers: what to give beyond class and confidence.
        wanted: (h, w) of the block, True = to be mapped; None = all.

    Returns:
        (L, h, w) as `predict_block`.
    """
    inner = tuple(slice(axis.start - at, axis.stop - at) for axis, at in zip(block, corner, strict=True))
    own = [(values[..., inner[0], inner[1]], valid[:, inner[0], inner[1]]) for values, valid in inputs]
    observed = seen(own) if wanted is None else seen(own) & wanted
    stack = _empty(class_values, layers, observed.size).reshape(-1, *observed.shape)
    scores = blend(model, inputs, corner, block, observed, tiling)  # (F, h, w)
    if observed.any():
        rows = torch.from_numpy(np.ascontiguousarray(scores[:, observed].T))  # (N, F)
        encoded = _encoded(rows, class_values, layers)
        stack[: len(encoded), observed] = encoded
    return _finished(stack, own, layers, wanted)


def seen(inputs: Sequence[Input]) -> Bools:
    """(h, w) True where any sensor was observed at any step."""
    found = inputs[0][1].any(axis=0)
    for _, valid in inputs[1:]:
        found = found | valid.any(axis=0)
    return np.asarray(found)


def _batch(values: Floats, pixels: int) -> tuple[Any, Any]:
    steps, bands = values.shape[:2]
    return np.zeros((steps, bands, pixels), np.float32), np.zeros((steps, pixels), np.bool_)


def _empty(class_values: tuple[int, ...], layers: Layers, count: int) -> Bytes:
    return np.full((stack_depth(len(class_values), layers), count), NODATA, np.uint8)


def stack_depth(classes: int, layers: Layers) -> int:
    """Layers of a block's stack."""
    extras = (layers.entropy, layers.applicability, layers.abstain is not None, layers.observations, layers.sensors)
    return 2 + classes * layers.probabilities + sum(map(bool, extras))


def _encoded(scores: Tensor, class_values: tuple[int, ...], layers: Layers) -> Bytes:
    """(L, N) bytes of scores (N, F)."""
    came = scores.shape[1] - layers.applicability
    if came != len(class_values):
        raise MdicoError(
            f"bundle: its model gives {came} classes, its config names {len(class_values)}. Export it again."
        )
    with torch.inference_mode():
        found: Bytes = encode(scores, torch.tensor(class_values, dtype=torch.uint8), layers).numpy()
    return found


def _finished(stack: Bytes, inputs: Sequence[Input], layers: Layers, wanted: Bools | None) -> Bytes:
    """The stack with the layers that do not follow from scores: observations, and the sensors that were fused."""
    last = -1
    if layers.sensors:
        bits = [valid.any(axis=0).astype(np.uint8) << bit for bit, (_, valid) in enumerate(inputs)]
        stack[last] = np.bitwise_or.reduce(bits) if layers.fused else NO_SENSOR
        last -= 1
    if layers.observations:
        stack[last] = count_observations(np.concatenate([valid for _, valid in inputs]))
    if wanted is not None:
        stack[:, ~wanted] = NODATA
    return stack
