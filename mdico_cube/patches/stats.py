"""Training windows in, mean and standard deviation per band out, one pass, any number of windows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mdico_cube.spec import BandStats, Bools, Floats

Doubles = npt.NDArray[np.float64]


class RunningStats:
    """Mean and spread per band over observed pixels, merged part by part (Chan, Golub and LeVeque, 1979)."""

    def __init__(self, bands: int) -> None:
        self._count = 0
        self._mean = np.zeros(bands)
        self._spread = np.zeros(bands)

    def add(self, values: Floats, observed: Bools) -> None:
        """Add windows (N, T, C, h, w) in physical units with (N, T, h, w) True = observed."""
        part = np.moveaxis(values, 2, -1)[observed].astype(np.float64)  # (observed pixels, C)
        if len(part):
            mean = part.mean(axis=0)
            self.merge(len(part), mean, ((part - mean) ** 2).sum(axis=0))

    def merge(self, count: int, mean: Doubles, spread: Doubles) -> None:
        """Add what another one has counted; see `parts`."""
        if not count:
            return
        total, shift = self._count + count, mean - self._mean
        self._spread += spread + shift**2 * self._count * count / total
        self._mean += shift * count / total
        self._count = total

    def parts(self) -> tuple[int, list[float], list[float]]:
        """Count, mean and sum of squared differences per band, as plain numbers."""
        return self._count, [float(value) for value in self._mean], [float(value) for value in self._spread]

    def result(self) -> BandStats:
        """The statistics so far; a band that never varies gets a standard deviation of 1."""
        std = np.sqrt(self._spread / max(self._count, 1))
        std = np.where(std > 1e-9, std, 1.0)
        return BandStats(tuple(map(float, self._mean)), tuple(map(float, std)), self._count)
