"""Cubes over the antimeridian and over two UTM zones: scenes of both sides, each pixel where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from toy_world import World

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.grid import grid_for
from mdico_cube.cube.planning import _assign, plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.period import Period
from mdico_cube.recipe import Area, parse_recipe

PLACES = {
    "antimeridian": ((179.98, -17.505, -179.98, -17.49), ("EPSG:32760", "EPSG:32701"), 180.0),
    "zones 31 and 32": ((5.98, 50.1, 6.02, 50.115), ("EPSG:32631", "EPSG:32632"), 6.0),
}


def truth(lon: Any, lat: Any, turn: float) -> Any:
    """Counts that tell the place: a smooth field in degrees, continuous over the line between the zones."""
    return 4000 + 30000 * ((lon - turn + 180) % 360 - 180) + 20000 * (np.abs(lat) % 1 - 0.1)


def write_scenes(folder: Path, area: tuple[float, ...], zones: tuple[str, str], turn: float, cut: bool) -> Path:
    """A granule in either zone, one of each side, overlapping at the line; one pass, and a later one of the east."""
    world = World(folder, grid_for(Area(bbox=area, resolution=20)))
    collection = world.collection("sentinel-2-l2a")
    for name, zone, day in (("west", zones[0], 5), ("east", zones[1], 5), ("late", zones[1], 15)):
        west, east = (turn - 0.03, turn + 0.005) if name == "west" else (turn - 0.005, turn + 0.03)
        to_zone = Transformer.from_crs("EPSG:4326", zone, always_xy=True)
        lon, lat = np.meshgrid(np.linspace(west, east, 9), np.linspace(area[1] - 0.01, area[3] + 0.01, 9))
        x, y = to_zone.transform(lon.ravel(), lat.ravel())
        grid = GeoBox.from_bbox((x.min(), y.min(), x.max(), y.max()), zone, resolution=10)
        columns, rows = np.meshgrid(np.arange(grid.shape.x) + 0.5, np.arange(grid.shape.y) + 0.5)
        lon, lat = to_zone.transform(*(grid.affine * (columns, rows)), direction="INVERSE")
        counts = np.rint(truth(lon, lat, turn)).astype(np.uint16)
        outside = ((lon - turn + 180) % 360 - 180 < west - turn) | ((lon - turn + 180) % 360 - 180 > east - turn)
        counts[outside] = 0
        assets = {"B04": counts, "SCL": np.where(outside, 0, 4).astype(np.uint8)}
        properties = {"s2:processing_baseline": "03.01", "platform": "sentinel-2a", "s2:mgrs_tile": zone}
        item = world.item(collection, name, f"2021-01-{day:02d}T22:30:00Z", assets, properties, grid=grid)
        corners = [(west, area[1] - 0.01), (east, area[1] - 0.01), (east, area[3] + 0.01), (west, area[3] + 0.01)]
        item.geometry, item.bbox = footprint(corners, cut)
    return world.save()


def footprint(corners: list[tuple[float, float]], cut: bool) -> tuple[dict[str, Any], list[float]]:
    """Geometry and bbox as catalogs write them: cut at 180 degrees, or as one ring that jumps."""
    (west, south), (east, north) = corners[0], corners[2]
    turned = (east + 180) % 360 - 180
    if east <= 180:
        rings = [[[x, y] for x, y in [*corners, corners[0]]]]
    elif cut:
        rings = [
            [[a, south], [b, south], [b, north], [a, north], [a, south]] for a, b in ((west, 180.0), (-180.0, turned))
        ]
    else:
        rings = [[[(x + 180) % 360 - 180, y] for x, y in [*corners, corners[0]]]]
    shape = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
    return shape, [west, south, turned, north]


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "whole ring"])
@pytest.mark.parametrize("place", PLACES)
def test_scenes_of_both_sides_fill_the_cube(
    tmp_path: Path, recipe_facts: dict[str, Any], place: str, cut: bool
) -> None:
    area, zones, turn = PLACES[place]
    catalog = write_scenes(tmp_path / "world", area, zones, turn, cut)
    recipe = parse_recipe(
        {
            **recipe_facts,
            "area": {"bbox": list(area), "resolution": 10},
            "period": {"start": "2021-01-01", "end": "2021-01-31"},
            "store": {"chunk": 64, "shard": 128},
            "href": str(catalog),
            "modalities": {"sentinel2": {"bands": ["B04"], "source": {"dilate": 0}}, "sentinel1": {}},
        }
    )
    recipe = recipe.model_copy(update={"modalities": {"sentinel2": recipe.modalities["sentinel2"]}})
    plan = plan_build(recipe)
    (layer,) = plan.layers
    assert {scene.item.id for scene in layer.scenes} == {"west", "east", "late"}
    assert len({scene.overpass for scene in layer.scenes}) == 2, "one pass over both zones is one observation"
    reader = open_reader(build_cube(recipe, plan=plan))
    height, width = reader.shape
    values, observed = reader.read("sentinel2", slice(0, height), slice(0, width))
    assert observed.all()
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    to_degrees = Transformer.from_crs(str(reader.geobox.crs), "EPSG:4326", always_xy=True)
    expected = truth(*to_degrees.transform(*(reader.geobox.affine * (columns, rows))), turn)
    wrong = np.abs(values[0, 0] * 1e4 - expected)
    assert wrong.max() <= 4, "counts: half a pixel, where a footprint ends"
    assert np.quantile(wrong, 0.98) <= 0.8
    whole = compute_block(layer, plan.geobox)
    for y, x in ((slice(0, 20), slice(3, 37)), (slice(17, height), slice(width // 2 - 5, width // 2 + 6))):
        np.testing.assert_array_equal(compute_block(layer, plan.geobox[y, x]), whole[..., y, x])


@pytest.mark.parametrize(
    ("longitude", "moment", "day"),
    [
        (179.99, "2021-01-31T11:59:00Z", "2021-01-31"),  # east of Greenwich the day begins twelve hours before UTC's
        (179.99, "2021-01-31T12:01:00Z", "2021-02-01"),
        (-179.99, "2021-02-01T12:01:00Z", "2021-02-01"),
        (-179.99, "2021-02-01T11:59:00Z", "2021-01-31"),
        (150.0, "2021-01-31T22:40:00Z", "2021-02-01"),
        (30.0, "2021-01-31T22:30:00Z", "2021-02-01"),
        (30.0, "2021-01-31T21:30:00Z", "2021-01-31"),
        (-30.0, "2021-02-01T01:30:00Z", "2021-01-31"),
    ],
)
def test_the_local_solar_day_near_midnight(longitude: float, moment: str, day: str) -> None:
    grid = grid_for(Area(bbox=(longitude - 0.005, 10, longitude + 0.005, 10.01)))
    item = pystac.Item("x", grid.extent.to_crs("EPSG:4326").json, None, pystac.utils.str_to_datetime(moment), {})
    period = Period("2021-01-31", "2021-02-01", "1D")
    (scene,) = _assign([item], grid, period.intervals())
    assert period.steps()[scene.step] == day
    assert str(scene.overpass[0]) == day
