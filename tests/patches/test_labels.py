"""Labels onto the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from shapely.geometry import box
from toy_world import SIZE, write_tiff

from mdico_cube.errors import MdicoError
from mdico_cube.patches.labels import rasterize_labels
from mdico_cube.recipe import LabelSection

CLASSES = [{"name": "wheat"}, {"name": "maize"}]


def parcels(grid: GeoBox) -> gpd.GeoDataFrame:
    """Three rectangles on whole pixels: (rows, columns, crop, id)."""
    shapes, crops, ids = [], [], []
    for rows, columns, crop, name in (
        ((0, 10), (0, 20), "wheat", "p1"),
        ((10, 30), (0, 20), "maize", "p2"),
        ((40, 50), (60, 90), "barley", "p3"),
    ):
        x0, y0 = grid.affine * (columns[0], rows[1])
        x1, y1 = grid.affine * (columns[1], rows[0])
        shapes.append(box(x0, y0, x1, y1))
        crops.append(crop)
        ids.append(name)
    return gpd.GeoDataFrame({"crop": crops, "id": ids}, geometry=shapes, crs=str(grid.crs))


@pytest.fixture(params=["gpkg", "parquet", "geojson"])
def vector(request: pytest.FixtureRequest, grid: GeoBox, tmp_path: Path) -> Path:
    path = tmp_path / f"parcels.{request.param}"
    frame = parcels(grid)
    if request.param == "parquet":
        frame.to_parquet(path)
    else:
        (frame.to_crs("EPSG:4326") if request.param == "geojson" else frame).to_file(path)
    return path


def section(path: Path, **options: Any) -> LabelSection:
    return LabelSection.model_validate({"path": path, "classes": CLASSES, **options})


def test_vectors_take_the_class_at_the_pixel_centre(vector: Path, grid: GeoBox) -> None:
    labels = rasterize_labels(section(vector, attribute="crop", group="id"), grid)
    wanted = np.full(SIZE, 255)
    wanted[:10, :20], wanted[10:30, :20] = 0, 1
    assert (labels.label == wanted).all(), "barley is not listed, so it is unlabelled"
    assert labels.parcel is not None
    assert len(np.unique(labels.parcel[:10, :20])) == 1
    assert labels.parcel[0, 0] != labels.parcel[20, 0]
    assert (labels.parcel[wanted == 255] == 0).all()


def test_a_raster_on_another_grid_is_sampled_at_pixel_centres(grid: GeoBox, tmp_path: Path) -> None:
    fine = (np.arange(SIZE[0] * 2)[:, None] // 2 % 2 + np.zeros(SIZE[1] * 2, dtype=int)[None]).astype(np.uint8)
    write_tiff(tmp_path / "fine.tif", fine, grid)
    classes = [{"name": "zero", "source": 0}, {"name": "one", "source": 1}]
    labels = rasterize_labels(section(tmp_path / "fine.tif", classes=classes), grid)
    assert (labels.label == np.arange(SIZE[0])[:, None] % 2).all()
    assert labels.parcel is None


def test_raster_nodata_is_unlabelled(grid: GeoBox, tmp_path: Path) -> None:
    values = np.ones(SIZE, dtype=np.uint8)
    values[:5], values[5:9] = 0, 2
    write_tiff(tmp_path / "l.tif", values, grid, nodata=0)
    classes = [{"name": "a", "source": 0}, {"name": "b", "source": 1}, {"name": "c", "source": 2}]
    label = rasterize_labels(section(tmp_path / "l.tif", classes=classes), grid).label
    assert (label[:5] == 255).all()
    assert (label[5:9] == 2).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "has no column None. Choose one of crop, id"),
        ({"attribute": "Crop"}, "has no column 'Crop'"),
        ({"attribute": "crop", "group": "parcel"}, "labels.group: .* has no column 'parcel'"),
        ({"attribute": "crop", "classes": [{"name": "wheat"}, {"name": "rye"}]}, "only one class \\(wheat\\)"),
        ({"attribute": "crop", "classes": [{"name": "rye"}]}, "no labelled pixel"),
    ],
)
def test_bad_vector_labels(grid: GeoBox, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "p.gpkg"
    parcels(grid).to_file(path)
    with pytest.raises(MdicoError, match=sentence):
        rasterize_labels(section(path, **options), grid)


def test_labels_elsewhere(grid: GeoBox, tmp_path: Path) -> None:
    frame = parcels(grid)
    frame.geometry = frame.geometry.translate(1e5, 0)
    frame.to_file(tmp_path / "far.gpkg")
    with pytest.raises(MdicoError, match="no labelled pixel of the listed classes lies in the area"):
        rasterize_labels(section(tmp_path / "far.gpkg", attribute="crop"), grid)
    write_tiff(tmp_path / "far.tif", np.ones(SIZE, np.uint8), grid.translate_pix(5000, 0), nodata=0)
    with pytest.raises(MdicoError, match="no labelled pixel"):
        rasterize_labels(section(tmp_path / "far.tif", classes=[{"name": "a", "source": 1}]), grid)


@pytest.mark.parametrize(("name", "content"), [("x.tif", b"no tiff"), ("x.gpkg", b"no package"), ("x.parquet", b"no")])
def test_unreadable_labels(grid: GeoBox, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    with pytest.raises(MdicoError, match="no such file"):
        rasterize_labels(section(path, attribute="crop"), grid)
    path.write_bytes(content)
    with pytest.raises(MdicoError, match="cannot be read"):
        rasterize_labels(section(path, attribute="crop"), grid)


def test_a_raster_class_needs_its_number(grid: GeoBox, tmp_path: Path) -> None:
    write_tiff(tmp_path / "l.tif", np.ones(SIZE, np.uint8), grid)
    with pytest.raises(MdicoError, match="'wheat' needs its number"):
        rasterize_labels(section(tmp_path / "l.tif"), grid)
