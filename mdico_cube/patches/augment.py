"""Training batches in, the same windows seen otherwise out: mirrored, turned, later or earlier, with less observed.

Whatever happens to a window happens to all of its modalities, masks and labels alike. Everything is drawn from the one
generator that is handed in, so a batch depends on the seed and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mdico_cube.batch import Batch
from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import Ints
from mdico_cube.period import first_days
from mdico_cube.recipe import AugmentSection

Augment = Callable[[Batch, np.random.Generator], Batch]
"""A batch and where to draw from, to the same windows, changed; the tensors handed in may be changed in place. It can
be sent to another process."""


def make_augment(section: AugmentSection, steps: dict[str, tuple[str, ...]]) -> Augment | None:
    """What a recipe's section does to a batch; None where it does nothing.

    Args:
        section: what to do.
        steps: modality -> ISO date of each step's first day, one empty string without time.

    Raises:
        MdicoError: series are to be shifted, but the modalities' steps differ.
    """
    series = {name: dates for name, dates in steps.items() if dates != ("",)}
    if section.shift_steps and len(set(series.values())) > 1:
        raise MdicoError(
            "colearn.augment.shift_steps moves all series together, but the modalities have different steps: "
            f"{', '.join(f'{name} has {len(dates)}' for name, dates in series.items())}. Use shift_days or 0."
        )
    days = {name: torch.tensor(first_days(dates), dtype=torch.float32) for name, dates in series.items()}
    parts: list[Augment] = []
    if section.flip or section.rotate:
        parts.append(partial(_turn, flip=section.flip, rotate=section.rotate))
    if section.shift_steps:
        parts.append(partial(_shift, most=section.shift_steps, series=tuple(series)))
    if section.shift_days:
        parts.append(partial(_move_dates, most=section.shift_days, days=days))
    if section.drop_steps:
        parts.append(partial(_drop_steps, share=section.drop_steps))
    if section.drop_sensor:
        parts.append(partial(_drop_sensor, share=section.drop_sensor))
    return partial(_in_turn, parts=tuple(parts)) if parts else None


def _in_turn(batch: Batch, draw: np.random.Generator, parts: Sequence[Augment]) -> Batch:
    for part in parts:
        batch = part(batch, draw)
    return batch


def _turn(batch: Batch, draw: np.random.Generator, flip: bool, rotate: bool) -> Batch:
    return turn(batch, draw_turns(len(batch), flip, rotate, draw))


def _shift(batch: Batch, draw: np.random.Generator, most: int, series: tuple[str, ...]) -> Batch:
    return shift(batch, draw.integers(-most, most + 1, len(batch)), series)


def _move_dates(batch: Batch, draw: np.random.Generator, most: int, days: dict[str, Tensor]) -> Batch:
    return move_dates(batch, draw.integers(-most, most + 1, len(batch)), days)


def _drop_steps(batch: Batch, draw: np.random.Generator, share: float) -> Batch:
    return drop_steps(batch, share, draw)


def _drop_sensor(batch: Batch, draw: np.random.Generator, share: float) -> Batch:
    return drop_sensor(batch, share, draw)


def draw_turns(count: int, flip: bool, rotate: bool, draw: np.random.Generator) -> Ints:
    """(count,) one of the eight ways to lay a square: 0 as it is, +1 per quarter turn, +4 mirrored first.

    With flips alone: 0, mirrored left to right, mirrored top to bottom, and both.
    """
    if rotate:
        return draw.integers(0, 8 if flip else 4, count)
    return np.array([0, 4, 6, 2])[draw.integers(0, 4, count)]


def turn(batch: Batch, way: Ints) -> Batch:
    """Lay every window one of eight ways; see `draw_turns`."""
    for one in range(1, 8):
        chosen = torch.from_numpy(np.flatnonzero(way == one))
        if len(chosen):
            for tensor in _tensors(batch):
                if tensor.shape[-2:] != (1, 1):
                    tensor[chosen] = _laid(tensor[chosen], one)
    return batch


def _laid(tensor: Tensor, way: int) -> Tensor:
    mirrored = tensor.flip(-1) if way >= 4 else tensor
    return torch.rot90(mirrored, way % 4, (-2, -1))


def _tensors(batch: Batch) -> list[Tensor]:
    return [*batch.images.values(), *batch.valid.values(), *([] if batch.target is None else [batch.target])]


def shift(batch: Batch, by: Ints, series: tuple[str, ...]) -> Batch:
    """Move every window's series by so many steps; what would come from outside the series is not observed."""
    for name in series:
        image, mask = batch.images[name], batch.valid[name]
        steps = image.shape[1]
        place = torch.arange(steps) - torch.from_numpy(by)[:, None]  # (B, T) where each step comes from
        inside = (place >= 0) & (place < steps)
        rows, place = torch.arange(len(batch))[:, None], place.clamp(0, steps - 1)
        seen = mask[rows, place] & inside[:, :, None, None]
        mask.copy_(seen)
        image.copy_(image[rows, place] * seen.unsqueeze(2))
    return batch


def move_dates(batch: Batch, by: Ints, days: dict[str, Tensor]) -> Batch:
    """Say that every window was seen so many days later; its values stay. Encoders that read no dates see no change."""
    later = torch.from_numpy(by).float()[:, None]
    given = batch.dates or {}
    return batch.replace(dates={name: given.get(name, known[None]) + later for name, known in days.items()})


def drop_steps(batch: Batch, share: float, draw: np.random.Generator) -> Batch:
    """Hide each step of each series with this probability; a series keeps at least one observed step."""
    for name, mask in batch.valid.items():
        if mask.shape[1] == 1:
            continue
        keep = torch.from_numpy(draw.random(mask.shape[:2]) >= share)  # (B, T)
        left = (mask & keep[:, :, None, None]).flatten(1).any(dim=1)  # (B,)
        _hide(batch, name, keep | ~left[:, None])
    return batch


def drop_sensor(batch: Batch, share: float, draw: np.random.Generator) -> Batch:
    """Hide one whole modality of a window with this probability, if another one was observed there."""
    names = list(batch.valid)
    hit = torch.from_numpy(draw.random(len(batch)) < share)
    which = torch.from_numpy(draw.integers(0, len(names), len(batch)))
    seen = torch.stack([mask.flatten(1).any(dim=1) for mask in batch.valid.values()], dim=1)  # (B, modalities)
    for number, name in enumerate(names):
        others = seen.clone()
        others[:, number] = False
        gone = hit & (which == number) & others.any(dim=1)
        _hide(batch, name, ~gone[:, None].expand(-1, batch.valid[name].shape[1]))
        seen[gone, number] = False
    return batch


def _hide(batch: Batch, name: str, keep: Tensor) -> None:
    """Make the steps where `keep` (B, T) is False not observed."""
    batch.valid[name] &= keep[:, :, None, None]
    batch.images[name] *= keep[:, :, None, None, None]
