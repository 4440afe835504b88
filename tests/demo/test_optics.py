"""What the optical sensors measure: the mixing law, sunlit slopes, clouds with shadows, scene classes and bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mdico_cube.demo.landscape import CRS
from mdico_cube.demo.noise import generator
from mdico_cube.demo.optics import View, classify_scene, look, quality_bits
from mdico_cube.demo.sampling import Footprints, footprints, grid_over
from mdico_cube.demo.sky import CLOUDY_MONTHS, Sky, draw_sky, sun_at
from mdico_cube.demo.spectra import BANDS, SOIL, surface
from mdico_cube.demo.world import World

NOON = pd.Timestamp("2021-06-21T11:36")
FLAT = np.ones(len(BANDS), dtype=np.float32)


def clear(world: World) -> Sky:
    sky = draw_sky(0, world.landscape.frame.cells, NOON)
    return replace(sky, layers=np.zeros_like(sky.layers))


@pytest.fixture(scope="module")
def prints(world: World) -> Footprints:
    return footprints(world.landscape, grid_over(world.landscape.frame.bounds, CRS, 10, 0, 10))


def level(prints: Footprints) -> Footprints:
    zero = np.zeros_like(prints.east)
    return replace(prints, east=zero, north=zero, vigour=prints.vigour * 0, soil=prints.soil * 0)


def test_flat_clear_pixel_is_the_mix_of_its_parcels(world: World, prints: Footprints) -> None:
    ground = surface(world.season, world.materials, 171)
    view = look(generator(0, "t"), level(prints), ground, clear(world), ("B04", "B8A"), FLAT)
    for pixel in (0, 1234, 5000):
        row = prints.shares[[pixel]].tocoo()
        parcels = row.coords[1]
        mix = sum(w * ground.mean[p][[2, 7]] for w, p in zip(row.data, parcels, strict=True))
        assert np.allclose(view.ground[pixel], np.maximum(mix, 0.002), rtol=1e-3)
    error = view.reflectance - view.ground
    assert np.abs(error.mean(axis=0)).max() < 1e-3
    assert (error.std(axis=0) < 0.01).all()


def test_slopes_towards_the_sun_are_brighter(world: World, prints: Footprints) -> None:
    sky = clear(world)
    sunny = replace(level(prints), north=np.where(np.arange(prints.north.size) % 2, 0.1, -0.1).astype(np.float32))
    ground = surface(world.season, world.materials, 171)
    bright = look(generator(0, "t"), sunny, ground, sky, ("B08",), FLAT).ground[
        1::2
    ]  # rises to the north, so it faces the sun
    dark = look(generator(0, "t"), sunny, ground, sky, ("B08",), FLAT).ground[::2]
    even = look(generator(0, "t"), level(prints), ground, sky, ("B08",), FLAT).ground
    assert (bright > even[1::2]).all()
    assert (dark < even[::2]).all()


def test_wet_soil_is_darker(world: World) -> None:
    bare = replace(world.season, green=world.season.green * 0, straw=world.season.straw * 0)
    wet, dry = (
        surface(
            replace(bare, weather=replace(bare.weather, moisture=bare.weather.moisture * 0 + np.float32(m))),
            world.materials,
            10,
        )
        for m in (0.9, 0.1)
    )
    fields = world.landscape.kind < 4
    assert (wet.mean[fields] < dry.mean[fields]).all()
    assert np.allclose(dry.mean[fields].mean(axis=0) / SOIL, 0.93, atol=0.2)


def test_shadows_lie_away_from_the_sun() -> None:
    sun = sun_at(NOON)
    assert sun.elevation == pytest.approx(62.7, abs=1)
    assert sun.azimuth == pytest.approx(180, abs=5)
    winter, morning = sun_at(pd.Timestamp("2021-12-21T11:36")), sun_at(pd.Timestamp("2021-06-21T07:00"))
    assert winter.elevation == pytest.approx(15.9, abs=1)
    assert 75 < morning.azimuth < 110
    side = 200
    for seed in range(40):
        layers = draw_sky(seed, 4 * side, NOON).layers.reshape(side, side, 5)
        cloud, shadow = layers[..., 0], layers[..., 1]
        if 0.1 < cloud.mean() < 0.5:
            best = max(range(-90, 91), key=lambda s: float((np.roll(cloud, s, axis=0) * (1 - cloud) * shadow).sum()))
            assert best < 0  # the sun stands in the south, so shadows fall to the north
            return
    pytest.fail("no broken sky in 40 draws")


def test_one_season_is_overcast() -> None:
    def closed(months: tuple[int, ...]) -> float:
        times = [pd.Timestamp(2021, month, day, 11) for month in months for day in (3, 9, 15, 21, 27)]
        skies = [draw_sky(seed, 480, time).layers[:, 0] for seed in range(4) for time in times]
        return float(np.mean([(sky > 0.3).mean() for sky in skies]))

    assert closed(CLOUDY_MONTHS) > 0.8
    assert 0.3 < closed((4, 6, 8)) < 0.75


def view_of(cloud: list[float], shadow: list[float], cirrus: list[float], red: list[float], nir: list[float]) -> View:
    pair = np.stack([np.array(red), np.array(nir)], axis=1).astype(np.float32)
    zero = np.zeros(len(cloud), dtype=np.float32)
    return View(
        pair, np.array(cloud, np.float32), np.array(shadow, np.float32), np.array(cirrus, np.float32), zero, pair
    )


def test_scene_classes() -> None:
    view = view_of(
        cloud=[0.9, 0.5, 0.27, 0.1, 0, 0, 0, 0, 0],
        shadow=[0, 0, 0, 0, 0.8, 0, 0, 0, 0],
        cirrus=[0, 0, 0, 0, 0, 0.06, 0, 0, 0],
        red=[0.5, 0.3, 0.1, 0.03, 0.02, 0.03, 0.03, 0.15, 0.03],
        nir=[0.5, 0.4, 0.3, 0.4, 0.1, 0.4, 0.02, 0.2, 0.4],
    )
    inside = np.arange(9) < 8
    classes = classify_scene(view, ("B04", "B8A"), inside)
    assert classes.tolist() == [9, 8, 7, 4, 3, 10, 6, 5, 0]


def test_quality_bits() -> None:
    view = view_of(
        cloud=[0] * 9 + [0.9],
        shadow=[0, 0, 0, 0.8, 0, 0, 0, 0, 0, 0],
        cirrus=[0, 0, 0, 0, 0.08, 0, 0, 0, 0, 0],
        red=[0.05] * 10,
        nir=[0.4, 0.02, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5],
    )
    bits = quality_bits(view, ("B04", "B8A"), (1, 10), np.arange(10) != 2)
    assert bits[0] == 21824  # what the archive writes for clear land
    assert bits[1] == 21952  # clear water
    assert bits[2] == 1
    assert bits[3] & (1 << 4)
    assert bits[4] & (1 << 2)
    assert bits[9] & (1 << 3)
    assert not bits[9] & (1 << 6)
    assert [int(b) >> 1 & 1 for b in bits[6:]] == [0, 1, 1, 0]
