"""Pixels in, an eighth of them a side out: what one pixel of an overview says of the 8 x 8 below it."""

from __future__ import annotations

import numpy as np

from mdico_cube.spec import Array, Modality

FACTOR = 8
"""Pixels a side that become one; each level is made of the one before."""
_DECIBEL = "dB"


def mean_of(modality: Modality, stored: Array) -> Array:
    """Stored values (T, C, h, w) to the means of 8 x 8 pixels, stored alike; decibels are averaged as power.

    Pixels that were not observed have no weight; where none was, nothing is.
    """
    decibel = np.array([unit == _DECIBEL for unit in modality.units])
    means = []
    for step in stored:  # one at a time: physical values take twice the memory
        values, seen = modality.storage.unpack(step)
        values[decibel] = 10 ** (values[decibel] / 10)
        total, count = (_summed(part) for part in (np.where(seen, values, 0), seen.astype(np.float32)))
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        mean[decibel] = 10 * np.log10(mean[decibel])
        means.append(modality.storage.pack(mean))
    return np.stack(means)


def nearest_of(stored: Array) -> Array:
    """Every eighth pixel: classes have no mean."""
    return np.ascontiguousarray(stored[..., ::FACTOR, ::FACTOR])


def _summed(values: Array) -> Array:
    """Sums over 8 x 8 pixels, those beyond the edge count nothing."""
    height, width = values.shape[-2:]
    room = [(0, 0)] * (values.ndim - 2) + [(0, -height % FACTOR), (0, -width % FACTOR)]
    padded = np.pad(values, room)
    shape = (*values.shape[:-2], padded.shape[-2] // FACTOR, FACTOR, padded.shape[-1] // FACTOR, FACTOR)
    return np.asarray(padded.reshape(shape).sum(axis=(-3, -1)))
