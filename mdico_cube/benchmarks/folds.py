"""Classes and groups of pixels in, who trains and who is scored out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from mdico_cube.benchmarks.pixel_series import PixelSeries
from mdico_cube.errors import MdicoError

Rows = npt.NDArray[np.int64]
Fold = tuple[Rows, Rows]
"""Row numbers that train, and row numbers that are scored."""


def series_folds(series: PixelSeries, folds: int, protocol: str, seed: int = 0) -> list[Fold]:
    """The official split where the benchmark has one; else K folds of its rows, see `make_folds`.

    Raises:
        MdicoError: more folds than groups, or a class that the training part of a fold would lack.
    """
    if series.official is not None:
        return [(np.flatnonzero(~series.official), np.flatnonzero(series.official))]
    if series.task == "classes":
        return make_folds(series.target, series.groups, series.classes, folds, protocol, seed)
    honest = protocol == "honest"
    check_folds(folds, series.groups if honest else np.arange(len(series.target)))
    maker = (GroupKFold if honest else KFold)(folds, shuffle=True, random_state=seed)
    return list(maker.split(series.target, groups=series.groups if honest else None))


def check_folds(folds: int, groups: Rows) -> None:
    """Raise MdicoError where there are more folds than groups, or a single one."""
    units = len(np.unique(groups))
    if units == 1:
        raise MdicoError(
            "every sample is in the same group, so that none can be held out. Choose another group column."
        )
    if not 2 <= folds <= units:
        raise MdicoError(f"{folds} folds cannot be made of {units} groups. Use from 2 to {units} folds.")


def make_folds(
    target: Rows, groups: Rows, classes: Sequence[str], folds: int, protocol: str, seed: int = 0
) -> list[Fold]:
    """K folds of similar class shares: whole groups under the protocol "honest", single pixels under "paper".

    Args:
        target: (N,) class index.
        groups: (N,) group number.
        classes: names, for the message.
        folds: K.
        protocol: "honest" or "paper".
        seed: of the shuffle.

    Raises:
        MdicoError: more folds than groups, or a class that the training part of a fold would lack.
    """
    honest = protocol == "honest"
    check_folds(folds, groups if honest else np.arange(len(target)))
    maker = StratifiedGroupKFold if honest else StratifiedKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        split = list(maker(folds, shuffle=True, random_state=seed).split(target, target, groups if honest else None))
    for number, (train, _) in enumerate(split, start=1):
        lacking = [name for k, name in enumerate(classes) if k not in target[train]]
        if lacking:
            raise MdicoError(
                f"fold {number} would train without class {', '.join(lacking)}: all its pixels are in one group. "
                "Use another group column, or a larger min_samples to leave the class out."
            )
    return [(train.astype(np.int64), test.astype(np.int64)) for train, test in split]
