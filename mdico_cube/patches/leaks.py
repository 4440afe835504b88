"""Windows that were drawn in, a refusal out if any of them would leak from held-out ground into training."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from mdico_cube.errors import MdicoError
from mdico_cube.patches.splits import FOLDS, STRICTER, Ints, LabelReader, Split
from mdico_cube.patches.windows import Windows, window_folds
from mdico_cube.spec import Bools

_TILE = 512  # side of the pieces in which labels are read again, in pixels


def touching(y: Ints, x: Ints, other_y: Ints, other_x: Ints, side: int, guard: int) -> Bools:
    """True for the windows that lie within `guard` pixels of one of the others: squares of `side` pixels, exactly.

    Two windows touch at distance 1; the pixels between their edges are what is counted (Chebyshev distance).
    """
    tree = cKDTree(np.column_stack([other_y, other_x]).astype(np.float64))
    reach = side + guard  # first pixels that far apart leave `guard` pixels between the windows
    found, _ = tree.query(
        np.column_stack([y, x]).astype(np.float64), p=np.inf, distance_upper_bound=reach - 0.5, workers=1
    )
    return np.asarray(np.isfinite(found))


def check_windows(reader: LabelReader, split: Split, windows: Windows) -> None:
    """Refuse windows that would leak, told from the labels and the windows alone, not from how they were drawn.

    Laws: no training window lies within `guard` pixels of a held-out window, nor of a held-out pixel that is scored
    (and no validation window so near to test ones); no group stands in two folds.

    Raises:
        MdicoError: a window breaks one of them.
    """
    for loose, strict in STRICTER.items():
        here, there = (np.flatnonzero(np.isin(windows.fold, folds)) for folds in ((loose,), strict))
        if not here.size or not there.size:
            continue
        near = touching(windows.y[here], windows.x[here], windows.y[there], windows.x[there], windows.side, split.guard)
        if near.any():
            raise MdicoError(_leak(windows, int(here[near][0]), f"within {split.guard} pixels of a held-out window"))
        if windows.group is not None:
            mine = windows.group[here]
            shared = (mine > 0) & np.isin(mine, windows.group[there])
            if shared.any():
                raise MdicoError(_leak(windows, int(here[shared][0]), "in a parcel or group of a held-out window"))
    wrong = _misplaced(reader, split, windows)
    if wrong.any():
        raise MdicoError(
            _leak(windows, int(np.flatnonzero(wrong)[0]), "on or too near to pixels of another fold, or of none")
        )


def _leak(windows: Windows, index: int, where: str) -> str:
    (name,) = [name for name, fold in FOLDS.items() if fold == windows.fold[index]]
    return (
        f"samples: the {name} window at row {windows.y[index]}, column {windows.x[index]} lies {where}: that would "
        "leak. Draw the samples again with --overwrite; if it stays, report it."
    )


def _misplaced(reader: LabelReader, split: Split, windows: Windows) -> Bools:
    """True for windows that are not of the fold which the labels around them tell."""
    wrong = np.zeros(len(windows), dtype=bool)
    key = (windows.y // _TILE) * (1 << 32) + windows.x // _TILE
    order = np.argsort(key, kind="stable")
    side = windows.side
    for index in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if index.size:
            y, x, fold = windows.y[index], windows.x[index], windows.fold[index]
            rows, columns = slice(int(y.min()), int(y.max()) + side), slice(int(x.min()), int(x.max()) + side)
            raw, wide_y, wide_x = split.around(reader, rows, columns, split.guard)
            found = window_folds(raw, y - wide_y.start, x - wide_x.start, side, split.guard)
            wrong[index] = found != fold
    return wrong
