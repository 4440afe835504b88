"""A normalised series of every pixel in, one embedding per pixel out: convolutions, then attention, ConvTran."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import check_heads, pixel_image, pixel_rows, seen_or_all
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection


class ConvTran(nn.Module):
    """ConvTran (Foumani, Tan, Webb and Salehi, Data Mining and Knowledge Discovery 38, 2024), one series per pixel.

    Convolution over time for each band alone, then over all bands at one step (both with BN and GELU); the position
    enters as waves whose rate follows length and width (tAPE) and as one learned number per head and distance that is
    added to the attention after its softmax (eRPE); feed-forward; mean over the observed steps; Linear to d.
    The convolution over time counts observed steps only and weighs them up to a full kernel [our choice: the paper
    knows no gaps].
    """

    waves: Tensor
    """(T, hidden) position encoding."""

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        if section.kernel % 2 == 0:
            raise MdicoError(f"encoder.kernel must be odd to stay centred in time, came {section.kernel}.")
        check_heads("convtran", section.hidden, section.heads, 2)
        t, hidden, self.heads = len(steps), section.hidden, section.heads
        wide = 4 * hidden
        self.over_time = nn.Conv2d(1, wide, (1, section.kernel), padding=(0, section.kernel // 2), bias=False)
        self.norm_time = nn.BatchNorm2d(wide)
        self.over_bands = nn.Conv2d(wide, hidden, (bands, 1))
        self.norm_bands = nn.BatchNorm2d(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden, bias=False) for _ in range(3))
        self.distance = nn.Parameter(torch.zeros(2 * t - 1, section.heads))
        self.norm_attention, self.norm_first, self.norm_second = (nn.LayerNorm(hidden) for _ in range(3))
        self.forward_part = nn.Sequential(
            *(nn.Linear(hidden, section.dense), nn.ReLU(), nn.Dropout(section.dropout)),
            *(nn.Linear(section.dense, hidden), nn.Dropout(section.dropout)),
        )
        self.embed = nn.Linear(hidden, section.width)
        self.register_buffer("waves", _positions(t, hidden))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed is read at all its (filled) steps.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T)
        seen = seen_or_all(seen)
        kept = torch.where(seen.unsqueeze(2), series, 0.0).transpose(1, 2).unsqueeze(1)  # (N, 1, C, T)
        found = self.over_time(kept) * _upweighted(seen, self.over_time.kernel_size[1])
        found = F.gelu(self.norm_time(found))  # (N, 4 hidden, C, T)
        rows = F.gelu(self.norm_bands(self.over_bands(found))).squeeze(2).transpose(1, 2)  # (N, T, hidden)
        rows = self.norm_first(rows + self._attention(rows + self.waves, seen))
        rows = self.norm_second(rows + self.forward_part(rows))
        weights = seen.unsqueeze(2)
        return pixel_image(self.embed((rows * weights).sum(dim=1) / weights.sum(dim=1)), images)

    def _attention(self, rows: Tensor, seen: Tensor) -> Tensor:
        """(N, T, hidden) mixed over the observed steps."""
        query, key, value = (
            part(rows).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )  # (N, heads, T, hidden / heads) each
        scores = query @ key.transpose(2, 3) / math.sqrt(rows.shape[2])
        share = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=3)  # (N, heads, T, T)
        step = torch.arange(rows.shape[1], device=rows.device)
        bias = self.distance[step[:, None] - step[None] + len(step) - 1].permute(2, 0, 1)  # (heads, T, T)
        share = share + bias * seen[:, None, None]
        mixed: Tensor = self.norm_attention((share @ value).transpose(1, 2).flatten(2))
        return mixed


def _upweighted(seen: Tensor, kernel: int) -> Tensor:
    """(N, 1, 1, T) kernel length over the observed steps under the kernel; 0 where there is none."""
    window = torch.ones(1, 1, kernel, device=seen.device)
    count = F.conv1d(seen.float().unsqueeze(1), window, padding=kernel // 2)  # (N, 1, T)
    full = F.conv1d(torch.ones_like(count), window, padding=kernel // 2)
    return torch.where(count > 0, full / count.clamp(min=1), 0.0).unsqueeze(2)


def _positions(steps: int, width: int) -> Tensor:
    """(T, width) waves whose rate grows with width over length, so that neighbours stay apart in short series."""
    rate = 10_000 ** (-torch.arange(0, width, 2) / width) * width / steps
    angle = torch.arange(steps)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
