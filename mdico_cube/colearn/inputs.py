"""Raw physical values and what was observed in, z-scored series without gaps out: the first layer of every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mdico_cube.errors import MdicoError
from mdico_cube.period import first_days
from mdico_cube.spec import InputSpec


class Dated(nn.Module):
    """A module that knows when each step of a series was seen."""

    days: Tensor
    """(T,) days since the first step, of the steps the model was made for."""
    given: Tensor | None = None
    """(B, T) the same for each window of the batch at hand, where the windows have dates of their own."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        super().__init__()
        self.register_buffer("days", torch.tensor(first_days(steps), dtype=torch.float32))

    def days_of(self, pixels: int) -> Tensor:
        """(T,), or (B * pixels, T) where the windows have dates of their own."""
        return self.days if self.given is None else self.given.repeat_interleave(pixels, dim=0)


@contextmanager
def at_dates(paths: nn.ModuleDict, dates: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Let every module of a modality's path read these dates (B, T) for as long as the block runs."""
    named = [(path, dates[name]) for name, path in paths.items() if dates is not None and name in dates]
    readers = [(module, days) for path, days in named for module in path.modules() if isinstance(module, Dated)]
    try:
        for module, days in readers:
            module.given = days
        yield
    finally:
        for module, _ in readers:
            module.given = None


class Normalise(Dated):
    """Z-score each band, then fill what was not observed by linear interpolation in time.

    z = (x - mean) / std with the statistics of the training windows. A missing step of a pixel takes the value on the
    straight line between its nearest observed steps (weighted by days), the nearest one before the first and after the
    last; a pixel that was never observed becomes 0, the mean. What stands in `images` where `valid` is False has no
    influence on the output, not even NaN.
    """

    mean: Tensor
    """(C,) physical units."""
    std: Tensor
    """(C,) physical units."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec.steps)
        self.name = spec.modality.name
        self.register_buffer("mean", torch.tensor(spec.stats.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.stats.std, dtype=torch.float32))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) physical values and (B, T, H, W) True = observed to (B, T, C, H, W) normalised.

        Raises:
            MdicoError: another number of steps or bands than the statistics are for.
        """
        takes = (self.days.numel(), self.mean.numel())
        if tuple(images.shape[1:3]) != takes:
            raise MdicoError(
                f"{self.name}: the model takes {takes[0]} steps x {takes[1]} bands, came "
                f"{images.shape[1]} x {images.shape[2]}. Hand over the bands and steps it was trained with."
            )
        steps_first = self.series(images.permute(1, 2, 0, 3, 4), valid.transpose(0, 1))  # (T, C, B, H, W)
        return steps_first.permute(2, 0, 1, 3, 4)

    def series(self, values: Tensor, valid: Tensor) -> Tensor:
        """The same with time first and any axes of pixels: (T, C, ...) and (T, ...) observed to (T, C, ...)."""
        bands = (-1, *(1,) * (values.dim() - 2))
        scaled = (values - self.mean.view(bands)) / self.std.view(bands)
        known = torch.where(valid.unsqueeze(1), scaled, scaled.new_zeros(()))  # (T, C, ...)
        days = self.days if self.given is None else self.given.t()[..., None, None]  # (T,) or (T, B, 1, 1)
        return known if len(known) == 1 else fill_gaps(known, valid, days)

    def rows(self, values: Tensor, valid: Tensor) -> Tensor:
        """The same numbers with pixels first, several times faster: (T, C, N) and (T, N) observed to (N, T, C)."""
        scaled = ((values - self.mean.view(-1, 1)) / self.std.view(-1, 1)).permute(2, 0, 1)  # (N, T, C)
        return filled_rows(scaled.contiguous(), valid, self.days)


def fill_gaps(known: Tensor, valid: Tensor, days: Tensor) -> Tensor:
    """Linear interpolation in time over the steps that were not observed: one scan forward, one back.

    Args:
        known: (T, C, ...), 0 where not observed.
        valid: (T, ...), True = observed.
        days: (T,) or (T, ...), increasing.

    Returns:
        (T, C, ...): observed steps unchanged; pixels never observed stay 0.
    """
    steps, seen, day = (
        known.unbind(),
        valid.unsqueeze(1).unbind(),
        days.unbind(),
    )  # T of (C, ...), (1, ...) and () or (...)
    left, before = _carried(steps, seen), _last_days(day, seen, -torch.inf)
    right, after = _carried(steps[::-1], seen[::-1])[::-1], _last_days(day[::-1], seen[::-1], torch.inf)[::-1]
    filled = []
    for t, now in enumerate(day):
        started, goes_on = before[t].isfinite(), after[t].isfinite()
        share = (now - before[t]) / (after[t] - before[t]).clamp(min=1.0)
        share = torch.where(started & goes_on, share, 0.0).to(known.dtype)
        start = torch.where(started, left[t], right[t])  # before the first observation: that one
        filled.append(start + share * (right[t] - start))  # after the last one share is 0
    return torch.stack(filled)


def filled_rows(rows: Tensor, valid: Tensor, days: Tensor) -> Tensor:
    """What `fill_gaps` gives, bit for bit, with two look-ups per step instead of a scan over all bands.

    Args:
        rows: (N, T, C); what stands where nothing was observed is not read.
        valid: (T, N), True = observed.
        days: (T,), increasing.

    Returns:
        (N, T, C).
    """
    pixels, steps, bands = rows.shape
    left, right = _seen(valid, range(steps), -1), _seen(valid, range(steps - 1, -1, -1), steps)  # (T, N)
    started, goes_on = left >= 0, right < steps
    never = ~(started[-1])  # (N,)
    first = torch.where(started, left, right).clamp_(max=steps - 1)
    second = torch.where(goes_on, right, left).clamp_(min=0)
    since, until = (days.index_select(0, index.view(-1)).view(steps, pixels) for index in (first, second))
    share = (days.unsqueeze(1) - since) / (until - since).clamp_(min=1.0)
    share = share.masked_fill_(~(started & goes_on), 0.0).to(rows.dtype)
    start = torch.arange(0, pixels * steps, steps, device=rows.device)  # (N,) of each pixel in the flat rows
    flat = rows.view(pixels * steps, bands)
    here, there = (flat.index_select(0, (index + start).t().reshape(-1)) for index in (first, second))
    filled = there.sub_(here).mul_(share.t().reshape(-1, 1)).add_(here).view(rows.shape)
    return filled.masked_fill_(never.view(-1, 1, 1), 0.0)


def _seen(valid: Tensor, order: range, none: int) -> Tensor:
    """(T, N) the step last observed when the steps are walked in this order, `none` where there was not one yet."""
    found: list[Tensor] = [torch.empty(())] * len(valid)
    last = torch.full_like(valid[0], none, dtype=torch.int32)
    for step in order:
        found[step] = last = torch.where(valid[step], step, last)
    return torch.stack(found)


def _carried(values: Sequence[Tensor], seen: Sequence[Tensor]) -> list[Tensor]:
    """At each step its value where it was observed, else the one carried on from the step before."""
    carried = [values[0]]
    for value, here in zip(values[1:], seen[1:], strict=True):
        carried.append(torch.where(here, value, carried[-1]))
    return carried


def _last_days(days: Sequence[Tensor], seen: Sequence[Tensor], never: float) -> list[Tensor]:
    """At each step the day of the observation that `_carried` gives."""
    return _carried([torch.where(here, day, never) for day, here in zip(days, seen, strict=True)], seen)
