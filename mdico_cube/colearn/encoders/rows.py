"""Images of pixels in, one row per pixel out, and back: what every encoder of series does first and last."""

from __future__ import annotations

from torch import Tensor, nn

from mdico_cube.errors import MdicoError


def pixel_rows(images: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, C, H, W) and (B, T, H, W) to the series (N, T, C) and what was observed (N, T), N = B * H * W."""
    b, t, c, h, w = images.shape
    return images.permute(0, 3, 4, 1, 2).reshape(b * h * w, t, c), valid.permute(0, 2, 3, 1).reshape(b * h * w, t)


def pixel_image(rows: Tensor, like: Tensor) -> Tensor:
    """(N, d) to (B, d, H, W), of the batch and size of `like` (B, ..., H, W)."""
    return rows.view(like.shape[0], like.shape[-2], like.shape[-1], -1).permute(0, 3, 1, 2)


def seen_or_all(seen: Tensor) -> Tensor:
    """(N, T) True = attend to it: what was observed, or every step where nothing was."""
    return seen | ~seen.any(dim=1, keepdim=True)


def check_heads(encoder: str, hidden: int, heads: int, multiple: int) -> None:
    """Raise MdicoError unless the hidden width can be shared among the heads."""
    if hidden % (multiple * heads):
        times = "twice " if multiple == 2 else ""
        raise MdicoError(
            f"encoder {encoder}: hidden ({hidden}) must be a multiple of {times}heads ({heads}). Change one of them."
        )


def look_around(model: nn.Module) -> int:
    """How many pixels beyond a pixel its embedding depends on: the largest `halo` of a model's parts, 0 without."""
    return max((int(getattr(part, "halo", 0)) for part in model.modules()), default=0)
