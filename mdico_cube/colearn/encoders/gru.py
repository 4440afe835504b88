"""A normalised series of every pixel in, one embedding per pixel out: a gated recurrent unit over what was observed."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import pixel_image, pixel_rows
from mdico_cube.colearn.inputs import Dated
from mdico_cube.recipe import EncoderSection

_YEAR = 365.25


class Recurrent(Dated):
    """A recurrent network over the observed steps only: [x_t; date] -> cells -> last state -> Linear to d.

    The observed steps of a pixel are moved together before they enter, so that a missing one does not exist for it. The
    date enters as sine and cosine of the day in the year and the gap to the step before as its length in years.
    """

    cells: ClassVar[type[nn.GRU] | type[nn.LSTM]]
    """One layer of what runs through the steps."""

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__(steps)
        self.recurrent = self.cells(bands + 3, section.hidden, batch_first=True)
        self.drop = nn.Dropout(section.dropout)
        self.embed = nn.Linear(section.hidden, section.width)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed is read as zeros at the first date.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T)
        series = torch.where(seen.unsqueeze(2), series, 0.0)
        order = torch.where(seen, 0, 1).argsort(dim=1, stable=True)  # observed steps first, in time
        length = seen.sum(dim=1).clamp(min=1)
        packed = series.gather(1, order.unsqueeze(2).expand(-1, -1, series.shape[2]))
        dates = self._dates(order, images.shape[-2] * images.shape[-1]).to(packed.dtype)
        states, _ = self.recurrent(torch.cat([packed, dates], dim=2))
        last = states[torch.arange(len(states), device=states.device), length - 1]  # (N, hidden)
        return pixel_image(self.embed(self.drop(last)), images)

    def _dates(self, order: Tensor, pixels: int) -> Tensor:
        """(N, T, 3) sine and cosine of the day in the year, and years since the step before, of the moved steps."""
        years = self.days_of(pixels).expand(order.shape).gather(1, order) / _YEAR  # (N, T)
        gap = torch.diff(years, dim=1, prepend=years[:, :1])
        return torch.stack([torch.sin(2 * math.pi * years), torch.cos(2 * math.pi * years), gap], dim=2)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al., 2014) over the observed steps."""

    cells = nn.GRU
