"""One block's arrays and a model in, every layer of its map out: pure, batch by batch of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdico_cube.colearn.fast import SeriesModel
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import ImageModel, Tiling, blend
from mdico_cube.maps.encode import encode
from mdico_cube.maps.feed import Room, feed
from mdico_cube.maps.gathered import Input
from mdico_cube.maps.outputs import NO_SENSOR, NODATA, Bytes, Layers, count_observations, stack_depth
from mdico_cube.maps.window_cache import Windows
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
    return predict_together(model, (Input(values, valid),), class_values, pixels, layers, wanted)


def predict_together(
    model: Scorer,
    inputs: Sequence[Input],
    class_values: tuple[int, ...],
    pixels: int | Room = PIXELS,
    layers: Layers = _PLAIN,
    wanted: Bools | None = None,
) -> Bytes:
    """The same with several sensors: a pixel is mapped where any of them was observed.

    `pixels` may be a room: a device, where the model then lies too, and the pixels that go at once there.
    """
    room = pixels if isinstance(pixels, Room) else Room(most=pixels)
    shape = inputs[0].valid.shape[1:]
    observed = seen(inputs) if wanted is None else seen(inputs) & wanted
    series = [
        Input(one.values.reshape(*one.values.shape[:2], -1), one.valid.reshape(len(one.valid), -1), one.scale)
        for one in inputs
    ]
    stack = _empty(class_values, layers, shape[0] * shape[1])
    places = np.flatnonzero(observed)

    def shapes(count: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        sizes = [one.values.shape[:2] for one in series]
        return [each for t, c in sizes for each in (((t, c, count), torch.float32), ((t, count), torch.bool))]

    def fill(arrays: Sequence[Any], start: int, stop: int) -> None:
        place, count = _place(places[start:stop]), stop - start
        for image, mask, one in zip(arrays[::2], arrays[1::2], series, strict=True):
            one.write((place,), image[..., :count], mask[:, :count])

    score = _encoder(model, class_values, layers, room.device)
    for start, stop, encoded in feed(score, room, shapes, len(places), fill):
        stack[: len(encoded), _place(places[start:stop])] = encoded[:, : stop - start]
    return _finished(stack.reshape(-1, *shape), inputs, layers, wanted)


def _place(chosen: Any) -> Any:
    """Positions as a slice where they are one run: copying is then faster."""
    run = chosen[-1] - chosen[0] + 1 == len(chosen)
    return slice(chosen[0], chosen[-1] + 1) if run else chosen


def predict_windows(
    model: ImageModel,
    inputs: Sequence[Input],
    corner: tuple[int, int],
    block: tuple[slice, slice],
    tiling: Tiling,
    class_values: tuple[int, ...],
    layers: Layers = _PLAIN,
    wanted: Bools | None = None,
    room: Room | None = None,
    known: Windows | None = None,
) -> Bytes:
    """The same for a model that looks at neighbours, in blended windows of the cube's own grid.

    Args:
        model: scores (B, F, S, S) of windows.
        inputs: of each sensor, of the block and what its windows read around it.
        corner: row and column of the arrays' first pixel in the cube.
        block: rows and columns of the cube that are asked for.
        tiling: the windows.
        class_values: the map value of each of the K classes.
        layers: what to give beyond class and confidence.
        wanted: (h, w) of the block, True = to be mapped; None = all.
        room: device, where the model lies too, and the windows that go at once there; None = this processor.
        known: windows that were computed for other blocks; None = none is kept.

    Returns:
        (L, h, w) as `predict_block`.
    """
    y, x = (slice(axis.start - at, axis.stop - at) for axis, at in zip(block, corner, strict=True))
    own = [one.cut(y, x) for one in inputs]
    observed = seen(own) if wanted is None else seen(own) & wanted
    stack = _empty(class_values, layers, observed.size).reshape(-1, *observed.shape)
    scores = blend(model, inputs, corner, block, observed, tiling, room, known)  # (F, h, w)
    if observed.any():
        rows = torch.from_numpy(np.ascontiguousarray(scores[:, observed].T))  # (N, F)
        with torch.inference_mode():
            encoded = _encoder(lambda scores: scores, class_values, layers, rows.device)(rows).numpy()
        stack[: len(encoded), observed] = encoded
    return _finished(stack, own, layers, wanted)


def seen(inputs: Sequence[Input]) -> Bools:
    """(h, w) True where any sensor was observed at any step."""
    found = inputs[0].valid.any(axis=0)
    for one in inputs[1:]:
        found = found | one.valid.any(axis=0)
    return np.asarray(found)


def _empty(class_values: tuple[int, ...], layers: Layers, count: int) -> Bytes:
    return np.full((stack_depth(len(class_values), layers), count), NODATA, np.uint8)


def _encoder(
    model: Scorer, class_values: tuple[int, ...], layers: Layers, device: torch.device
) -> Callable[..., Tensor]:
    """From a batch to (L, N) bytes, on the model's device: less is copied back than scores would be."""
    values = torch.tensor(class_values, dtype=torch.uint8, device=device)

    def run(*parts: Tensor) -> Tensor:
        scores = model(*parts)  # (N, F)
        came = scores.shape[1] - layers.applicability
        if came != len(class_values):
            raise MdicoError(
                f"bundle: its model gives {came} {_WHAT[layers.task]}, its config names {len(class_values)}. "
                "Export it again."
            )
        return encode(scores, values, layers)

    return run


_WHAT = {"classes": "classes", "multilabel": "labels", "regression": "values"}


def _finished(stack: Bytes, inputs: Sequence[Input], layers: Layers, wanted: Bools | None) -> Bytes:
    """The stack with the layers that do not follow from scores: observations, and the sensors that were fused."""
    last = -1
    if layers.sensors:
        bits = [one.valid.any(axis=0).astype(np.uint8) << bit for bit, one in enumerate(inputs)]
        stack[last] = np.bitwise_or.reduce(bits) if layers.fused else NO_SENSOR
        last -= 1
    if layers.observations:
        stack[last] = count_observations(np.concatenate([one.valid for one in inputs]))
    if wanted is not None:
        stack[:, ~wanted] = NODATA
    return stack
