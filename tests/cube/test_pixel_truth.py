"""What the loader reads from a file, against GDAL, against arithmetic, and against itself cut into blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from toy_world import write_tiff

from mdico_cube.cube.align import same_crs
from mdico_cube.cube.pixels import read_pixels
from mdico_cube.cube.read import open_scenes, read_scenes

GRID = GeoBox((160, 192), Affine(10, 0, 725000, 0, -10, 5590000), "EPSG:32631")
"""Six degrees east: zone 32 begins in its middle."""
SOURCES = {
    "same grid": ("EPSG:32631", from_origin(724900, 5590200, 10, 10), 240),
    "20 m": ("EPSG:32631", from_origin(724900, 5590200, 20, 20), 120),
    "shifted by 3 m": ("EPSG:32631", from_origin(724903, 5590197, 10, 10), 240),
    "other zone": ("EPSG:32632", from_origin(298500, 5591000, 10, 10), 360),
    "other zone, 20 m": ("EPSG:32632", from_origin(298500, 5591000, 20, 20), 180),
    "degrees": ("EPSG:4326", from_origin(6.15, 50.45, 0.0002, 0.0002), 250),
    "equal area": ("EPSG:3035", from_origin(4045000, 3045000, 10, 10), 500),
}
METHODS = ("nearest", "bilinear", "cubic", "average")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every source with random counts; a seventh and a rectangle of it have no data."""
    path, draw = tmp_path_factory.mktemp("truth"), np.random.default_rng(3)
    for name, (crs, transform, size) in SOURCES.items():
        values = draw.integers(1, 10000, (size, size)).astype(np.uint16)
        values[draw.random((size, size)) < 1 / 7] = 0
        values[size // 3 : size // 2, size // 4 : size // 2] = 0
        write_tiff(path / f"{name}.tif", values, GeoBox((size, size), transform, crs), nodata=0)
    return path


def gdal(path: Path, grid: GeoBox, method: str, scale: float) -> np.ndarray[Any, Any]:
    """GDAL's own warp onto a grid, without its approximation and with one kernel."""
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file, crs=str(grid.crs), transform=grid.affine, width=grid.shape.x, height=grid.shape.y, src_nodata=0,
            nodata=0, resampling=Resampling[method], tolerance=1e-12, XSCALE=scale, YSCALE=scale,
        ) as warped,
    ):  # fmt: skip
        values: np.ndarray[Any, Any] = warped.read(1)
        return values


def ours(path: Path, grid: GeoBox, method: str) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        return read_pixels(file, 1, grid, method, 0, 0, "uint16")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("resolution", [5, 10])
@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_equal_to_gdal(folder: Path, source: str, resolution: int, method: str) -> None:
    grid = GRID if resolution == 10 else GRID.zoom_to(resolution=resolution)
    expected = gdal(folder / f"{source}.tif", grid, method, 1).astype(int)
    got = ours(folder / f"{source}.tif", grid, method).astype(int)
    assert 0.3 < (got > 0).mean() < 1
    assert ((got == 0) != (expected == 0)).sum() <= 1, "a place on the edge between two pixels"
    far = np.abs(got - expected) > (method == "bilinear")
    assert far.sum() <= 2, "a rounding of half a count, or a place on the edge between two pixels"


@pytest.mark.parametrize("source", ["same grid", "20 m", "other zone"])
@pytest.mark.parametrize("method", ["bilinear", "cubic", "average"])
def test_coarser_grids_are_warped_by_gdal_with_one_kernel(folder: Path, source: str, method: str) -> None:
    grid = GRID.zoom_out(4)
    step = SOURCES[source][1].a
    expected = gdal(folder / f"{source}.tif", grid, method, step / 40).astype(int)
    got = ours(folder / f"{source}.tif", grid, method).astype(int)
    assert (got > 0).any()
    assert np.abs(got - expected).max() <= 1


def test_the_average_is_the_mean_of_the_pixels_inside(folder: Path) -> None:
    with rasterio.open(folder / "same grid.tif") as file:
        values = file.read(1)[20 : 20 + 160, 10 : 10 + 192].astype(float)
    values[values == 0] = np.nan
    parts = values.reshape(40, 4, 48, 4)
    known = ~np.isnan(parts).all(axis=(1, 3))
    mean = np.nansum(parts, axis=(1, 3)) / np.maximum((~np.isnan(parts)).sum(axis=(1, 3)), 1)
    got = ours(folder / "same grid.tif", GRID.zoom_out(4), "average")
    np.testing.assert_array_equal(got > 0, known)
    assert np.abs(got - mean)[known].max() <= 0.5001


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", SOURCES)
def test_blocks_equal_the_whole(folder: Path, source: str, method: str) -> None:
    whole = ours(folder / f"{source}.tif", GRID, method)
    for y, x in ((slice(0, 70), slice(0, 33)), (slice(69, 160), slice(31, 192)), (slice(63, 64), slice(95, 96))):
        part = ours(folder / f"{source}.tif", GRID[y, x], method)
        np.testing.assert_array_equal(part, whole[y, x])


@settings(max_examples=25)
@given(st.integers(0, 150), st.integers(0, 180), st.integers(1, 90), st.integers(1, 90), st.sampled_from(METHODS))
def test_any_block_of_another_zone_equals_the_whole(
    folder: Path, top: int, left: int, height: int, width: int, method: str
) -> None:
    path = folder / "other zone, 20 m.tif"
    y, x = slice(top, min(top + height, 160)), slice(left, min(left + width, 192))
    np.testing.assert_array_equal(ours(path, GRID[y, x], method), ours(path, GRID, method)[y, x])


@pytest.mark.parametrize("source", ["EPSG:32632", "EPSG:32630", "EPSG:4326", "EPSG:3035"])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_pixels_stand_where_they_are(tmp_path: Path, source: str, method: str) -> None:
    """Files whose values are their own easting and northing in the cube's CRS, read by the loader's door."""
    there = Transformer.from_crs("EPSG:32631", source, always_xy=True)
    box = there.transform_bounds(725000, 5588400, 726920, 5590000)
    step = 0.00015 if source == "EPSG:4326" else 10
    shape = (int((box[3] - box[1]) / step) + 20, int((box[2] - box[0]) / step) + 20)
    grid = GeoBox(shape, from_origin(box[0] - 10 * step, box[3] + 10 * step, step, step), source)
    x, y = (axis + 0.5 for axis in np.meshgrid(np.arange(shape[1]), np.arange(shape[0])))
    east, north = Transformer.from_crs(source, "EPSG:32631", always_xy=True).transform(*(grid.affine * (x, y)))
    item = pystac.Item(
        "truth",
        grid.extent.to_crs("EPSG:4326").json,
        None,
        pystac.utils.str_to_datetime("2021-01-01"),
        {"proj:code": source},
    )
    for name, values in (("east", east), ("north", north)):
        write_tiff(tmp_path / f"{name}.tif", values, grid, nodata=-1)
        item.add_asset(name, pystac.Asset(str(tmp_path / f"{name}.tif"), media_type=pystac.MediaType.COG))
    got = read_scenes([item], ["east", "north"], GRID, dtype="float64", nodata=-1, resampling={"*": method})[0]
    truth = np.meshgrid(725000 + 10 * (np.arange(192) + 0.5), 5590000 - 10 * (np.arange(160) + 0.5))
    wrong = np.abs(got - np.stack(truth))
    half = 10 if source == "EPSG:4326" else 7.1  # metres: half the diagonal of a source pixel
    assert wrong.max() <= (half if method == "nearest" else 0.01)


def test_reading_file_by_file_equals_odc_stac(folder: Path) -> None:
    """What the build reads is what `odc.stac.load` gives with the same driver, block by block or at once."""
    items = []
    for name in ("same grid", "20 m", "other zone"):
        crs, transform, size = SOURCES[name]
        shape = GeoBox((size, size), transform, crs).extent.to_crs("EPSG:4326")
        moment = pystac.utils.str_to_datetime("2021-01-01")
        item = pystac.Item(name, shape.json, list(shape.boundingbox.bbox), moment, {"proj:code": crs})
        item.add_asset("a", pystac.Asset(str(folder / f"{name}.tif"), media_type=pystac.MediaType.COG))
        items.append(item)
    how: dict[str, Any] = {"dtype": "uint16", "nodata": 0, "resampling": {"*": "bilinear"}}
    at_once = open_scenes(items, ["a"], GRID, **how)["a"].values
    lazy = open_scenes(items, ["a"], GRID, **how, chunks={"x": 50, "y": 70})["a"].values
    np.testing.assert_array_equal(read_scenes(items, ["a"], GRID, **how, threads=2)[:, 0], at_once)
    np.testing.assert_array_equal(lazy, at_once)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("EPSG:32631", "EPSG:32631", True),
        ("EPSG:32631", "EPSG:32632", False),
        ("EPSG:4326", "EPSG:4326", True),
        ("EPSG:4326", "EPSG:32631", False),
        ("EPSG:4326", "EPSG:3857", False),
    ],
)
def test_two_names_of_one_crs(one: str, other: str, same: bool) -> None:
    assert same_crs(one, other) is same
    assert same_crs(rasterio.crs.CRS.from_user_input(one).to_wkt(), other) is same


def test_a_file_without_a_place_is_named(tmp_path: Path) -> None:
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8") as file,
    ):
        file.write(np.ones((4, 4), np.uint8), 1)
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "x.tif") as file,
        pytest.raises(rasterio.errors.CRSError, match="has no CRS"),
    ):
        read_pixels(file, 1, GRID, "nearest", 0, 0, "uint8")
