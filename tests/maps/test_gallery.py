"""The pictures of a report, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from mdico_cube.maps.gallery import abreast
from mdico_cube.maps.images import QuickLook


@pytest.mark.parametrize(
    ("count", "rows"), [(0, []), (1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [2, 3]), (7, [2, 3, 2]), (9, [3, 3, 3])]
)
def test_no_picture_stands_alone_beside_rows_of_several(count: int, rows: list[int]) -> None:
    looks = [QuickLook(np.zeros((2, 2, 3), np.uint8), str(k), (), ()) for k in range(count)]
    got = abreast(looks)
    assert sorted(len(row) for row in got) == sorted(rows)
    assert [look.title for row in got for look in row] == [look.title for look in looks]
