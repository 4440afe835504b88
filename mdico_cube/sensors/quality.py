"""A quality layer in, True where the ground was seen out: classes or bits that hide it, widened by some pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.spec import Array, Bools


@dataclass(frozen=True, slots=True)
class Quality:
    """How a sensor's quality layer says what was seen."""

    dtype: Literal["uint8", "uint16"]
    missing: int
    """Value where the scene has no data; for bits, the bit that says so as a number."""
    hides: tuple[int, ...]
    """Classes, or numbers of bits, that hide the ground unless the source names others."""
    meaning: dict[int, str]
    """Every class or bit and what it is."""
    bits: bool = False
    """True: a value is a set of bits; False: it is the number of a class."""


def seen(layer: Array, quality: Quality, hides: tuple[int, ...], dilate: int = 0) -> Bools:
    """Quality values (h + 2 dilate, w + 2 dilate) to (h, w) True where the ground was seen.

    Hidden ground is widened by `dilate` pixels along rows and columns; the edge of a scene and gaps in it are not.
    """
    if quality.bits:
        hidden = (layer & sum(1 << bit for bit in hides)) != 0
        absent = (layer & quality.missing) != 0
    else:
        lookup = np.zeros(np.iinfo(quality.dtype).max + 1, dtype=bool)
        lookup[list(hides)] = True
        hidden, absent = lookup.take(layer), layer == quality.missing
    hidden &= ~absent
    if dilate:
        core = slice(dilate, -dilate)
        hidden, absent = _widened(_widened(hidden, dilate).T, dilate).T, absent[core, core]
    return np.asarray(~(hidden | absent), dtype=bool)


def _widened(mask: Bools, by: int) -> Bools:
    """(n, w) to (n - 2 by, w): True where any of the 2 by + 1 rows around is; the reach doubles with every step."""
    reach, width = 1, 2 * by + 1
    while 2 * reach <= width:
        mask = mask[:-reach] | mask[reach:]
        reach *= 2
    rest = width - reach
    return mask[: mask.shape[0] - rest] | mask[rest:]


def hidden_by(name: str, quality: Quality | None, source: Source) -> tuple[int, ...]:
    """What hides the ground in this source: its own list, else the sensor's.

    Raises:
        MdicoError: the source names a class or bit that the sensor's quality layer does not have.
    """
    if quality is None or source.hide is None:
        return () if quality is None else quality.hides
    unknown = [number for number in source.hide if number not in quality.meaning]
    if unknown:
        kind = "bits" if quality.bits else "classes"
        known = ", ".join(f"{number} {meaning}" for number, meaning in quality.meaning.items())
        raise MdicoError(f"{name}: source.hide names {', '.join(map(str, unknown))}, but the {kind} are: {known}.")
    return source.hide
