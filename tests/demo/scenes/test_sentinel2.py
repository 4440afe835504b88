"""Two granules in two zones see the same land at the same time; the baseline changes half way and adds 1000."""

from __future__ import annotations

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from shapely.geometry import box

from mdico_cube.demo.landscape import WATER
from mdico_cube.demo.scenes.sentinel2 import COARSE, FINE
from mdico_cube.demo.world import World

Items = dict[str, list[pystac.Item]]


def read(item: pystac.Item, band: str) -> np.ndarray:
    with rasterio.open(item.assets[band].get_absolute_href()) as file:
        return file.read(1)


def tile(items: Items, name: str) -> list[pystac.Item]:
    return [item for item in items["sentinel-2-l2a"] if item.properties["s2:mgrs_tile"] == name]


def test_dates_and_baselines(items: Items) -> None:
    west, east = tile(items, "31UGS"), tile(items, "32UKB")
    assert len(west) == len(east) == 25
    for one, two in zip(west, east, strict=True):
        assert 0 < (two.datetime - one.datetime).total_seconds() < 10
        assert one.properties["proj:code"] == "EPSG:32631"
        assert two.properties["proj:code"] == "EPSG:32632"
        for item in (one, two):
            assert item.properties["s2:processing_baseline"] == ("04.00" if item.datetime.month >= 7 else "03.01")
            assert set(item.assets) == {*FINE, *COARSE, "SCL"}
            assert [item.assets[b].extra_fields["gsd"] for b in ("B04", "B05", "SCL")] == [10, 20, 20]
            assert not any("offset" in a.extra_fields["raster:bands"][0] for a in item.assets.values())


def test_each_granule_has_two_thirds_and_both_have_all(items: Items, world: World) -> None:
    region = box(*world.landscape.frame.bounds)
    back = Transformer.from_crs(32632, 32631, always_xy=True).transform
    parts = []
    for name in ("31UGS", "32UKB"):
        item = tile(items, name)[0]
        with rasterio.open(item.assets["B04"].get_absolute_href()) as file:
            outline = box(*file.bounds)
        parts.append(
            (shapely.transform(outline, back, interleaved=False) if name == "32UKB" else outline).intersection(region)
        )
    assert all(0.6 < part.area / region.area < 0.78 for part in parts)
    assert parts[0].union(parts[1]).area == pytest.approx(region.area, rel=1e-3)


def test_offset_comes_with_the_baseline(items: Items) -> None:
    floors = {"03.01": [], "04.00": []}
    for item in items["sentinel-2-l2a"]:
        if item.properties["eo:cloud_cover"] < 20:
            counts = read(item, "B12")
            floors[item.properties["s2:processing_baseline"]].append(np.quantile(counts[counts > 0], 0.005))
    assert max(floors["03.01"]) < 700
    assert 900 < min(floors["04.00"]) < 1300


def clearest(items: Items) -> tuple[pystac.Item, pystac.Item]:
    pairs = zip(tile(items, "31UGS"), tile(items, "32UKB"), strict=True)
    return min(pairs, key=lambda pair: sum(item.properties["eo:cloud_cover"] for item in pair))


def test_granules_agree_where_they_overlap(items: Items) -> None:
    one, two = clearest(items)
    with rasterio.open(one.assets["B08"].get_absolute_href()) as file:
        first, grid = file.read(1).astype(float), file.profile
    with (
        rasterio.open(two.assets["B08"].get_absolute_href()) as file,
        WarpedVRT(
            file, crs=grid["crs"], transform=grid["transform"], width=grid["width"], height=grid["height"],
            resampling=Resampling.bilinear,
        ) as warped,
    ):  # fmt: skip
        second = warped.read(1).astype(float)

    def alike(down: int, right: int) -> float:
        moved = np.roll(second, (down, right), axis=(0, 1))
        both = (np.roll(second, (down, right), axis=(0, 1)) > 0) & (first > 0)
        both[:3] = both[-3:] = False
        return float(np.corrcoef(first[both], moved[both])[0, 1])

    shifts = {(i, j): alike(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert max(shifts, key=lambda shift: shifts[shift]) == (0, 0)
    assert shifts[(0, 0)] > 0.97


def test_image_lies_on_the_truth(items: Items, world: World) -> None:
    one, _ = clearest(items)
    with rasterio.open(one.assets["B08"].get_absolute_href()) as file:
        counts, left, top = file.read(1).astype(float), file.bounds.left, file.bounds.top
    frame = world.landscape.frame
    row, col = round((top - frame.top) / 10), round((frame.left - left) / 10)
    water = world.landscape.truth() == WATER + 1
    width = min(water.shape[1], counts.shape[1] - col) - 2

    def brightness(down: int, right: int) -> float:
        window = counts[row + down : row + down + frame.size, col + right : col + right + width]
        return float(np.median(window[water[: window.shape[0], :width]]))

    centre = brightness(0, 0)
    assert all(centre <= brightness(i, j) for i in (-2, 0, 2) for j in (0, 2) if row + i >= 0)


def test_scene_classes_mean_what_they_say(items: Items) -> None:
    seen: dict[int, list[np.ndarray]] = {}
    for item in tile(items, "31UGS"):
        offset = 1000 if item.properties["s2:processing_baseline"] >= "04.00" else 0
        scl, swir = read(item, "SCL"), read(item, "B05").astype(float) - offset
        assert set(np.unique(scl)) <= {0, 3, 4, 5, 6, 7, 8, 9, 10}
        for value in np.unique(scl):
            seen.setdefault(int(value), []).append(swir[scl == value])
        counted = 100 * np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(counted, abs=1e-3)
    mean = {value: float(np.concatenate(parts).mean()) for value, parts in seen.items()}
    assert mean[9] > mean[8] > mean[5] > mean[4] > mean[3] or mean[9] > mean[8] > 2 * mean[3]


def test_no_data_is_zero_in_every_band(items: Items) -> None:
    item = tile(items, "32UKB")[0]
    empty = read(item, "B02") == 0
    assert 0 < empty.mean() < 0.2
    assert np.array_equal(empty, read(item, "B08") == 0)
    assert np.array_equal(read(item, "SCL") == 0, read(item, "B11") == 0)
    assert item.properties["s2:nodata_pixel_percentage"] > 0
