"""What each sensor observed in, the one that maps each pixel out; bundles in, their order from the best out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mdico_cube.errors import MdicoError
from mdico_cube.maps.forms import Loaded
from mdico_cube.spec import Bools


def assign(masks: Sequence[Bools], wanted: Bools, least: int = 1, settle: bool = True) -> npt.NDArray[np.int16]:
    """The sensor that maps each pixel: the first with enough observed steps, else the first with any.

    Args:
        masks: (T, h, w) True = observed, per sensor from the best to the last; T may differ.
        wanted: (h, w) True = to be mapped.
        least: steps that are enough; a sensor with fewer steps at all needs all of them.
        settle: let pixels where no sensor has enough take the first with any.

    Returns:
        (h, w) number of the sensor, -1 where none was observed or nothing is wanted.
    """
    chosen = np.full(wanted.shape, -1, np.int16)
    counts = [mask.sum(axis=0) for mask in masks]
    for enough in (least, 1) if settle else (least,):
        for number, (mask, count) in enumerate(zip(masks, counts, strict=True)):
            chosen[wanted & (chosen < 0) & (count >= min(enough, len(mask)))] = number
    return chosen


def ranked(bundles: Sequence[Loaded]) -> list[Loaded]:
    """Bundles from the best to the last by the macro F1 (R2 of a value) of each sensor alone on its validation split.

    Raises:
        MdicoError: none, two of one sensor, or bundles of other classes or splits.
    """
    if not bundles:
        raise MdicoError("a map needs a bundle, none came. Name the folder of one, or of several.")
    first = bundles[0].configs[0]
    for other in bundles[1:]:
        config = other.configs[0]
        if len(other.sensors) > 1 or len(bundles[0].sensors) > 1:
            raise MdicoError(f"bundle {other.path}: fuses sensors and cannot be chosen among. Name it alone.")
        if (config.classes, config.task.kind) != (first.classes, first.task.kind):
            raise MdicoError(f"bundle {other.path}: has other classes than {bundles[0].path}. Train them together.")
        if config.protocol != first.protocol:
            raise MdicoError(
                f"bundle {other.path}: was validated by another protocol than {bundles[0].path}, so that their scores "
                "do not compare. Train them together."
            )
    names = [bundle.sensors[0] for bundle in bundles]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise MdicoError(f"bundles: two of them map with {twice[0]}. Name one bundle per sensor.")
    return sorted(bundles, key=_figure, reverse=True)


def _figure(bundle: Loaded) -> float:
    training = bundle.configs[0].training
    known = training.val_r2 if bundle.task == "regression" else training.val_f1
    return -math.inf if known is None else known
