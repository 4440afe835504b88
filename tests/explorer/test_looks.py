"""Which pictures a sensor's bands give, and that they show what they say."""

from __future__ import annotations

import numpy as np
import pytest

from mdico_cube.errors import MdicoError
from mdico_cube.explorer.looks import Look, channels, limits, looks, paint, parse_look
from mdico_cube.maps.images import BLANK
from mdico_cube.sensors.registry import SENSORS


def test_every_sensor_on_the_grid_has_a_picture_and_each_band_one_of_its_own() -> None:
    for sensor in SENSORS.values():
        found = [look for look, _ in looks(sensor.modality)]
        singles = [look.bands[0] for look in found if look.kind == "one"]
        assert singles == list(sensor.modality.band_names)
        for look in found:
            assert parse_look(look.key, sensor.modality) == look
    titles = {name: [title for _, title in looks(sensor.modality)] for name, sensor in SENSORS.items()}
    assert {"true colour", "NDVI"} <= set(titles["sentinel2"]) & set(titles["landsat"])
    assert titles["sentinel1"][0] == "VV, VH, VV - VH"


@pytest.mark.parametrize("text", ["", "rgb", "rgb:B04", "rgb:B04,B03,nir", "one:../x", "sepia:B04"])
def test_a_picture_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MdicoError, match=r"Write KIND:BAND,BAND"):
        parse_look(text, SENSORS["sentinel2"].modality)


def test_ndvi_is_ndvi() -> None:
    bands = np.array([0.5, 0.1, np.nan], np.float32)[None, :, None] * np.array([1, 0.2])[:, None, None]
    found = channels(Look("difference", ("B08", "B04")), bands.reshape(2, 1, 3).astype(np.float32))
    assert np.allclose(found[0, 0, :2], 0.8 / 1.2)
    assert np.isnan(found[0, 0, 2])
    zero = channels(Look("difference", ("B08", "B04")), np.zeros((2, 1, 1), np.float32))
    assert np.isnan(zero).all(), "nothing over nothing is not observed, and no warning"


def test_brighter_pixels_are_brighter_and_gaps_are_grey() -> None:
    look, values = Look("rgb", ("B11", "B08", "B04")), np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2)
    values[1, 1, 1] = np.nan
    found = limits(look, np.random.default_rng(0).random((500, 3)).astype(np.float32))
    image = paint(look, values, found, 10.0)
    assert image.shape == (2, 2, 3)
    assert (image[1, 1] == np.float32(BLANK)).all()
    assert image[0, 0, 0] < image[0, 1, 0] < image[1, 0, 0]


def test_true_colours_share_one_range() -> None:
    sample = np.random.default_rng(0).random((500, 3)).astype(np.float32) * [1, 2, 3]
    assert len(set(limits(Look("rgb", ("B04", "B03", "B02")), sample))) == 1
    assert len(set(limits(Look("rgb", ("B08", "B04", "B03")), sample))) == 3
