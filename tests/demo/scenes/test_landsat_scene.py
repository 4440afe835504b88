"""Landsat as written: the point-aligned grid, scale and offset, quality bits."""

from __future__ import annotations

import numpy as np
import pystac
import rasterio

Items = dict[str, list[pystac.Item]]


def read(item: pystac.Item, band: str) -> np.ndarray:
    with rasterio.open(item.assets[band].get_absolute_href()) as file:
        return file.read(1)


def test_landsat_grid_scale_and_bits(items: Items) -> None:
    group = items["landsat-c2-l2"]
    assert {item.properties["platform"] for item in group} == {"landsat-8", "landsat-9"}
    clear_red = []
    for item in group:
        with rasterio.open(item.assets["red"].get_absolute_href()) as file:
            assert file.transform.a == 30
            assert file.bounds.left % 30 == file.bounds.top % 30 == 15
        declared = item.assets["red"].extra_fields["raster:bands"][0]
        assert (declared["scale"], declared["offset"]) == (2.75e-05, -0.2)
        quality, red = read(item, "qa_pixel"), read(item, "red") * declared["scale"] + declared["offset"]
        assert not (quality[1:-1, 1:-1] & 1).any()
        clear = quality & 0b11111 == 0
        assert not (quality[clear] & (1 << 3)).any()
        clear_red.extend(red[clear])
    assert 0.02 < np.median(clear_red) < 0.12
