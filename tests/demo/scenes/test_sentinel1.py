"""Sentinel-1 as written: both orbit directions, linear power."""

from __future__ import annotations

import numpy as np
import pystac
import rasterio

Items = dict[str, list[pystac.Item]]


def read(item: pystac.Item, band: str) -> np.ndarray:
    with rasterio.open(item.assets[band].get_absolute_href()) as file:
        return file.read(1)


def test_sentinel1_passes_in_both_directions(items: Items) -> None:
    group = items["sentinel-1-rtc"]
    states = [item.properties["sat:orbit_state"] for item in group]
    assert (states.count("ascending"), states.count("descending")) == (12, 13)
    for item in group:
        vv, vh = read(item, "vv"), read(item, "vh")
        assert vv.dtype == np.float32
        assert min(vv.min(), vh.min()) > 0
        assert 2 < 10 * np.log10(vv.mean() / vh.mean()) < 12
        assert item.datetime.hour == (17 if item.properties["sat:orbit_state"] == "ascending" else 5)
