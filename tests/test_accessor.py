"""What `cube.mdico` says agrees with the pixels that were written, band by band and step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from matplotlib.figure import Figure
from odc.geo.geobox import GeoBox
from odc.geo.geom import point

import mdico_cube as mdico
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.store import create_cube
from mdico_cube.maps import images
from mdico_cube.sensors.dem import MODALITY as DEM
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2

STEPS = ("2021-05-01", "2021-06-01", "2021-07-01")
LAYERS = (
    Layer(SENTINEL1, STEPS[:2]),
    Layer(SENTINEL2.select(("B02", "B03", "B04", "B08")), STEPS),
    Layer(DEM, ("",)),
)
CLOUD = (1, slice(10, 26))
"""Step and rows that Sentinel-2 did not see: a quarter of June."""
PARTLY = (2, 3, slice(0, 16))
"""Step, band and rows of a quarter of July that only B08 missed: not observed, though red, green and blue are there."""


def truth(shape: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Known values per modality: they differ by step, band and pixel."""
    rows, columns = np.indices(shape)
    ramp = rows * 0.001 + columns * 0.0001
    optical = np.stack([[0.05 * (t + 1) + 0.01 * b + (t + 1) * ramp for b in range(4)] for t in range(3)])
    optical[CLOUD[0], :, CLOUD[1]] = np.nan
    optical[PARTLY] = np.nan
    radar = np.stack([[-8 - t - 6 * b - 10 * ramp for b in range(2)] for t in range(2)])
    terrain = np.stack([100.0 + rows, 0.0 * rows, 0.0 * rows + 1, 0.0 * rows])
    return {"sentinel1": radar, "sentinel2": optical, "dem": terrain}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> Path:
    path = tmp_path_factory.mktemp("accessor") / "cube.zarr"
    create_cube(path, grid, LAYERS, 32, 64, {}, (1, 2))
    for name, values in truth(grid.shape.yx).items():
        modality = next(layer.modality for layer in LAYERS if layer.modality.name == name)
        array: Any = zarr.open_group(path, mode="r+")[f"{name}/{modality.variable}"]
        array[...] = modality.storage.pack(values)
        entry = Entry(DONE, digest="01" * 32, items=("a", "b"), offsets={"a": "-1000", "b": "-1000"})
        Ledger(path, name, "r+").record(0, 1, entry)
    return path


@pytest.fixture
def cube(path: Path) -> xr.DataTree:
    return mdico.open_cube(path)


def test_a_series_is_the_pixel_in_every_sensor(cube: xr.DataTree, grid: GeoBox) -> None:
    row, column = 17, 60
    x, y = float(cube.x[column]), float(cube.y[row])
    table = cube.mdico.series(x + 4, y - 4)
    assert list(table.columns) == ["modality", "time", "band", "value", "unit"]
    assert len(table) == 2 * 2 + 3 * 4 + 4
    for name, values in truth(grid.shape.yx).items():
        mine = table[table.modality == name]
        assert np.allclose(mine.value, values[..., row, column].ravel(), atol=6e-3, equal_nan=True)
    assert table.groupby("modality").unit.agg(lambda units: set(units)).to_dict() == {
        "sentinel1": {"dB"},
        "sentinel2": {"reflectance"},
        "dem": {"m", "degree", "1"},
    }
    assert table[table.modality == "dem"].time.isna().all()
    assert set(table[table.modality == "sentinel1"].time) == set(pd.to_datetime(STEPS[:2]))
    assert table[(table.modality == "sentinel2") & (table.time == STEPS[1])].value.isna().all(), "a cloud stays a gap"


def test_a_point_in_degrees_is_the_same_pixel(cube: xr.DataTree, grid: GeoBox) -> None:
    x, y = float(cube.x[7]), float(cube.y[40])
    ((longitude, latitude),) = point(x, y, grid.crs).to_crs("EPSG:4326").points
    pd.testing.assert_frame_equal(cube.mdico.series(longitude, latitude, "EPSG:4326"), cube.mdico.series(x, y))


@pytest.mark.parametrize(("east", "north"), [(-6, 5), (5, 6), (961, -5), (5, -641)])
def test_a_point_outside_is_refused(cube: xr.DataTree, east: float, north: float) -> None:
    left, _, _, top = cube.attrs["spatial:bbox"]
    with pytest.raises(mdico.MdicoError, match="lies outside"):
        cube.mdico.series(left + east, top + north)


def test_availability_counts_what_was_seen(cube: xr.DataTree) -> None:
    shares = cube.mdico.availability()
    assert shares["sentinel2"].tolist() == [1.0, 0.75, 0.75]
    assert shares["sentinel1"].tolist()[:2] == [1.0, 1.0]
    assert np.isnan(shares["sentinel1"].iloc[2]), "a step that a sensor does not have is not a step without clouds"
    assert "dem" not in shares


def test_rgb_is_the_report_s_quick_look(cube: xr.DataTree, path: Path) -> None:
    picture = cube.mdico.rgb()
    look = images.quick_look(mdico.open_reader(path), "sentinel2")
    assert picture.name == "sentinel2"
    assert np.allclose(picture, look.image, atol=1e-4)
    assert picture.attrs["long_name"] == look.title.replace("\n", ", ")
    assert np.array_equal(picture.x, cube.x)
    assert "hillshade" in cube.mdico.rgb("dem").attrs["long_name"]


def test_rgb_of_one_month_shows_its_gaps(cube: xr.DataTree) -> None:
    june = cube.mdico.rgb("sentinel2", "2021-06")
    assert "(2021-06)" in june.attrs["long_name"]
    blank = np.isclose(june, images.BLANK).all(axis=-1)
    assert blank[CLOUD[1]].all()
    assert blank.sum() == 16 * 96
    july = np.isclose(cube.mdico.rgb("sentinel2", "2021-07"), images.BLANK).all(axis=-1)
    assert july[PARTLY[2]].all()
    assert july.sum() == 16 * 96


def test_large_cubes_are_thinned(cube: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.accessor.view.SIDE", 50)
    picture = cube.mdico.rgb()
    assert picture.sizes == {"y": 32, "x": 48, "rgb": 3}
    assert np.array_equal(picture.x, cube.x[::2])


def test_a_group_and_its_dataset_answer_alike(cube: xr.DataTree) -> None:
    group, dataset = cube["sentinel2"], cube["sentinel2"].to_dataset()
    xr.testing.assert_identical(group.mdico.rgb(), dataset.mdico.rgb())
    assert list(group.mdico.availability()) == ["sentinel2"]
    part = dataset.isel(time=[0], y=slice(5, 20)).sel(band=["B04", "B08"])
    assert len(part.mdico.series(float(part.x[3]), float(part.y[3]))) == 2


def test_figures_have_titles_and_units(cube: xr.DataTree) -> None:
    x, y = float(cube.x[3]), float(cube.y[3])
    series, quick, available = cube.mdico.series_plot(x, y), cube.mdico.quicklook(), cube.mdico.availability_plot()
    assert [axes.get_ylabel() for axes in series.axes] == ["dB", "reflectance"]
    assert [axes.get_title(loc="left") for axes in quick.axes] == ["Sentinel-1", "Sentinel-2", "Terrain"]
    assert [axes.get_title(loc="left") for axes in available.axes] == ["Sentinel-1", "Sentinel-2"]
    for figure in (series, quick, available):
        assert isinstance(figure, Figure)
        figure.draw_without_rendering()
        tops = [axes.get_tightbbox().y1 for axes in figure.axes]
        assert max(tops) <= figure.bbox.y1, "figure.savefig(path) cuts no title"


def test_the_ledger_as_a_table(cube: xr.DataTree) -> None:
    ledger = cube.mdico.ledger().set_index(["modality", "shard"])
    assert len(ledger) == 6
    assert ledger.loc["sentinel2", "state"].to_dict() == {"0,0": "missing", "0,1": "done"}
    assert ledger.loc[("sentinel2", "0,1"), ["items", "offsets"]].tolist() == [2, "-1000"]


def test_wrong_questions_get_one_sentence(cube: xr.DataTree) -> None:
    for ask, sentence in (
        (lambda: cube.mdico.rgb("landsat"), "only sentinel1, sentinel2, dem"),
        (lambda: cube.mdico.rgb("sentinel2", "2030-01"), "run from 2021-05-01 to 2021-07-01"),
        (lambda: cube.mdico.rgb("dem", "2021-06"), "has no time steps"),
        (lambda: cube["ledger"].mdico.rgb(), "holds no sensor"),
        (lambda: xr.Dataset({"a": 1}).mdico.availability(), "holds no sensor"),
        (lambda: cube.copy(deep=True).isel(x=[0]).mdico.rgb("x"), "there is no 'x'"),
        (lambda: xr.DataTree().mdico.path, "does not know its cube"),
    ):
        with pytest.raises(mdico.MdicoError, match=sentence):
            ask()


def test_three_bands_of_choice(cube: xr.DataTree) -> None:
    picture = cube.mdico.rgb("sentinel2", "2021-05", bands=("B08", "B04", "B03"))
    assert picture.attrs["long_name"] == "Sentinel-2, B08, B04, B03 in reflectance (2021-05-01)"
    stored = cube["sentinel2"].reflectance.sel(time=STEPS[0], band="B08").values
    order = np.argsort(stored.ravel())
    assert (np.diff(picture.values[..., 0].ravel()[order]) >= -1e-6).all(), "more reflectance is never darker"
    for bands, sentence in ((("B08",), "takes three"), (("B08", "B04", "B99"), "unknown band B99")):
        with pytest.raises(mdico.MdicoError, match=sentence):
            cube.mdico.rgb("sentinel2", bands=bands)


def test_samples_are_drawn_as_the_stage_draws_them(toy_cube: Path, tmp_path: Path) -> None:
    cube = mdico.open_cube(toy_cube)
    store = cube.mdico.sample(tmp_path / "samples.zarr", ["sentinel1"], block=16, guard=1, per_class=20)
    assert list(store.inputs) == ["sentinel1"]
    assert len(store.where(1)) == 40
    again = cube.mdico.sample(tmp_path / "samples.zarr", ["sentinel1"], resume=True, block=16, guard=1, per_class=20)
    assert np.array_equal(again.label, store.label)
    with pytest.raises(mdico.MdicoError, match="exists already"):
        cube.mdico.sample(tmp_path / "samples.zarr", block=16)
    with pytest.raises(mdico.MdicoError, match=r"unknown key 'samples.blok', did you mean 'block'"):
        cube.mdico.sample(tmp_path / "other.zarr", blok=16)


def test_a_terminal_shows_what_a_cube_holds(cube: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.accessor.view.View.looked_at", lambda view: pytest.fail("read"))
    text = repr(cube.mdico)
    assert text.startswith("mdico cube\n")
    for part in ("96 x 64 pixels of 10 m, EPSG:32631", "2021-05-01 to 2021-07-01", "B02, B03, B04, B08 (reflectance)"):
        assert part in text
    assert repr(cube["sentinel2"].mdico).startswith("group of an mdico cube")


def test_a_card_shows_the_cube(cube: xr.DataTree) -> None:
    card = cube.mdico._repr_html_()
    for text in ("96 x 64 pixels of 10 m, EPSG:32631", "B02, B03, B04, B08", "reflectance", "2021-05", "75</td>"):
        assert text in card
    assert card.count("data:image/png;base64,") == 3


def test_a_large_cube_is_not_read_for_its_card(cube: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdico_cube.accessor.card.MOST", 96 * 64 - 1)
    monkeypatch.setattr("mdico_cube.accessor.view.View.looked_at", lambda view: pytest.fail("read"))
    assert "A large cube" in cube.mdico._repr_html_()


def test_a_hostile_cube_s_card_is_harmless(cube: xr.DataTree) -> None:
    evil = "<script>alert(1)</script>"
    tree = cube.copy(deep=True)
    tree.attrs["mdico_modalities"]["sentinel1"]["title"] = evil
    tree["labels"] = xr.DataTree(xr.Dataset(attrs={"legend": [{"name": evil, "color": "red;x:url(//evil)"}]}))
    tree.encoding["source"] = f"/tmp/{evil}"
    card = tree.mdico._repr_html_()
    assert "<script" not in card
    assert "url(" not in card
    assert "&lt;script&gt;" in card
