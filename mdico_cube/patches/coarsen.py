"""Stored values in, the same at a coarser resolution out: means of squares of pixels, decibels as power."""

from __future__ import annotations

import numpy as np

from mdico_cube.spec import Array, Modality


def coarsened(modality: Modality, stored: Array, factor: int) -> Array:
    """Stored values (N, T, C, h, w) at a coarser resolution: the mean of what was observed in each square.

    Decibels are averaged as power. A square without any observation is missing.
    """
    if factor == 1:
        return stored
    values, observed = modality.storage.unpack(stored)
    power = np.array([band.unit == "dB" for band in modality.bands])[:, None, None]
    linear = np.where(power, 10 ** (values / 10), values)
    n, t, c, h, w = stored.shape
    squares = (n, t, c, h // factor, factor, w // factor, factor)
    count = observed.reshape(squares).sum(axis=(4, 6))
    total = np.where(observed, linear, 0).reshape(squares).sum(axis=(4, 6), dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    back = np.where(power, 10 * np.log10(np.where(power, mean, 1)), mean)
    return modality.storage.pack(back)
