"""A normalised series of every pixel in, one embedding per pixel out: lightweight temporal attention, L-TAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import check_heads, pixel_image, pixel_rows, seen_or_all
from mdico_cube.colearn.encoders.tempcnn import dense_block
from mdico_cube.colearn.inputs import Dated
from mdico_cube.recipe import EncoderSection

_KEY = 8  # width of a key, as in the paper
_PERIOD = 1000.0  # days, the longest wave of the date encoding, as in the paper


class LTAE(Dated):
    """Lightweight temporal self-attention (Garnot and Landrieu, 2020), one series per pixel.

    e_t = LayerNorm(Linear(x_t)) + p(day_t); head h attends with one learned query q_h to its own slice of the channels:
    a_h = softmax over observed t of q_h . (K_h e_t) / sqrt(8), o_h = sum_t a_h,t e_t[slice h];
    embedding = Linear(dropout(ReLU(BN(Linear([o_1; ...; o_H]))))).
    """

    dates: Tensor
    """(T, hidden) encoding of each step's date."""

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__(steps)
        check_heads("ltae", section.hidden, section.heads, 2)
        self.heads = section.heads
        self.enter = nn.Linear(bands, section.hidden)
        self.norm = nn.LayerNorm(section.hidden)
        self.keys = nn.Linear(section.hidden, section.heads * _KEY)
        self.query = nn.Parameter(torch.empty(section.heads, _KEY))
        nn.init.normal_(self.query, std=(2.0 / _KEY) ** 0.5)
        self.dense = nn.Sequential(*dense_block(section.hidden, section.dense, section.dropout))
        self.embed = nn.Linear(section.dense, section.width)
        self.width = section.hidden // section.heads
        self.register_buffer("dates", date_encoding(self.days, self.width, self.heads))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed attends to all its (filled) steps.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T), N = B*H*W
        seen = seen_or_all(seen)
        pixels = images.shape[-2] * images.shape[-1]
        dates = self.dates if self.given is None else date_encoding(self.days_of(pixels), self.width, self.heads)
        steps = self.norm(self.enter(series)) + dates  # (N, T, hidden)
        keys = self.keys(steps).unflatten(2, (self.heads, _KEY))  # (N, T, heads, 8)
        scores = torch.einsum("nthk,hk->nht", keys, self.query) / _KEY**0.5
        share = scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(dim=2)  # (N, heads, T)
        values = steps.unflatten(2, (self.heads, -1))  # (N, T, heads, hidden/heads)
        mixed = torch.einsum("nht,nthv->nhv", share, values).flatten(1)  # (N, hidden)
        return pixel_image(self.embed(self.dense(mixed)), images)


def date_encoding(days: Tensor, width: int, copies: int) -> Tensor:
    """Sine and cosine waves of the days (..., T), the same for every head: (..., T, width * copies)."""
    rate = _PERIOD ** (-2 * torch.arange(width // 2, device=days.device) / width)
    angle = days[..., None] * rate  # (..., T, width / 2)
    waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
    return torch.cat([waves] * copies, dim=-1)
