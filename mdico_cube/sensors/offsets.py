"""Dark floors of the items of a block in, a verdict on the offset of each out: a wrong offset shows in dark pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdico_cube.spec import Array, Bools

ENOUGH = 200
"""Clear pixels below which a block says nothing about an item."""
TWICE = -0.03
"""No ground is darker than this: reflectance below it was shifted once too often."""
BRIGHT = 0.10
"""An unsubtracted offset lifts the darkest ground to at least this; so do deserts and snow."""
JUMP = 0.05
"""Two processings of the same ground differ less than this in their dark floors."""
_STRIDE = 4


@dataclass(frozen=True, slots=True)
class OffsetSentinel:
    """What a sensor with changing offsets is watched by."""

    scale: float
    """Reflectance per count."""
    era: Callable[[Mapping[str, Any]], bool | None]
    """Item properties -> True where its processing adds an offset, False where not, None where they do not say."""
    taken_out: Callable[[Mapping[str, Any]], bool]
    """Item properties -> True where they say that the offset was taken out again."""


def dark_floor(raw: Array, seen: Bools, scale: float, offset: float) -> float:
    """Reflectance of the darkest ground: raw counts (C, h, w) and (h, w) True = clear to one number.

    It is the first percentile of the darkest band, before anything is clipped at zero; NaN where too little is clear.
    """
    step = _STRIDE if min(seen.shape) >= 32 * _STRIDE else 1
    clear = raw[:, ::step, ::step][:, seen[::step, ::step]]  # (C, N)
    if clear.shape[1] < ENOUGH:
        return float("nan")
    rank = clear.shape[1] // 100
    return float(np.partition(clear, rank, axis=1)[:, rank].min() * scale + offset)


def judge_floors(floors: Mapping[str, float], eras: Mapping[str, bool | None]) -> dict[str, str]:
    """Items whose offset looks wrong, each with why; items that look right are not in it.

    Args:
        floors: item -> dark floor after its offset, all of the same ground.
        eras: item -> whether its processing adds an offset; None where it is not known.
    """
    known = {item: floor for item, floor in floors.items() if np.isfinite(floor)}
    late = [floor for item, floor in known.items() if eras.get(item) is True]
    early = [floor for item, floor in known.items() if eras.get(item) is False]
    jump = float(np.median(late) - np.median(early)) if late and early else None
    found = {}
    for item, floor in known.items():
        if floor < TWICE:
            found[item] = "darker than any ground: was the offset subtracted twice?"
        elif jump is not None and jump > JUMP and eras.get(item) is True:
            found[item] = "brighter than the scenes of older processings: was the offset not subtracted?"
        elif jump is None and floor > BRIGHT:
            found[item] = "no dark ground: bright land, snow, or an offset that was not subtracted"
    return found


def doubt_rule(sentinel: OffsetSentinel, properties: Mapping[str, Any], offset: float) -> str:
    """What an item's own processing has against the offset that was decided, before any pixel is read; "" = nothing."""
    added = sentinel.era(properties)
    if added and not offset and not sentinel.taken_out(properties):
        return "its processing adds an offset, and none is taken out"
    if added is False and offset:
        return "an offset is taken out that its processing never added"
    return ""
