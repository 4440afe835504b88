"""A normalised series of every pixel in, one embedding per pixel out: a transformer that reads a class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdico_cube.colearn.encoders.ltae import date_encoding
from mdico_cube.colearn.encoders.rows import check_heads, pixel_image, pixel_rows
from mdico_cube.colearn.inputs import Dated
from mdico_cube.recipe import EncoderSection


class Transformer(Dated):
    """Transformer (Vaswani et al., 2017) over the observed steps, read from a class token.

    [cls; Linear(x_t) + p(day_t)] -> `layers` x [self-attention over cls and observed steps, feed-forward] -> LayerNorm
    -> Linear to d.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__(steps)
        check_heads("transformer", section.hidden, section.heads, 2)
        self.hidden = section.hidden
        self.enter = nn.Linear(bands, section.hidden)
        self.token = nn.Parameter(torch.zeros(section.hidden))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                section.hidden, section.heads, 2 * section.hidden, section.dropout, batch_first=True, norm_first=True
            )
            for _ in range(section.layers)
        )
        self.norm = nn.LayerNorm(section.hidden)
        self.embed = nn.Linear(section.hidden, section.width)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised and (B, T, H, W) True = observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed is the class token alone.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T)
        dates = date_encoding(self.days_of(images.shape[-2] * images.shape[-1]), self.hidden, 1)
        steps = self.enter(torch.where(seen.unsqueeze(2), series, 0.0)) + dates  # (N, T, hidden)
        token = self.token.to(steps.dtype).expand(len(steps), 1, -1)
        rows = torch.cat([token, steps], dim=1)  # (N, 1 + T, hidden)
        hidden = torch.cat([seen.new_zeros(len(seen), 1), ~seen], dim=1)
        for block in self.blocks:
            rows = block(rows, src_key_padding_mask=hidden)
        return pixel_image(self.embed(self.norm(rows[:, 0])), images)
