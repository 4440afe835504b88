"""A mask of polygons: pixel centres decide, whatever block they lie in."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mdico_cube.cube.reader import CubeReader
from mdico_cube.errors import MdicoError
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.mask import area_mask
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.write import map_path, open_map, write_map

# a shape with a hole over the first two columns of shards, in metres
FIELD = shapely.Polygon(
    [(600003, 5600437), (600243, 5600431), (600238, 5600087), (600041, 5600061)],
    [[(600101, 5600301), (600181, 5600299), (600170, 5600201)]],
)


@pytest.fixture
def polygons(tmp_path):
    path = tmp_path / "area.geojson"
    gpd.GeoDataFrame(geometry=[FIELD], crs="EPSG:32631").to_crs("EPSG:4326").to_file(path)
    return path


def test_the_mask_is_what_rasterising_the_polygons_gives(run, polygons):
    mask, geobox = area_mask(polygons, run.reader.geobox), run.reader.geobox
    found = mask.inside(geobox, *run.everything)
    shape = gpd.read_file(polygons).to_crs("EPSG:32631").geometry[0]
    burnt = rasterio.features.geometry_mask([shape], run.shape, geobox.affine, invert=True)
    assert (found != burnt).sum() <= 1
    assert 0.2 < found.mean() < 0.6

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 43), st.integers(1, 44), st.integers(0, 51), st.integers(1, 52))
    def law(top, tall, left, wide):
        y, x = slice(top, min(top + tall, run.shape[0])), slice(left, min(left + wide, run.shape[1]))
        assert np.array_equal(mask.inside(geobox, y, x), found[y, x])

    law()


def test_only_what_lies_inside_is_read_and_mapped(run, polygons, monkeypatch):
    target = map_path(run.out, "mdico", "sentinel2", 0)
    plain = open_map(write_map(run.cube, run.bundle(), run.out / "maps" / "plain.zarr", outputs=("observations",)))
    read, seen = CubeReader.stored, []

    def noting(reader, modality, y, x):
        seen.append((y.start, x.start))
        return read(reader, modality, y, x)

    monkeypatch.setattr(CubeReader, "stored", noting)
    masked = open_map(write_map(run.cube, run.bundle(), target, mask=polygons, outputs=("observations",)))
    assert sorted(seen) == sorted({(y, x) for y in (0, 16, 32) for x in (0, 16)})
    inside = area_mask(polygons, run.reader.geobox).inside(run.reader.geobox, *run.everything)
    for name in ("class", "confidence", "observations"):
        assert np.array_equal(masked[name], np.where(inside, plain[name], 255))
    assert masked.attrs["mask"] != ""


def test_a_map_with_another_mask_is_another_map(run, polygons):
    target = map_path(run.out, "mdico", "sentinel2", 0)
    write_map(run.cube, run.bundle(), target)
    with pytest.raises(MdicoError, match="begun with another mask"):
        write_map(run.cube, run.bundle(), target, resume=True, mask=polygons)


def test_a_mask_swapped_half_way_stops_the_map(run, polygons):
    plan = plan_map(run.cube, run.bundle(), mask=polygons)
    polygons.write_text(polygons.read_text().replace("}", "} ", 1))
    from mdico_cube.maps import mask as module

    module._area.cache_clear()
    with pytest.raises(MdicoError, match="changed while the map was being made"):
        plan.predict(slice(0, 16), slice(0, 16))


def test_a_mask_of_no_use_is_one_sentence(run, polygons, tmp_path):
    with pytest.raises(MdicoError, match="no such file"):
        plan_map(run.cube, run.bundle(), mask=tmp_path / "none.geojson")
    far = tmp_path / "far.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(100, 10, 101, 11)], crs="EPSG:4326").to_file(far)
    with pytest.raises(MdicoError, match="none of its polygons meets the cube"):
        plan_map(run.cube, run.bundle(), mask=far)
    points = tmp_path / "points.geojson"
    gpd.GeoDataFrame(geometry=[shapely.Point(3, 50)], crs="EPSG:4326").to_file(points)
    with pytest.raises(MdicoError, match="holds no polygon"):
        plan_map(run.cube, run.bundle(), mask=points)
    metres = tmp_path / "metres.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(709380, 5617480, 709480, 5617580)], crs="EPSG:4326").to_file(metres)
    with pytest.raises(MdicoError, match="do not lie in the CRS"):
        plan_map(run.cube, run.bundle(), mask=metres)
    broken = tmp_path / "broken.geojson"
    broken.write_text(json.dumps({"type": "nonsense"}))
    with pytest.raises(MdicoError, match="cannot be read as vectors"):
        plan_map(run.cube, run.bundle(), mask=broken)
    assert LAYER == "map"
