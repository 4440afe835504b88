"""Masks: which classes and bits hide the ground, and how far they are widened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Source
from mdico_cube.sensors.landsat import QA_PIXEL
from mdico_cube.sensors.quality import hidden_by, seen
from mdico_cube.sensors.sentinel2 import SCL
from mdico_cube.spec import Array, Bools


@pytest.mark.parametrize(
    ("bits", "clear"),
    [
        (0b0000_0000_0000_0001, False),  # fill
        (0b0101_0101_0100_0000, True),  # clear, every confidence low (21824 in the USGS table)
        (0b0101_0101_1100_0000, True),  # water (21952)
        (0b0101_0101_0000_0010, False),  # dilated cloud
        (0b1101_0101_0100_0100, False),  # cirrus
        (0b0101_0111_0000_1000, False),  # cloud
        (0b0101_1101_0001_0000, False),  # cloud shadow
        (0b0111_0101_0010_0000, False),  # snow
    ],
)
def test_landsat_bits(bits: int, clear: bool) -> None:
    assert seen(np.array([[bits]], dtype=np.uint16), QA_PIXEL, QA_PIXEL.hides).item() is clear


def test_the_source_chooses_classes_and_bits() -> None:
    scl = np.arange(12, dtype=np.uint8)[None]
    assert np.flatnonzero(~seen(scl, SCL, (9,))[0]).tolist() == [0, 9], "no data is never seen"
    snow = np.array([[1 << 5, 1 << 3]], dtype=np.uint16)
    assert seen(snow, QA_PIXEL, (3,)).tolist() == [[True, False]]


def naive(layer: Array, absent: Bools, hidden: Bools, dilate: int) -> Bools:
    rows, columns = layer.shape[0] - 2 * dilate, layer.shape[1] - 2 * dilate
    out = np.empty((rows, columns), dtype=bool)
    for i in range(rows):
        for j in range(columns):
            near = hidden[i : i + 2 * dilate + 1, j : j + 2 * dilate + 1].any()
            out[i, j] = not near and not absent[i + dilate, j + dilate]
    return out


@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_widening_equals_a_naive_loop(dilate: int, seed: int) -> None:
    scl = np.random.default_rng(seed).choice([0, 4, 4, 4, 4, 4, 5, 6, 9, 3], (11, 13)).astype(np.uint8)
    expected = naive(scl, scl == 0, np.isin(scl, SCL.hides), dilate)
    np.testing.assert_array_equal(seen(scl, SCL, SCL.hides, dilate), expected)


@pytest.mark.parametrize("fill", [1, 1 | 1 << 3])
def test_gaps_are_not_widened(fill: int) -> None:
    qa = np.full((9, 9), 21824, dtype=np.uint16)
    qa[:, 4] = fill
    assert (~seen(qa, QA_PIXEL, QA_PIXEL.hides, 2)).sum() == 5, "only the gap itself"


def test_an_unknown_class_is_refused_by_name() -> None:
    with pytest.raises(MdicoError, match=r"sentinel2: source.hide names 12, 15, but the classes are: 0 no data"):
        hidden_by("sentinel2", SCL, Source(collection="c", hide=(3, 12, 15)))
    assert hidden_by("sentinel2", SCL, Source(collection="c")) == SCL.hides
    assert hidden_by("landsat", QA_PIXEL, Source(collection="c", hide=())) == ()
    assert hidden_by("dem", None, Source(collection="c", hide=(3,))) == ()
