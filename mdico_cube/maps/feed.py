"""Items of a block and a model in, its outputs out: batch by batch, on a card copied while another one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdico_cube.errors import MdicoError

Shapes = Callable[[int], Sequence[tuple[tuple[int, ...], torch.dtype]]]
"""Number of items to shape and type of each tensor that a model takes for them."""
Fill = Callable[[Sequence[Any], int, int], None]
"""(arrays of one batch, first item, the one after the last): write these items to the front of the arrays."""
CPU = torch.device("cpu")
LANES = 2
"""Batches on their way at once on a card: one is copied while another one is computed."""
_SHARE = 0.8  # of the card's free memory
_LEAST = 1


def torch_device(name: str) -> torch.device:
    """Where a model computes: "cpu", or a card such as "cuda", the current one, or "cuda:1".

    Raises:
        MdicoError: torch sees no such card.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        why = "no card" if torch.version.cuda else "no card, as it was installed without CUDA"
        raise MdicoError(f"maps.device {name}: torch sees {why}. Use device cpu, or install torch for CUDA on a GPU.")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise MdicoError(f"maps.device {name}: there are {count} cards here, numbered from 0. Use one of them.")
    return torch.device(device.type, index)


def settled(name: str) -> str:
    """The device with auto decided: a card where torch sees one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def fitting(free: float, each: float, most: int, lanes: int = LANES) -> int:
    """Items that go at once: a power of two, at most `most`, such that all lanes stay within a share of the memory.

    Args:
        free: bytes of the card that are free.
        each: bytes that one item takes while it is computed.
        most: more are of no use.
        lanes: batches on the card at once.
    """
    room = int(_SHARE * free / max(each * lanes, 1))
    return 1 << (max(_LEAST, min(room, most)).bit_length() - 1)


@dataclass(slots=True)
class Room:
    """A device and how many items go at once there; shared by the blocks that are computed on it one by one."""

    device: torch.device = CPU
    most: int = 1
    """Items at once: on a processor always, on a card where its memory allows."""
    tried: int = 1
    """Items of the batch that tells how much memory one takes on a card."""
    at_once: int | None = None
    """None until it was measured."""
    _lanes: list[Lane] = field(default_factory=list)

    @property
    def card(self) -> bool:
        """True where batches are copied to a device of its own."""
        return self.device.type != "cpu"

    def lanes(self, score: Callable[..., Tensor], shapes: Shapes) -> list[Lane]:
        """Buffers for batches; on a card they are kept, as pinned memory is slow to get."""
        if self.at_once is None:
            self.at_once = self._measured(score, shapes) if self.card else self.most
        wanted = tuple(shapes(self.at_once))
        if not self.card:
            return [Lane(wanted, self.device)]
        if not self._lanes or self._lanes[0].shapes != wanted:
            self._lanes.clear()
            self._lanes.extend(Lane(wanted, self.device) for _ in range(LANES))
        return self._lanes

    def shrink(self) -> None:
        """Half as many items at once from now on.

        Raises:
            MdicoError: one item alone is too much.
        """
        if self.at_once is None or self.at_once <= _LEAST:
            raise MdicoError(f"maps.device {self.device}: its memory does not hold one window. Use device cpu.")
        self.at_once //= 2
        self._lanes.clear()
        if self.card:
            torch.cuda.empty_cache()

    def _measured(self, score: Callable[..., Tensor], shapes: Shapes) -> int:
        """What a small batch takes tells how many items fit."""
        tried = min(self.tried, self.most)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        with torch.inference_mode():
            score(*(torch.zeros(shape, dtype=kind, device=self.device) for shape, kind in shapes(tried)))
        each = (torch.cuda.max_memory_allocated(self.device) - before) / tried
        torch.cuda.empty_cache()
        return fitting(torch.cuda.mem_get_info(self.device)[0], each, self.most)


class Lane:
    """Buffers of one batch, and on a card a stream of its own: copy, compute and copy back in this order."""

    def __init__(self, shapes: tuple[tuple[tuple[int, ...], torch.dtype], ...], device: torch.device) -> None:
        self.shapes, self.device = shapes, device
        card = device.type == "cuda"
        self.host = [torch.zeros(shape, dtype=kind, pin_memory=card) for shape, kind in shapes]
        self.arrays: list[Any] = [part.numpy() for part in self.host]
        self.stream = torch.cuda.Stream(device) if card else None  # type: ignore[no-untyped-call]
        self.done = torch.cuda.Event() if card else None  # type: ignore[no-untyped-call]
        self.out: Tensor | None = None

    def start(self, score: Callable[..., Tensor]) -> None:
        """Compute what the buffers hold; on a card this only begins it."""
        with torch.inference_mode(), nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            found = score(*(part.to(self.device, non_blocking=True) for part in self.host))
            if self.stream is None or self.done is None:
                self.out = found
                return
            if self.out is None or self.out.shape != found.shape:
                self.out = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            self.out.copy_(found, non_blocking=True)
            self.done.record(self.stream)

    def finish(self) -> Any:
        """What came out, as an array that holds until the lane starts again."""
        if self.done is not None:
            self.done.synchronize()
        assert self.out is not None
        return self.out.numpy()


def feed(
    score: Callable[..., Tensor], room: Room, shapes: Shapes, count: int, fill: Fill
) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
    """Every item through a model, in batches of one fixed shape: a processor's results do not depend on the others.

    Where a card's memory does not do, the batch is cut in half and goes again.

    Args:
        score: from tensors on the room's device to one tensor there.
        room: device and batch.
        shapes: of the model's input.
        count: items.
        fill: writes them into a batch.

    Yields:
        (first item, the one after the last, the model's output for the batch), in order; to be used at once.
    """
    lanes = room.lanes(score, shapes) if count else []
    flying: deque[tuple[Lane, int, int]] = deque()
    start = turn = 0
    while start < count or flying:
        if start < count and len(flying) < len(lanes):
            lane, stop = lanes[turn % len(lanes)], min(start + (room.at_once or 1), count)
            fill(lane.arrays, start, stop)
            try:
                lane.start(score)
            except torch.OutOfMemoryError:
                yield from _landed(flying)
                room.shrink()
                lanes, turn = room.lanes(score, shapes), 0
                continue
            flying.append((lane, start, stop))
            start, turn = stop, turn + 1
        else:
            lane, first, last = flying.popleft()
            yield first, last, lane.finish()


def _landed(flying: deque[tuple[Lane, int, int]]) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
    while flying:
        lane, first, last = flying.popleft()
        yield first, last, lane.finish()
