"""Labels onto the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry import Polygon, box
from small_cube import LAYERS, small_cube
from small_cube import grid as small_grid
from toy_world import SIZE, write_tiff

from mdico_cube.cube.grid import shards
from mdico_cube.cube.reader import forget_readers, open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.patches import labels as labels_module
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.labels import check_labels, label_cube, rasterize_labels
from mdico_cube.patches.vectors import years
from mdico_cube.recipe import LabelSection, SampleSection

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
        ({}, "labels.attribute: name the column of p.gpkg with the class or value, one of crop, id"),
        (
            {"attribute": "Crop"},
            r"labels.attribute: p.gpkg has no column 'Crop'. Did you mean 'crop'\? Choose one of crop, id",
        ),
        ({"attribute": "crop", "group": "parcel"}, "labels.group: .* has no column 'parcel'"),
        ({"attribute": "crop", "classes": [{"name": "wheat"}, {"name": "rye"}]}, "only one class \\(wheat\\)"),
        ({"attribute": "crop", "classes": [{"name": "rye"}]}, "no labelled pixel"),
    ],
)
def test_bad_vector_labels(grid: GeoBox, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "p.gpkg"
    parcels(grid).to_file(path)
    with pytest.raises(MdicoError, match=sentence):
        check_labels(section(path, **options), grid)


def test_labels_elsewhere(grid: GeoBox, tmp_path: Path) -> None:
    frame = parcels(grid)
    frame.geometry = frame.geometry.translate(1e5, 0)
    frame.to_file(tmp_path / "far.gpkg")
    with pytest.raises(MdicoError, match="no labelled pixel of the listed classes lies in the area"):
        check_labels(section(tmp_path / "far.gpkg", attribute="crop"), grid)
    write_tiff(tmp_path / "far.tif", np.ones(SIZE, np.uint8), grid.translate_pix(5000, 0), nodata=0)
    with pytest.raises(MdicoError, match="no labelled pixel"):
        check_labels(section(tmp_path / "far.tif", classes=[{"name": "a", "source": 1}]), grid)


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


def drawn_fields(seed: int, grid: GeoBox, count: int = 60) -> gpd.GeoDataFrame:
    """Overlapping triangles and holes anywhere, some without a crop, an outline or a date."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform((0, 0), SIZE[::-1], (count, 1, 2))
    corners = centre + generator.normal(0, 9, (count, 3, 2))
    column, row = corners[..., 0], corners[..., 1]
    x, y = grid.affine * (column, row)
    shapes = [Polygon(np.stack([a, b], 1)) for a, b in zip(x, y, strict=True)]
    shapes[3] = shapes[3].difference(shapes[3].buffer(-20))
    shapes[5] = Polygon([(0, 0), (1, 0), (1, 1)])
    frame = gpd.GeoDataFrame(
        {"crop": generator.choice(["wheat", "maize", "rye"], count)}, geometry=shapes, crs=grid.crs
    )
    frame["id"] = [f"p{i % 23}" if i % 11 else None for i in range(count)]
    frame["year"] = 2018 + np.arange(count) % 23 % 3
    return frame


@pytest.mark.parametrize("kind", ["gpkg", "parquet", "fgb", "shp"])
@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_blocks_equal_the_whole(grid: GeoBox, tmp_path: Path, kind: str, crs: str) -> None:
    path = tmp_path / f"fields.{kind}"
    frame = drawn_fields(4, grid).to_crs(crs)
    frame.to_parquet(path) if kind == "parquet" else frame.to_file(path)
    chosen = section(path, attribute="crop", group="id")
    whole = rasterize_labels(chosen, grid)
    assert whole.parcel is not None
    assert len(np.unique(whole.parcel)) > 20
    expected = np.full(SIZE, 255)
    listed = (frame if kind == "parquet" else gpd.read_file(path)).to_crs(str(grid.crs))  # FlatGeobuf sorts its rows
    for outline, crop in zip(listed.geometry, listed.crop, strict=True):
        if crop != "rye":
            inside = rasterize([(outline, 1)], out_shape=SIZE, transform=grid.affine)
            expected[inside == 1] = ["wheat", "maize"].index(crop)
    assert (whole.label == expected).mean() > 0.999, "of overlapping outlines the last of the file counts"
    for side in (7, 40):
        for y in range(0, SIZE[0], side):
            for x in range(0, SIZE[1], side):
                block = slice(y, min(y + side, SIZE[0])), slice(x, min(x + side, SIZE[1]))
                part = rasterize_labels(chosen, grid, *block)
                np.testing.assert_array_equal(part.label, whole.label[block])
                np.testing.assert_array_equal(part.parcel, whole.parcel[block])


def test_raster_blocks_equal_the_whole(grid: GeoBox, tmp_path: Path) -> None:
    """A raster on another CRS and resolution, where positions are warped."""
    other = GeoBox.from_bbox(grid.extent.to_crs("EPSG:4326").boundingbox, "EPSG:4326", resolution=0.00013)
    values = np.random.default_rng(1).integers(0, 3, other.shape).astype(np.uint8)
    write_tiff(tmp_path / "l.tif", values, other)
    chosen = section(tmp_path / "l.tif", classes=[{"name": "a", "source": 1}, {"name": "b", "source": 2}])
    whole = rasterize_labels(chosen, grid).label
    assert set(np.unique(whole)) == {0, 1, 255}
    for block in shards(SIZE, 13):
        np.testing.assert_array_equal(rasterize_labels(chosen, grid, block.y, block.x).label, whole[block.y, block.x])


@pytest.mark.parametrize("shard", [16, 48])
def test_labels_go_into_a_cube_shard_by_shard(grid: GeoBox, tmp_path: Path, shard: int) -> None:
    path, cube = tmp_path / "fields.gpkg", tmp_path / "cube.zarr"
    drawn_fields(4, grid).to_file(path)
    create_cube(cube, grid, LAYERS, 8, shard, {}, (-(-SIZE[0] // shard), -(-SIZE[1] // shard)))
    chosen = section(path, attribute="crop", group="id", date="year")
    label_cube(cube, chosen)
    whole, reader = rasterize_labels(chosen, grid), open_reader(cube)
    everything = slice(0, SIZE[0]), slice(0, SIZE[1])
    assert (reader.labels(*everything) == np.where(whole.label == 255, -1, whole.label.astype(int))).all()
    parcels = reader.parcels(*everything)
    assert parcels is not None
    assert (parcels == whole.parcel).all()
    assert reader.legend == chosen.legend
    dates = reader.parcel_dates
    assert dates is not None
    frame = drawn_fields(4, grid)
    for number in range(1, len(dates)):
        name = pd.unique(frame.id[frame.crop != "rye"].dropna())[number - 1]
        wanted = set(frame.year[(frame.id == name) & (frame.crop != "rye")])
        assert str(dates[number]) == (f"{wanted.pop()}-01-01" if len(wanted) == 1 else "NaT")
    facts, identity = reader.label_facts, reader.identity(())
    stamp = (cube / "labels/label/zarr.json").stat().st_mtime_ns
    label_cube(cube, chosen)
    assert (cube / "labels/label/zarr.json").stat().st_mtime_ns == stamp, "the same file on the same grid stands"
    drawn_fields(5, grid).to_file(path)
    label_cube(cube, chosen)
    assert open_reader(cube).label_facts["digest"] != facts["digest"]
    assert open_reader(cube).identity(()) != identity


def test_labels_that_were_broken_off_do_not_count(
    grid: GeoBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cube = tmp_path / "fields.gpkg", tmp_path / "cube.zarr"
    drawn_fields(4, grid).to_file(path)
    create_cube(cube, grid, LAYERS, 8, 16, {}, (4, 6))
    chosen = section(path, attribute="crop")

    def some_blocks(*given: Any) -> Any:
        yield from [rasterize_labels(*job) for job in given[1][:3]]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(labels_module, "in_waves", some_blocks)
        with pytest.raises(KeyboardInterrupt):
            label_cube(cube, chosen)
    forget_readers()
    assert not open_reader(cube).has_labels
    label_cube(cube, chosen)
    assert open_reader(cube).has_labels


def test_years_split_the_parcels_of_a_cube(tmp_path: Path) -> None:
    path = tmp_path / "fields.gpkg"
    grid = small_grid(SIZE)
    drawn_fields(4, grid, 200).to_file(path)
    cube = small_cube(tmp_path / "cube.zarr", np.zeros(SIZE, np.uint8), missing=0.0)
    with pytest.raises(MdicoError, match=r"samples.split is group, but the labels have no groups"):
        make_split(cube, tmp_path / "s.zarr", SampleSection(split="group"))
    label_cube(cube, section(path, attribute="crop", group="id", date="year"))
    whole = slice(0, SIZE[0]), slice(0, SIZE[1])
    reader = open_reader(cube)
    dates, parcels = reader.parcel_dates, reader.parcels(*whole)
    assert dates is not None
    assert parcels is not None
    year = np.where(parcels > 0, years(dates)[parcels], 0)
    for number, tested in enumerate((2018, 2019, 2020)):
        chosen = SampleSection(split="year", test_fold=number, guard=0)
        folds = make_split(cube, tmp_path / "s.zarr", chosen).folds(reader, *whole)
        assert set(year[folds == 3]) == {tested}
        assert (folds[year == tested] == 3).all()
        assert (folds[year == 0] == 0).all()
        assert len(set(year[folds > 0])) == 3
    folds = make_split(cube, tmp_path / "s.zarr", SampleSection(split="group", guard=0)).folds(reader, *whole)
    for one, other in ((1, 2), (1, 3), (2, 3)):
        assert not np.intersect1d(parcels[folds == one], parcels[folds == other]).size
    assert {1, 2, 3} <= set(np.unique(folds))
    assert (folds[parcels == 0] == 0).all()
