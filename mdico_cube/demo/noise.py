"""A seed and a name in, the same random numbers out every time: keyed generators and smooth random fields."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import fft

from mdico_cube.spec import Array, Floats


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the key only, never on the order of calls."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], length: float, power: float = 3.0) -> Floats:
    """A periodic random field of zero mean and unit variance.

    Args:
        rng: where the numbers come from.
        shape: (H, W) in cells.
        length: correlation length in cells.
        power: fall of the spectrum beyond the length; larger is smoother.

    Returns:
        (H, W) float32.
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    ky = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    kx = fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    amplitude = (1 + (2 * np.pi * length) ** 2 * (ky**2 + kx**2)) ** (-power / 2)
    amplitude[0, 0] = 0
    field = fft.irfft2(fft.rfft2(white) * amplitude, s=shape)
    return np.asarray(field / max(float(field.std()), 1e-6), dtype=np.float32)


def smooth_series(rng: np.random.Generator, shape: tuple[int, int], length: float) -> Floats:
    """Series that wander slowly along their last axis: (N, D), zero mean, unit variance, `length` in days."""
    white = rng.standard_normal(shape, dtype=np.float32)
    k = fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    series = fft.irfft(fft.rfft(white, axis=1) * np.exp(-0.5 * (2 * np.pi * k * length) ** 2), n=shape[1], axis=1)
    return np.asarray(series / max(float(series.std()), 1e-6), dtype=np.float32)


def sigmoid(x: Array) -> Array:
    """Logistic function, safe for large arguments."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))
