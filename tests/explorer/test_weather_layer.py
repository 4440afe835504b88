"""Weather is drawn as every stage reads it, with colours over all steps or within one, in units for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from odc.geo.geobox import GeoBox

import mdico_cube as mdico
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.store import create_cube
from mdico_cube.explorer.layers import layers_of
from mdico_cube.explorer.looks import Look
from mdico_cube.explorer.overview import Maker
from mdico_cube.explorer.sensor_layers import WeatherLayer
from mdico_cube.explorer.window import window_tif
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.sensors.registry import WEATHER as STATIONS

STEPS = ("2021-01-01", "2021-02-01", "2021-03-01")
LATITUDES, LONGITUDES = np.arange(50.75, 50.0, -0.25), np.arange(5.5, 6.3, 0.25)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> WeatherLayer:
    """Temperature and rain, the last month empty, over a rough terrain."""
    path = tmp_path_factory.mktemp("weather") / "cube.zarr"
    weather = STATIONS["era5"].modality.select(("t2m", "tp"))
    layers = [Layer(weather, STEPS, tuple(LATITUDES), tuple(LONGITUDES)), Layer(SENSORS["dem"].modality, ("",))]
    create_cube(path, grid, layers, 16, 32, {}, (2, 3))
    rng, root = np.random.default_rng(0), zarr.open_group(path, mode="r+")
    cells = (LATITUDES.size, LONGITUDES.size)
    values = np.stack([rng.normal((280 + 5 * step, 60), 3, (*cells, 2)).transpose(2, 0, 1) for step in range(3)])
    values[2] = np.nan
    for name, array in (
        ("era5/weather", values),
        ("era5/orography", rng.uniform(0, 900, cells)),
        ("era5/lapse_rate", np.float32(6.5)),
        ("dem/terrain", rng.uniform(100, 700, (4, *grid.shape.yx))),
    ):
        root[name][...] = array  # type: ignore[index]
    found = layers_of(mdico.open_reader(path), [], Maker())["era5"]
    assert isinstance(found, WeatherLayer)
    return found


@pytest.mark.parametrize("zoom", [0, -1])  # from -2 on, heights come from every second chunk of 16 pixels
def test_a_tile_is_what_the_reader_gives(layer: WeatherLayer, zoom: int) -> None:
    whole, _ = layer.reader.read("era5", slice(0, 64), slice(0, 96))  # (T, C, h, w)
    assert len(layer.reader.rests_on("era5")) == 2, "temperatures follow the terrain"
    for band, name in enumerate(("t2m", "tp")):
        found = layer.values((zoom, 0, 0), Look("one", (name,)), 1)
        assert found is not None
        assert np.array_equal(found[0], whole[1, band, :: 2**-zoom, :: 2**-zoom])
    assert layer.values((0, 1, 0), Look("one", ("tp",)), 1) is None, "nothing outside the raster"


def test_colours_span_all_steps_or_one(layer: WeatherLayer) -> None:
    whole = layer.reader.stored("era5", slice(0, 64), slice(0, 96))[:, 0]
    (span,) = layer.limits("one:t2m", 0)
    assert np.allclose(span, (np.nanmin(whole), np.nanmax(whole)), atol=1e-3)
    assert layer.limits("one:t2m", 1) == (span,)
    (own,) = layer.limits("step:t2m", 0)
    assert np.allclose(own, (whole[0].min(), whole[0].max()), atol=1e-3)
    assert layer.limits("step:t2m", 2) == ((0.0, 1.0),), "a month without weather"
    assert layer.image((0, 0, 0), "step:t2m", 2) is not None


def test_the_legend_is_in_degrees_celsius_and_the_download_in_the_cube_s_units(layer: WeatherLayer) -> None:
    legend = layer.legend("one:t2m", 0)
    assert legend["unit"] == "\u00b0C"
    assert np.allclose(legend["limits"][0], np.array(layer.limits("one:t2m")[0]) - 273.15)
    assert layer.legend("one:tp")["unit"] == "mm"
    assert len(legend["ramp"]) == 7
    raw = window_tif(layer.reader, layer, 1, (3, 20), (5, 50))
    with rasterio.MemoryFile(raw) as memory, memory.open() as file:
        assert file.units == ("K", "mm")
        assert np.array_equal(file.read(), layer.reader.stored("era5", slice(3, 20), slice(5, 50))[1])


def test_weather_has_no_composites(layer: WeatherLayer, tmp_path: Path) -> None:
    facts = layer.facts()
    assert facts["coarse"]
    assert [look["key"] for look in facts["looks"]] == ["one:t2m", "step:t2m", "one:tp", "step:tp"]
    with pytest.raises(mdico.MdicoError, match="one of 1, step of 1"):
        layer.image((0, 0, 0), "difference:t2m,tp", 0)
    with pytest.raises(mdico.MdicoError, match="no step 7"):
        layer.image((0, 0, 0), "one:t2m", 7)
