"""Counts of an optical scene in, counts of the cube out: the one kernel of Sentinel-2, Landsat and its thermal band."""

from __future__ import annotations

import numpy as np

from mdico_cube.sensors.sensor import Radiometry
from mdico_cube.spec import Array, Bools, alike

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
    observed = _read(raw, nodata)
    if rule.scale != count:
        counts = np.rint(raw * np.float64(rule.scale / count) + rule.offset / count)
    elif -MISSING < (shift := round(rule.offset / count)) < 0 and raw.dtype == np.uint16:
        return _lowered(raw, np.uint16(-shift)), observed
    elif shift:
        counts = raw.astype(np.int32) + shift
    else:
        return np.minimum(raw, MISSING - 1).astype(np.uint16, copy=False), observed
    return np.clip(counts, 0, MISSING - 1).astype(np.uint16), observed


def _read(raw: Array, nodata: float) -> Bools:
    """(h, w) True where no band holds the no-data count; band by band, as a plane fits into the processor's cache."""
    none = alike(nodata, raw)
    observed: Bools = raw[0] != none
    for plane in raw[1:]:
        observed &= plane != none
    return observed


def _lowered(raw: Array, shift: np.uint16) -> Array:
    """Counts less `shift`, not below zero."""
    counts = np.empty_like(raw)
    for plane, lower in zip(raw, counts, strict=True):
        np.maximum(plane, shift, out=lower)
        lower -= shift
    return counts


def finish(work: Array, observed: Bools) -> Array:
    """Composite counts to stored counts: 65535, whose bits are all set, where nothing was observed."""
    return work.astype(np.uint16, copy=False) | (~observed * np.uint16(MISSING))
