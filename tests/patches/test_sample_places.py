"""Windows at points and in polygons: where they lie, what they are called, and how they are split."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import MultiPolygon, Point, Polygon, box
from small_cube import NAMES, grid, patchwork, small_cube

from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.patches.draw import Sampling, choose_windows, index_path
from mdico_cube.patches.index import open_index
from mdico_cube.patches.places import Places, read_places
from mdico_cube.patches.splits import TEST, TRAIN, VALIDATION
from mdico_cube.patches.vectors import days, file_digest
from mdico_cube.recipe import SampleSection

SHAPE = (60, 72)
CLASSES = ("wheat", "maize", "grass")


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cube(tmp_path_factory.mktemp("cube") / "cube.zarr", patchwork(SHAPE), missing=0.0)


def points(folder: Path, rows: list[float], columns: list[float], crs: str = "EPSG:32631", **table: Any) -> Path:
    """A file with a point in the middle of each of these pixels (or elsewhere in them)."""
    places = [grid(SHAPE).affine * (column + 0.5, row + 0.5) for row, column in zip(rows, columns, strict=True)]
    frame = gpd.GeoDataFrame(table, geometry=[Point(place) for place in places], crs="EPSG:32631")
    path = folder / "places.gpkg"
    frame.to_crs(crs).to_file(path)
    return path


def section(
    path: Path, strategy: str = "points", options: dict[str, Any] | None = None, **places: Any
) -> SampleSection:
    base = {"block": 10, "guard": 1, "strategy": strategy, "places": {"path": path, **places}}
    return SampleSection.model_validate({**base, **(options or {})})


def found(cube: Path, chosen: SampleSection) -> Places:
    return read_places(open_reader(cube), chosen)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
@pytest.mark.parametrize("patch", [1, 4, 5])
def test_a_point_is_the_centre_of_its_window(cube: Path, tmp_path: Path, crs: str, patch: int) -> None:
    rows, columns = [30, 7, 7, 0, 59], [20.3, 50, 9.6, 40, 30]
    path = points(tmp_path, rows, columns, crs, crop=["maize", "wheat", "rye", "wheat", "grass"], site=list("aabbc"))
    places = found(cube, section(path, options={"patch": patch}, label="crop", group="site"))
    listed = list(zip(places.y + patch // 2, places.x + patch // 2, places.label, places.group, strict=True))
    if patch == 1:
        assert listed == [(0, 40, 0, 2), (7, 50, 0, 1), (30, 20, 1, 1), (59, 30, 2, 3)], "rye is not listed"
    else:
        assert listed == [(7, 50, 0, 1), (30, 20, 1, 1)], "windows that leave the grid are not there"
    assert np.isnat(places.date).all()


def test_windows_within_a_polygon(cube: Path, tmp_path: Path) -> None:
    def outline(top: int, left: int, bottom: int, right: int) -> Polygon:
        (x0, y0), (x1, y1) = grid(SHAPE).affine * (left, bottom), grid(SHAPE).affine * (right, top)
        return box(x0, y0, x1, y1)

    whole, small = outline(8, 12, 20, 24), outline(40, 40, 43, 43)
    hole = outline(12, 16, 13, 17)
    frame = gpd.GeoDataFrame(
        {"crop": ["wheat", "maize", "grass"]},
        geometry=[whole.difference(hole), small, MultiPolygon([outline(30, 0, 34, 4), outline(50, 60, 58, 72)])],
        crs="EPSG:32631",
    )
    path = tmp_path / "fields.gpkg"
    frame.to_file(path)
    places = found(cube, section(path, "polygons", {"patch": 4}, label="crop", window="within"))
    listed = set(zip(places.y, places.x, places.label, strict=True))
    field = {(y, x, 0) for y in (8, 12, 16) for x in (12, 16, 20)} - {(12, 16, 0)}
    assert listed == field | {(52, x, 2) for x in (60, 64, 68)}
    centred = found(cube, section(path, "polygons", {"patch": 4}, label="crop"))
    assert len(centred) == 3
    assert sorted(centred.label) == [0, 1, 2]
    (small_row,) = np.flatnonzero(centred.label == 1)
    assert (centred.y[small_row] + 2, centred.x[small_row] + 2) == (41, 41)


def drawn(cube: Path, folder: Path, chosen: SampleSection) -> Sampling:
    return choose_windows(cube, folder, NAMES, chosen)


def scattered(folder: Path, count: int = 240, **more: Any) -> Path:
    generator = np.random.default_rng(5)
    rows, columns = generator.integers(3, 57, count), generator.integers(3, 69, count)
    table = {
        "crop": generator.choice(CLASSES, count),
        "site": [f"{row // 12}-{column // 12}" for row, column in zip(rows, columns, strict=True)],
        "year": 2018 + generator.integers(0, 4, count),
        **more,
    }
    return points(folder, rows.tolist(), columns.tolist(), **table)


@pytest.mark.parametrize("split", ["blocks", "group", "year"])
@pytest.mark.parametrize("patch", [1, 3])
def test_points_are_split_by_block_site_or_year(cube: Path, tmp_path: Path, split: str, patch: int) -> None:
    path = scattered(tmp_path)
    table = gpd.read_file(path)
    options = {"patch": patch, "split": split, "test_fold": 1 if split == "year" else 0, "guard": 0}
    group = None if split == "year" else "site"
    result = drawn(cube, tmp_path, section(path, options=options, label="crop", group=group, date="year"))
    windows, index = result.windows, open_index(index_path(tmp_path)).table()
    assert {TRAIN, VALIDATION, TEST} == set(windows.fold)
    centres = {}
    column, row = ~grid(SHAPE).affine * (table.geometry.x.to_numpy(), table.geometry.y.to_numpy())
    for y, x, site, year, crop in zip(
        row.astype(int), column.astype(int), table.site, table.year, table.crop, strict=True
    ):
        centres.setdefault((y - patch // 2, x - patch // 2), []).append((site, year, CLASSES.index(crop)))
    sites: dict[int, set[str]] = {}
    tested = set()
    for y, x, fold, label in zip(windows.y, windows.x, windows.fold, windows.label, strict=True):
        options_here = [entry for entry in centres[(y, x)] if entry[2] == label]
        assert options_here
        if len(centres[(y, x)]) == 1:
            sites.setdefault(int(fold), set()).add(options_here[0][0])
            if fold == TEST:
                tested.add(options_here[0][1])
            elif split == "year":
                assert options_here[0][1] != 2019
    if split == "year":
        assert tested == {2019}
    else:
        assert not sites[TRAIN] & sites[TEST]
        assert not sites[TRAIN] & sites[VALIDATION]
    assert len(index) == len(table)
    assert {day.year for day in index["date"].to_pylist()} == {2018, 2019, 2020, 2021}


def test_a_label_of_the_cube_serves_where_the_file_has_none(cube: Path, tmp_path: Path) -> None:
    path = scattered(tmp_path)
    result = drawn(cube, tmp_path, section(path))
    label = open_reader(cube).labels(slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    assert (label[result.windows.y, result.windows.x] == result.windows.label).all()
    assert len(open_index(index_path(tmp_path))) < 240, "a place without any label is left out"


def test_years_leave_groups_of_several_years_unused(cube: Path, tmp_path: Path) -> None:
    years = [2018 + (i % 4) for i in range(240)]
    sites = [f"s{i % 4}-{i % 7}" if i % 30 else "both" for i in range(240)]
    path = scattered(tmp_path, year=years, site=sites)
    result = drawn(
        cube, tmp_path, section(path, options={"split": "year", "guard": 0}, label="crop", date="year", group="site")
    )
    index = open_index(index_path(tmp_path)).table().to_pandas()
    number = {name: i + 1 for i, name in enumerate(dict.fromkeys(sites))}["both"]
    assert (index[index.group == number].fold == 0).all()
    assert (index.group == number).sum() == 8
    assert set(result.windows.fold) == {1, 2, 3}


def test_too_few_years_say_in_one_sentence_why(cube: Path, tmp_path: Path) -> None:
    path = scattered(tmp_path, year=[2018 + i % 5 for i in range(240)], site=[f"s{i % 6}" for i in range(240)])
    chosen = section(path, options={"split": "year", "guard": 0}, label="crop", date="year", group="site")
    why = "6 groups or parcels have labels of several years and stay unused"
    with pytest.raises(MdicoError, match=rf"there are only 0 years \({why}\), too few for training"):
        drawn(cube, tmp_path, chosen)


def test_years_leave_parcels_of_several_years_unused_where_the_file_names_no_group(tmp_path: Path) -> None:
    """Two points in one parcel of the cube are of one group, whatever their years."""
    parcel = (np.arange(SHAPE[0])[:, None] // 6 * 9 + np.arange(SHAPE[1]) // 8 + 1).astype(np.int32)
    cube = small_cube(tmp_path / "cube.zarr", patchwork(SHAPE), parcel, missing=0.0)
    path = scattered(tmp_path)
    result = drawn(cube, tmp_path, section(path, options={"split": "year", "guard": 0}, label="crop", date="year"))
    index = open_index(index_path(tmp_path)).table().to_pandas()
    several = index.groupby("group").date.agg(lambda days: len({day.year for day in days})) > 1
    assert several.any()
    assert (index[index.group.map(several)].fold == 0).all()
    assert set(result.windows.fold) == {TRAIN, VALIDATION, TEST}


def test_a_changed_file_is_noticed(cube: Path, tmp_path: Path) -> None:
    first = drawn(cube, tmp_path, section(scattered(tmp_path), label="crop"))
    (tmp_path / "places.gpkg").unlink()
    second = drawn(cube, tmp_path, section(scattered(tmp_path, count=200), label="crop"))
    assert len(first.index) == 240
    assert len(open_index(index_path(tmp_path))) == 200
    assert len(second.windows) < len(first.windows) + 1


BAD: list[tuple[dict[str, Any], str]] = [
    ({"label": "Crop"}, r"samples.places.label: places.gpkg has no column 'Crop'. Did you mean 'crop'\? Choose one"),
    ({"label": "crop", "group": "parcel"}, "samples.places.group: places.gpkg has no column 'parcel'"),
    ({"label": "site"}, r"none of the values of 'site' .* is a class of the legend \(wheat, maize, grass\)"),
    (
        {"label": "crop", "date": "site"},
        "samples.places.date: places.gpkg holds '.*', which is neither a year nor",
    ),
    ({"strategy": "polygons"}, "holds Point, but samples.strategy is polygons. Set strategy to points"),
    ({"options": {"split": "group"}}, "samples.split is group, but the labels have no groups. Name a column"),
    ({"options": {"split": "year"}}, "samples.split is year, but the labels have no dates. Name a column"),
    (
        {"options": {"dates": ("2021-01-01", "2021-12-31")}},
        "samples.dates asks .* but the labels have no dates. Name a column",
    ),
    ({"options": {"split": "year", "test_fold": 4}, "date": "year"}, "4 does not exist, folds are counted 0 to 3"),
    ({"options": {"folds": 99}}, r"99 folds cannot be made of \d+ blocks with a place"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD)
def test_bad_places(cube: Path, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        drawn(cube, tmp_path, section(scattered(tmp_path), **change))


def test_places_outside_the_cube(cube: Path, tmp_path: Path) -> None:
    path = points(tmp_path, [900, 950], [10, 20], crop=["wheat", "maize"])
    with pytest.raises(MdicoError, match="none of its 2 places gives a window of 1 pixels inside the cube"):
        found(cube, section(path, label="crop"))
    with pytest.raises(MdicoError, match="no such file"):
        found(cube, section(tmp_path / "none.gpkg"))


def test_dates_are_years_or_days() -> None:
    series = pd.Series([2019, "2020", "2021-05-06", None, datetime.date(2018, 1, 2), "2022-01-01T23:00:00Z"])
    wanted = ["2019-01-01", "2020-01-01", "2021-05-06", "NaT", "2018-01-02", "2022-01-01"]
    assert days(series, "k", Path("f")).astype(str).tolist() == wanted


def test_a_shapefile_is_known_by_all_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "p.shp"
    gpd.GeoDataFrame({"a": [1]}, geometry=[Point(0, 0)], crs="EPSG:32631").to_file(path)
    before = file_digest(path)
    assert file_digest(path) == before
    with path.with_suffix(".dbf").open("ab") as file:
        file.write(b"x")
    assert file_digest(path) != before
