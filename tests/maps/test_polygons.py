"""Patches of a map as polygons: the same for any strips, true to the pixels, readable by others."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes

from mdico_cube.errors import MdicoError
from mdico_cube.maps.polygons import patches, write_polygons
from mdico_cube.maps.write import map_path, open_map, write_map


def cut(raster, sides):
    tops = np.cumsum([0, *sides])
    return (raster[a:b] for a, b in zip(tops, [*tops[1:], len(raster)], strict=True) if a < len(raster) and a < b)


def areas(found):
    return sorted((value, shape.area) for value, shape in found)


def whole(raster):
    """What rasterio gives for the raster at one go."""
    found = shapes(raster, raster != 255, connectivity=4)
    return [(int(value), shapely.simplify(shapely.geometry.shape(shape), 0)) for shape, value in found]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), max_size=8), st.integers(1, 4))
def test_any_strips_give_the_patches_of_the_whole(seed, sides, size):
    rng = np.random.default_rng(seed)
    small = rng.choice(np.array([1, 2, 255], np.uint8), (6, 5))
    raster = np.kron(small, np.ones((size, size), np.uint8))
    mine, theirs = list(patches(cut(raster, sides))), whole(raster)
    assert len(mine) == len(theirs)
    assert sorted((value, shape.area) for value, shape in mine) == sorted(
        (value, shape.area) for value, shape in theirs
    )
    for value in (1, 2):
        pair = [shapely.union_all([shape for v, shape in found if v == value]) for found in (mine, theirs)]
        assert shapely.equals(*pair)
    assert all(shape.geom_type == "Polygon" and shape.is_valid for _, shape in mine)


def test_a_ring_across_many_strips_is_one_polygon_with_its_hole():
    raster = np.full((9, 9), 1, np.uint8)
    raster[2:7, 2:7] = 2
    raster[4, 4] = 1
    found = list(patches(cut(raster, [1] * 9)))
    assert [(value, shape.area, len(shape.interiors)) for value, shape in sorted(found, key=lambda f: -f[1].area)] == [
        (1, 56, 1), (2, 24, 1), (1, 1, 0),
    ]  # fmt: skip
    assert max(len(shape.exterior.coords) for _, shape in found) <= 6  # no points left where strips met


@pytest.mark.parametrize("ending", [".gpkg", ".geojson"])
def test_the_file_puts_every_pixel_back_where_it_was(run, ending, monkeypatch):
    monkeypatch.setattr("mdico_cube.maps.polygons._BATCH", 50)  # several batches
    source = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))
    target = write_polygons(source, source.with_suffix(ending))
    frame = gpd.read_file(target)
    assert frame.crs.to_epsg() == (32631 if ending == ".gpkg" else 4326)
    assert set(frame["class"]) <= {item.name for item in run.classes}
    classes = open_map(source)["class"].values
    assert frame["pixels"].sum() == (classes != 255).sum()
    assert frame["area"].to_numpy() == pytest.approx(100 * frame["pixels"].to_numpy())
    back = frame.to_crs("EPSG:32631")
    burnt = rasterize(
        zip(back.geometry, back["value"], strict=True), run.shape, fill=255, transform=run.reader.geobox.affine
    )
    assert np.array_equal(burnt, classes)
    if ending == ".geojson":
        json.loads(target.read_text())
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


def test_small_patches_can_be_left_out(run):
    source = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))
    frame = gpd.read_file(write_polygons(source, run.out / "a.gpkg", smallest=5))
    every = gpd.read_file(write_polygons(source, run.out / "b.gpkg"))
    assert len(frame) == (every["pixels"] >= 5).sum() < len(every)


def test_what_cannot_be_written_is_one_sentence(run):
    source = write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))
    with pytest.raises(MdicoError, match=r"neither of .gpkg and .geojson"):
        write_polygons(source, run.out / "a.kml")
    (run.out / "file").write_text("")
    with pytest.raises(MdicoError, match="cannot be written"):
        write_polygons(source, run.out / "file" / "a.gpkg")
    with pytest.raises(MdicoError, match="does not exist"):
        write_polygons(run.out / "nothing", run.out / "a.gpkg")
