"""ERA5 as written: units, axes and the weather that drove the plants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import xarray as xr

from mdico_cube.demo.world import World

Items = dict[str, list[pystac.Item]]


def test_weather_store(items: Items, world: World) -> None:
    item = items["era5"][0]
    asset = item.assets["data"]
    assert asset.media_type == "application/vnd+zarr"
    with xr.open_dataset(asset.get_absolute_href(), **asset.extra_fields["xarray:open_kwargs"]) as store:
        assert store.t2m.attrs["units"] == "K"
        assert store.tp.attrs["units"] == "mm"
        assert np.allclose(np.diff(store.longitude), 0.25)
        assert np.allclose(np.diff(store.latitude), -0.25)
        assert 0 <= float(store.longitude.min()) < 5.9 < 6.1 < float(store.longitude.max()) < 360
        here = store.sel(latitude=50.75, longitude=6.0)
        assert store.sizes["time"] == 365
        assert abs(float((here.t2m - 273.15).mean()) - world.weather.temperature[:365].mean()) < 1.5
        assert np.corrcoef(here.t2m, world.weather.temperature[:365])[0, 1] > 0.98
        assert np.corrcoef(here.tp, world.weather.rain[:365])[0, 1] > 0.8
        assert float(store.tp.min()) >= 0
    path = asset.get_absolute_href()
    assert path is not None
    assert json.loads((Path(path) / "zarr.json").read_text())["zarr_format"] == 3
