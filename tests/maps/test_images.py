from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.maps import images
from mdico_cube.maps.images import colored, map_classes, metres_per_pixel, over_time, quick_look, stretched, thinned
from mdico_cube.maps.write import map_path, open_map, write_map


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 50))
def test_thinned_equals_every_nth_pixel_of_the_whole(height, width, shard, side):
    whole = np.arange(2 * height * width).reshape(2, height, width)
    reader = SimpleNamespace(shape=(height, width), shard=shard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "SIDE", side)
        step = images.stride(reader)
        assert np.array_equal(thinned(reader, lambda y, x: whole[:, y, x]), whole[:, ::step, ::step])
        assert max(-(-height // step), -(-width // step)) <= side


def test_a_quick_look_says_what_its_colours_are(run):
    optical = quick_look(run.reader, "sentinel2")
    assert optical.title == "Sentinel-2\ntrue colour (2021-04)" or optical.title.startswith(
        "Sentinel-2\ntrue colour (2021-0"
    )
    assert optical.image.shape == (*run.shape, 3)
    assert optical.image.min() >= 0
    assert optical.image.max() <= 1
    _, valid = run.reader.read("sentinel2", *run.everything)
    assert optical.availability == pytest.approx(valid.mean(axis=(1, 2)))
    assert np.allclose(optical.image[5:9, 30:44], images.BLANK)
    assert quick_look(run.reader, "sentinel1").title == "Sentinel-1\nmean VV, VH, VV - VH in dB (4 steps)"
    assert "hillshade" in quick_look(run.reader, "dem").title


def test_true_colour_keeps_the_order_red_green_blue():
    series = np.stack([np.full((1, 9, 9), level) for level in (0.9, 0.5, 0.1)], axis=1).astype(np.float32)
    series += np.random.default_rng(0).normal(0, 0.01, series.shape).astype(np.float32)
    image, _ = images.true_color(series, np.ones((1, 9, 9), bool), ("2021-06-01",), 10.0)
    red, green, blue = image.mean(axis=(0, 1))
    assert red > green > blue


def test_over_time_leaves_out_what_was_not_observed():
    series = np.array([1.0, np.nan, 3.0], np.float32).reshape(3, 1, 1, 1)
    assert over_time(np.nanmean, series)[0, 0, 0] == 2
    assert np.isnan(over_time(np.nanmean, np.full((3, 1, 1, 1), np.nan, np.float32))).all()


def test_an_image_without_any_value_is_blank():
    assert np.allclose(stretched(np.full((3, 4, 4), np.nan, np.float32)), images.BLANK)


def test_a_map_is_read_as_class_indices(run):
    path = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))
    index = map_classes(run.reader, path)
    values = np.array([item.value for item in run.classes] + [255])
    assert np.array_equal(values[index], open_map(path)["class"].values)
    picture = colored(index, run.classes)
    assert np.allclose(picture[index == 2], np.array([0x2E, 0x7D, 0x32]) / 255)


def test_pixel_size_is_known_on_metric_grids(run):
    assert metres_per_pixel(run.reader) == 10.0
