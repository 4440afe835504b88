"""A normalised series of every pixel in, one embedding per pixel out: a gated recurrent unit over what was observed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdico_cube.colearn.inputs import Dated
from mdico_cube.recipe import EncoderSection

_YEAR = 365.25


class GRU(Dated):
    """GRU (Cho et al., 2014) over the observed steps only: [x_t; date] -> GRU -> last state -> Linear to d.

    The observed steps of a pixel are moved together before they enter, so that a missing one does not exist for it. The
    date enters as sine and cosine of the day in the year and the gap to the step before as its length in years.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__(steps)
        self.recurrent = nn.GRU(bands + 3, section.hidden, batch_first=True)
        self.drop = nn.Dropout(section.dropout)
        self.embed = nn.Linear(section.hidden, section.width)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed is read as zeros at the first date.
        """
        b, t, c, h, w = images.shape
        seen = valid.permute(0, 2, 3, 1).reshape(-1, t)  # (B*H*W, T)
        series = images.permute(0, 3, 4, 1, 2).reshape(-1, t, c)  # (B*H*W, T, C)
        series = torch.where(seen.unsqueeze(2), series, 0.0)
        order = torch.where(seen, 0, 1).argsort(dim=1, stable=True)  # observed steps first, in time
        length = seen.sum(dim=1).clamp(min=1)
        packed = series.gather(1, order.unsqueeze(2).expand(-1, -1, c))
        states, _ = self.recurrent(torch.cat([packed, self._dates(order, h * w).to(packed.dtype)], dim=2))
        last = states[torch.arange(len(states), device=states.device), length - 1]  # (B*H*W, hidden)
        rows: Tensor = self.embed(self.drop(last))
        return rows.view(b, h, w, -1).permute(0, 3, 1, 2)  # (B, d, H, W)

    def _dates(self, order: Tensor, pixels: int) -> Tensor:
        """(N, T, 3) sine and cosine of the day in the year, and years since the step before, of the moved steps."""
        years = self.days_of(pixels).expand(order.shape).gather(1, order) / _YEAR  # (N, T)
        gap = torch.diff(years, dim=1, prepend=years[:, :1])
        return torch.stack([torch.sin(2 * math.pi * years), torch.cos(2 * math.pi * years), gap], dim=2)
