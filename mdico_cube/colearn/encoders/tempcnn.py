"""A normalised series of every pixel in, one embedding per pixel out: the temporal convolutional network TempCNN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import pixel_image
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection


class TempCNN(nn.Module):
    """TempCNN (Pelletier, Webb and Petitjean, Remote Sensing 11, 2019) in the size MDiCo uses.

    2 x [Conv1d over time (k, same), BN, ReLU, dropout] -> flatten -> [Linear, BN, ReLU, dropout] -> Linear to d.
    Every pixel is its own series; neighbours have no influence. Works for a single step too.
    """

    def __init__(self, bands: int, steps: tuple[str, ...], section: EncoderSection) -> None:
        super().__init__()
        if section.kernel % 2 == 0:
            raise MdicoError(f"encoder.kernel must be odd to stay centred in time, came {section.kernel}.")
        hidden, dense = section.hidden, section.dense
        self.convolutions = nn.Sequential(
            *_convolution(bands, hidden, section), *_convolution(hidden, hidden, section), nn.Flatten()
        )
        self.dense = nn.Sequential(*dense_block(hidden * len(steps), dense, section.dropout))
        self.embed = nn.Linear(dense, section.width)

    def layers(self) -> tuple[nn.Module, ...]:
        """What happens to one series, layer by layer: (N, C, T) to (N, d)."""
        return (*self.convolutions, *self.dense, self.embed)

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W).

        The mask is not read: the gaps are already filled in time.
        """
        return forward_layers(self.layers(), images)


def forward_layers(layers: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Run layers from (N, C, T) to (N, d) over the series of every pixel: (B, T, C, H, W) to (B, d, H, W)."""
    b, t, c, h, w = images.shape
    rows = images.permute(0, 3, 4, 2, 1).reshape(b * h * w, c, t)  # (N, C, T)
    for layer in layers:
        rows = layer(rows)
    return pixel_image(rows, images)


def dense_block(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    """Linear, batch norm, ReLU, dropout."""
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)


def _convolution(channels: int, hidden: int, section: EncoderSection) -> tuple[nn.Module, ...]:
    return (
        nn.Conv1d(channels, hidden, section.kernel, padding=section.kernel // 2),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(section.dropout),
    )
