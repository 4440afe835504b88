"""Weather on a coarse grid, read on the pixels: bilinear, the same in every block, at the height of the ground."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from mdico_cube.cube.coarse import CoarseLayer, interpolate, pixel_degrees
from mdico_cube.cube.layer import Layer, describe_layer, layer_from
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import CubeReader, forget_readers, open_cube, open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import Array, Band, Modality, Storage

WEATHER = Modality(
    "weather", "weather", (Band("t", "K", lapses=True), Band("p", "mm")), Storage("float32", 1.0, np.nan), coarse=True
)
STEPS = ("2021-01-01", "2021-02-01")
LATITUDES, LONGITUDES = np.arange(50.75, 50.0, -0.25), np.arange(5.5, 6.3, 0.25)
RATE = 0.0065


def coarse_layer(values: Array, heights: Array | None = None, rate: float = RATE, west: float = 5.5) -> CoarseLayer:
    """(T, C, ny, nx) a quarter of a degree apart, from 50.75 N and `west` on."""
    ny, nx = values.shape[-2:]
    latitudes, longitudes = 50.75 - 0.25 * np.arange(ny), west + 0.25 * np.arange(nx)
    heights = np.full((ny, nx), np.nan, np.float32) if heights is None else heights
    return CoarseLayer(values.astype(np.float32), latitudes, longitudes, (True, False), heights, rate)


def random_layer(seed: int = 0, missing: float = 0.0) -> CoarseLayer:
    rng = np.random.default_rng(seed)
    values = rng.normal(280, 5, (2, 2, LATITUDES.size, LONGITUDES.size))
    values[rng.random(values.shape) < missing] = np.nan
    return coarse_layer(values, rng.uniform(0, 900, values.shape[-2:]).astype(np.float32))


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> Path:
    """Weather with heights, and a rough terrain with a hole."""
    path = tmp_path_factory.mktemp("coarse") / "cube.zarr"
    layers = [
        Layer(WEATHER, STEPS, tuple(LATITUDES), tuple(LONGITUDES)),
        Layer(SENSORS["dem"].modality.select(("slope", "elevation")), ("",)),
    ]
    create_cube(path, grid, layers, 16, 32, {"mdico_recipe": "{}"}, (2, 3))
    root, coarse = zarr.open_group(path, mode="r+"), random_layer()
    ground = np.random.default_rng(1).uniform(100, 700, (2, 64, 96)).astype(np.float32)
    ground[:, 5, 7] = np.nan
    for name, values in (
        ("weather/weather", coarse.values),
        ("weather/orography", coarse.heights),
        ("dem/terrain", ground),
    ):
        root[name][...] = values  # type: ignore[index]
    root["weather/lapse_rate"][...] = 1000 * RATE  # type: ignore[index]
    return path


def test_a_plane_in_degrees_is_met_exactly(grid: GeoBox) -> None:
    north, east = np.meshgrid(LATITUDES, LONGITUDES, indexing="ij")
    layer = coarse_layer(np.stack([[3 * east - 2 * north + 7, north], [east, 2 * north]]))
    lon, lat = pixel_degrees(grid, slice(0, 64), slice(0, 96))
    np.testing.assert_allclose(
        interpolate(layer, lon, lat), np.stack([[3 * lon - 2 * lat + 7, lat], [lon, 2 * lat]]), rtol=1e-6
    )


def test_between_cells_it_is_the_mean_of_four() -> None:
    layer = coarse_layer(np.array([[[[1.0, 2.0], [3.0, 8.0]], [[1.0, 1.0], [5.0, 5.0]]]]))
    middle = interpolate(layer, np.array([[5.625]]), np.array([[50.625]]))
    assert middle.ravel().tolist() == [3.5, 3.0]


@given(st.data())
def test_a_block_equals_the_whole_bit_for_bit(cube: Path, data: st.DataObject) -> None:
    reader = open_reader(cube)
    whole = reader.stored("weather", slice(0, 64), slice(0, 96))
    top, left = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 95))
    y, x = slice(top, data.draw(st.integers(top + 1, 64))), slice(left, data.draw(st.integers(left + 1, 96)))
    assert np.array_equal(reader.stored("weather", y, x), whole[..., y, x])
    assert not np.isnan(whole).any(), "a hole in the terrain is no hole in the weather"
    assert whole.shape == (2, 2, 64, 96)


@given(st.integers(0, 999), st.data())
def test_missing_cells_have_no_weight(seed: int, data: st.DataObject) -> None:
    layer = random_layer(seed, missing=0.4)
    lon = np.array([[data.draw(st.floats(5.5, 6.25))]])
    lat = np.array([[data.draw(st.floats(50.25, 50.75))]])
    came = interpolate(layer, lon, lat)[:, :, 0, 0]
    for step, band in np.ndindex(2, 2):
        weights, total = 0.0, 0.0
        for row, column in np.ndindex(layer.values.shape[-2:]):
            near = max(0, 1 - abs(layer.latitudes[row] - lat[0, 0]) / 0.25)
            far = max(0, 1 - abs(layer.longitudes[column] - lon[0, 0]) / 0.25)
            value = layer.values[step, band, row, column]
            if near * far > 0 and not np.isnan(value):
                weights, total = weights + near * far, total + near * far * float(value)
        if weights == 0:
            assert np.isnan(came[step, band])
        elif weights > 1e-9:
            assert came[step, band] == pytest.approx(total / weights, rel=1e-5)


def test_one_cell_gives_its_value_everywhere(grid: GeoBox) -> None:
    layer = coarse_layer(np.array([[[[281.5]], [[42.0]]]]))
    came = interpolate(layer, *pixel_degrees(grid, slice(0, 4), slice(0, 5)))
    assert (came[0, 0] == 281.5).all()
    assert (came[0, 1] == 42).all()


def test_places_beyond_half_a_cell_are_missing() -> None:
    layer = coarse_layer(np.ones((1, 2, 2, 2)))
    lon, lat = np.array([[5.38, 5.37, 5.87, 5.88, 5.6]]), np.array([[50.6, 50.6, 50.6, 50.6, 50.88]])
    assert np.isnan(interpolate(layer, lon, lat)[0, 0]).tolist() == [[False, True, False, True, True]]


@pytest.mark.parametrize(("west", "places"), [(-0.25, (359.8, -0.2, 0.1)), (179.75, (179.9, -179.9, 180.1))])
def test_a_grid_over_the_seam_of_longitudes(west: float, places: tuple[float, ...]) -> None:
    columns = west + 0.25 * np.arange(3)
    layer = coarse_layer(np.broadcast_to(columns, (1, 2, 2, 3)).copy(), west=west)
    lon = np.array([places])
    came = interpolate(layer, lon, np.full(lon.shape, 50.6))[0, 0, 0]
    np.testing.assert_allclose((came - lon[0] + 180) % 360 - 180, 0, atol=1e-4)


def test_temperatures_follow_the_ground() -> None:
    """A still atmosphere: 290 K at the sea, 6.5 K less per kilometre, whatever the cells' heights."""
    heights = np.array([[0.0, 800.0], [300.0, 1200.0]], np.float32)
    values = np.stack([[290 - RATE * heights, heights]])
    lon, lat = np.array([[5.55, 5.7, 5.75]]), np.array([[50.7, 50.6, 50.5]])
    ground = np.array([[0.0, 1000.0, 2500.0]], np.float32)
    came = interpolate(coarse_layer(values, heights), lon, lat, ground)
    np.testing.assert_allclose(came[0, 0], 290 - RATE * ground, atol=1e-4)
    plain = interpolate(coarse_layer(values, heights), lon, lat)
    np.testing.assert_array_equal(came[0, 1], plain[0, 1])  # rain does not


@pytest.mark.parametrize("change", ["no heights", "no rate", "unknown ground"])
def test_where_a_height_is_unknown_the_cells_height_stays(change: str) -> None:
    layer = random_layer()
    lon, lat = np.array([[5.55, 5.7]]), np.array([[50.7, 50.6]])
    ground = np.array([[100.0, 200.0]], np.float32)
    if change == "no heights":
        layer = replace(layer, heights=np.full_like(layer.heights, np.nan))
    if change == "no rate":
        layer = replace(layer, rate=0.0)
    if change == "unknown ground":
        ground[:] = np.nan
    np.testing.assert_allclose(interpolate(layer, lon, lat, ground), interpolate(layer, lon, lat), rtol=1e-6)


def test_the_reader_brings_temperatures_to_the_terrain(cube: Path) -> None:
    reader = open_reader(cube)
    y, x = slice(3, 60), slice(8, 90)
    ground = reader.stored("dem", y, x)[0, 1]
    want = interpolate(random_layer(), *pixel_degrees(reader.geobox, y, x), ground)
    values, observed = reader.read("weather", y, x)
    np.testing.assert_array_equal(values, want)
    assert observed.all()
    assert np.abs(values - interpolate(random_layer(), *pixel_degrees(reader.geobox, y, x)))[:, 0].max() > 1
    assert reader.rests_on("weather") == ("weather", "dem")
    assert reader.rests_on("dem") == ("dem",)


def test_weather_at_the_ground_waits_for_the_ground(cube: Path) -> None:
    """Completeness and identity of the weather include the terrain it rests on."""
    ledger = Ledger(cube, "weather", mode="r+")
    assert ledger.states().shape == (1, 1)
    ledger.record(0, 0, Entry(DONE, "a"))
    with pytest.raises(MdicoError, match="lacks 6 shards of dem"):
        CubeReader(cube).check_complete(["weather"])
    before = CubeReader(cube).identity(["weather"])
    terrain = Ledger(cube, "dem", mode="r+")
    for row, column in np.ndindex(terrain.states().shape):
        terrain.record(row, column, Entry(DONE, "b"))
    CubeReader(cube).check_complete(["weather"])
    assert CubeReader(cube).identity(["weather"]) != before


def test_a_new_cube_has_no_weather(tmp_path: Path, grid: GeoBox) -> None:
    layer = Layer(WEATHER, STEPS, (50.5, 50.25), (5.75, 6.0, 6.25))
    assert layer_from(describe_layer(layer)) == layer
    create_cube(tmp_path / "cube.zarr", grid, [layer], 16, 32, {"mdico_recipe": "{}"}, (2, 3))
    forget_readers()
    tree = open_cube(tmp_path / "cube.zarr")
    weather = tree["weather/weather"]
    assert weather.dims == ("time", "band", "latitude", "longitude")
    assert bool(weather.isnull().all())
    assert tree["weather/longitude"].values.tolist() == [5.75, 6.0, 6.25]
    values, observed = open_reader(tmp_path / "cube.zarr").read("weather", slice(0, 3), slice(0, 4))
    assert not observed.any()
    assert not values.any()
