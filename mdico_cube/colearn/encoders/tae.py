"""A normalised series of every pixel in, one embedding per pixel out: temporal attention with a master query, TAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.ltae import date_encoding
from mdico_cube.colearn.encoders.rows import check_heads, pixel_image, pixel_rows, seen_or_all
from mdico_cube.colearn.encoders.tempcnn import dense_block
from mdico_cube.colearn.inputs import Dated
from mdico_cube.recipe import EncoderSection

_KEY = 32  # width of keys and queries, as in the paper


class TAE(Dated):
    """Temporal attention encoder (Garnot, Landrieu, Giordano and Chehata, CVPR 2020), one series per pixel.

    e_t = LayerNorm(Linear(x_t)) + p(day_t); every head h has keys and queries of its own, its master query is the mean
    of its queries over the observed steps: a_h = softmax over observed t of q_h . k_h,t / sqrt(32), and it mixes the
    whole e_t: o_h = sum_t a_h,t e_t. embedding = Linear(dropout(ReLU(BN(Linear([o_1; ...; o_H]))))).
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__(steps)
        check_heads("tae", section.hidden, 1, 2)
        self.heads, self.hidden = section.heads, section.hidden
        self.enter = nn.Linear(bands, section.hidden)
        self.norm = nn.LayerNorm(section.hidden)
        self.keys = nn.Linear(section.hidden, section.heads * _KEY)
        self.queries = nn.Linear(section.hidden, section.heads * _KEY)
        self.dense = nn.Sequential(*dense_block(section.heads * section.hidden, section.dense, section.dropout))
        self.embed = nn.Linear(section.dense, section.width)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed attends to all its (filled) steps.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T)
        seen = seen_or_all(seen).unsqueeze(2)  # (N, T, 1)
        dates = date_encoding(self.days_of(images.shape[-2] * images.shape[-1]), self.hidden, 1)
        steps = self.norm(self.enter(series)) + dates  # (N, T, hidden)
        keys = self.keys(steps).unflatten(2, (self.heads, _KEY))  # (N, T, heads, 32)
        queries = (self.queries(steps) * seen).sum(dim=1) / seen.sum(dim=1)  # (N, heads * 32)
        scores = torch.einsum("nthk,nhk->nth", keys, queries.unflatten(1, (self.heads, _KEY))) / _KEY**0.5
        share = scores.masked_fill(~seen, -torch.inf).softmax(dim=1)  # (N, T, heads)
        mixed = torch.einsum("nth,ntv->nhv", share, steps).flatten(1)  # (N, heads * hidden)
        return pixel_image(self.embed(self.dense(mixed)), images)
