"""Counts of an optical scene in, counts of the cube out: the one kernel of Sentinel-2, Landsat and its thermal band."""

from __future__ import annotations

import numpy as np

from mdico_cube.sensors.sensor import Radiometry
from mdico_cube.spec import Array, Bools

COUNT = 1e-4
"""Reflectance per stored count."""
MISSING = 65535
"""Stored count that means missing."""


def calibrate(raw: Array, nodata: float, rule: Radiometry, count: float = COUNT) -> tuple[Array, Bools]:
    """Raw counts (C, h, w) to stored counts uint16 and (h, w) True where every band was read.

    Counts that the rule would push below zero become 0: neither reflectance nor kelvin are negative in storage.

    Args:
        raw: counts of the archive.
        nodata: count that means no data.
        rule: scale and offset of the scene.
        count: physical units per stored count.
    """
    observed = (raw != nodata).all(axis=0)
    if rule.scale != count:
        counts = np.rint(raw * np.float64(rule.scale / count) + rule.offset / count)
    elif -MISSING < (shift := round(rule.offset / count)) < 0 and raw.dtype == np.uint16:
        counts = np.maximum(raw, np.uint16(-shift))
        counts -= np.uint16(-shift)
        return counts, observed
    elif shift:
        counts = raw.astype(np.int32) + shift
    else:
        return np.minimum(raw, MISSING - 1).astype(np.uint16, copy=False), observed
    return np.clip(counts, 0, MISSING - 1).astype(np.uint16), observed


def finish(work: Array, observed: Bools) -> Array:
    """Composite counts to stored counts: 65535 where nothing was observed."""
    return np.where(observed, work, MISSING).astype(np.uint16)
