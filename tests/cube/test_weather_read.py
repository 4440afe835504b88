"""ERA5 from store to cube: the layer against plain numpy, whatever the store looks like; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from odc.geo.geobox import GeoBox
from toy_weather import (
    LATITUDES,
    LONGITUDES,
    RULES,
    hourly_weather,
    save_weather,
    weather_catalog,
    weather_item,
    write_store,
)

from mdico_cube.cube import cells
from mdico_cube.cube.access import Access
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.cells import CoarseStore
from mdico_cube.cube.estimate import costs
from mdico_cube.cube.items import read_items
from mdico_cube.cube.ledger import DONE, FAILED, Ledger
from mdico_cube.cube.pages import UnreachableError
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_cube, open_reader
from mdico_cube.cube.weather_job import run_weather
from mdico_cube.cube.weather_read import WeatherLayer, read_weather
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console
from mdico_cube.recipe import ReadSection, Recipe, StoreRules, parse_recipe
from mdico_cube.sensors.era5 import vapour_deficit
from mdico_cube.spec import Array

BANDS = ["t2m", "t2m_min", "t2m_max", "vpd", "tp"]
Facts = dict[str, Any]


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return hourly_weather()


@pytest.fixture(scope="module")
def weather_href(weather: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weather(tmp_path_factory.mktemp("weather"), weather)


@pytest.fixture
def facts(recipe_facts: Facts, weather_href: Path) -> Facts:
    """The toy recipe with weather from a catalog of its own, and terrain."""
    era5 = {"bands": BANDS, "href": str(weather_href), "source": {"collection": "era5", "zarr": RULES}}
    return {**recipe_facts, "modalities": {"sentinel1": {}, "era5": era5, "dem": {}, "sentinel2": {"bands": ["B04"]}}}


def only_weather(facts: Facts, **changes: Any) -> tuple[BuildPlan, WeatherLayer]:
    """Plan and read the weather alone, with changes to its rules."""
    era5 = facts["modalities"]["era5"]
    rules = {**era5["source"]["zarr"], **changes}
    section = {**era5, "source": {**era5["source"], "zarr": rules}}
    colearn = {**facts["colearn"], "modalities": ["era5", "dem"]}
    recipe = parse_recipe({**facts, "modalities": {"era5": section, "dem": {}}, "colearn": colearn})
    plan = plan_build(recipe)
    return plan, read_weather(plan.weather[0], plan.geobox)


def oracle(weather: xr.Dataset, shift: int = 0) -> Array:
    """(T, C, ny, nx) of the whole toy grid, January to March 2021, by plain selection."""
    steps = []
    for month in (1, 2, 3):
        first, end = pd.Timestamp(2021, month, 1), pd.Timestamp(2021, month, 1) + pd.offsets.MonthBegin()
        first, end = first - pd.Timedelta(hours=shift), end - pd.Timedelta(hours=shift)
        hours = weather.valid_time.values
        moments = weather.isel(valid_time=np.flatnonzero((hours >= first) & (hours < end)))
        fallen = weather.fell.values[(hours > first) & (hours <= end)]
        t2m, d2m = moments.t2m.values.astype(float), moments.d2m.values.astype(float)
        steps.append(
            [t2m.mean(0), t2m.min(0), t2m.max(0), vapour_deficit(t2m, d2m).mean(0), fallen.astype(float).sum(0)]
        )
    return np.array(steps)


def around(weather: xr.Dataset, plan: BuildPlan) -> tuple[list[int], list[int]]:
    layer = plan.weather[0]
    rows = [int(np.argmin(np.abs(weather.latitude.values - lat))) for lat in layer.latitudes]
    return rows, [
        int(np.argmin(np.abs((weather.longitude.values - lon + 180) % 360 - 180))) for lon in layer.longitudes
    ]


def test_the_layer_equals_plain_numpy(facts: Facts, weather: xr.Dataset) -> None:
    plan, layer = only_weather(facts)
    rows, columns = around(weather, plan)
    np.testing.assert_allclose(layer.values, oracle(weather)[:, :, rows][..., columns], rtol=2e-5)
    np.testing.assert_allclose(layer.heights, weather.z.values[rows][:, columns] / 9.80665, rtol=1e-6)
    chosen = plan.weather[0]
    assert chosen.latitudes == (50.75, 50.5), "the cells around the area, north first"
    assert chosen.longitudes == (5.75, 6.0)
    assert chosen.per_step == (744, 672, 744)


def test_hourly_sums_dated_by_their_end(facts: Facts, weather: xr.Dataset) -> None:
    """As ERA5 dates its rain: the value of 00:00 on the first of a month belongs to the month before."""
    facts["modalities"]["era5"]["bands"] = ["tp"]
    variables = {"tp": {"name": "fell", "kind": "sum", "unit": "mm"}}
    plan, layer = only_weather(facts, variables=variables, stamp="end", orography=None)
    rows, columns = around(weather, plan)
    want = oracle(weather)[:, 4:][:, :, rows][..., columns]
    np.testing.assert_allclose(layer.values, want, rtol=2e-5)
    assert not np.allclose(
        only_weather(facts, variables=variables, stamp="start", orography=None)[1].values, want, rtol=2e-5
    )


def test_steps_follow_the_local_sun(facts: Facts, weather: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty degrees further east, midnight comes two hours earlier in UTC."""
    monkeypatch.setattr("mdico_cube.cube.weather_planning.longitude", lambda _: 30.0)
    plan, layer = only_weather(facts)
    rows, columns = around(weather, plan)
    np.testing.assert_allclose(layer.values, oracle(weather, shift=2)[:, :, rows][..., columns], rtol=2e-5)


LOOKS: dict[str, Any] = {
    "zarr 2": {"zarr_format": 2},
    "not consolidated": {"consolidated": False},
    "small chunks": {"hours": 7},
    "one chunk": {"hours": 10_000},
    "south first": {"flip": "latitude"},
    "east first": {"flip": "longitude"},
    "from -180": {"turn": 6.0},
    "time": {"rename": {"valid_time": "time", "latitude": "lat", "longitude": "lon"}},
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_store_may_look_otherwise(facts: Facts, weather: xr.Dataset, tmp_path: Path, look: str) -> None:
    options = dict(LOOKS[look])
    data = weather.isel({flip: slice(None, None, -1)}) if (flip := options.pop("flip", "")) else weather
    if (turn := options.pop("turn", 0)) != 0:  # the axis begins in the middle of the area, and is negative before it
        data = data.roll(longitude=int(np.searchsorted(LONGITUDES, turn)), roll_coords=True)
        data = data.assign_coords(longitude=np.where(data.longitude > turn, data.longitude - 360, data.longitude))
    data = data.rename(options.pop("rename", {}))
    want = only_weather(facts)[1]
    facts["modalities"]["era5"]["href"] = str(save_weather(tmp_path, data, **options))
    plan, came = only_weather(facts)
    np.testing.assert_array_equal(came.values, want.values)
    np.testing.assert_array_equal(came.heights, want.heights)
    assert plan.weather[0].longitudes == (5.75, 6.0)


@pytest.mark.parametrize(
    ("code", "bounds", "seam"),
    [
        ("EPSG:32631", (280000, 5600000, 292000, 5606000), 0.0),
        ("EPSG:32601", (280000, 5600000, 292000, 5606000), 180.0),
    ],
)
@pytest.mark.parametrize("first", [0.0, -180.0])
def test_areas_on_the_seam_of_longitudes(tmp_path: Path, code: str, bounds: Any, seam: float, first: float) -> None:
    """Greenwich and the antimeridian, from stores that count from 0 and from -180."""
    columns = first + np.arange(0, 360, 0.25)
    data = hourly_weather("2021-01-01", "2021-01-01 03:00", LATITUDES, columns)
    field = np.cos(np.radians(columns - seam)) + columns[None] * 0 + LATITUDES[:, None]
    data["t2m"][:] = field + 0 * data.t2m
    write_store(tmp_path / "w.zarr", data)
    item = weather_item("w", str(tmp_path / "w.zarr"), pd.DatetimeIndex(data.valid_time.values))
    store = CoarseStore(item, "data", StoreRules.model_validate(RULES), Access(), ReadSection())
    box = GeoBox.from_bbox(bounds, code, resolution=1000)
    rows, east = store.around(box)
    assert np.allclose(np.diff(east.ticks), 0.25)
    assert abs((east.ticks[0] - seam + 180) % 360 - 180) < 0.6
    assert any(abs((tick - seam + 180) % 360 - 180) < 1e-9 for tick in east.ticks[1:-1]), "the seam lies inside"
    values = store.read(StoreRules.model_validate(RULES).variables["t2m"], "K", np.arange(2), (rows, east))
    want = np.asarray(rows.ticks)[:, None] + np.cos(np.radians(np.asarray(east.ticks) - seam))
    np.testing.assert_allclose(values[1].reshape(want.shape), want, rtol=1e-6)


def test_a_cube_with_weather(facts: Facts) -> None:
    recipe = parse_recipe(facts)
    path = build_cube(recipe)
    reader = open_reader(path)
    _, layer = only_weather(facts)
    np.testing.assert_array_equal(reader.coarse("era5").values, layer.values)
    assert reader.rests_on("era5") == ("era5", "dem")
    whole, observed = reader.read("era5", slice(0, 64), slice(0, 96))
    assert whole.shape == (3, 5, 64, 96)
    assert observed.all()
    ground = reader.stored("dem", slice(0, 64), slice(0, 96))[0, 0]
    flat = whole[:, 0] + 0.0065 * ground
    assert np.ptp(ground) > 30
    assert np.ptp(flat[0]) < np.ptp(whole[0, 0]) + 1
    np.testing.assert_array_equal(reader.stored("era5", slice(7, 9), slice(30, 40)), whole[..., 7:9, 30:40])
    entry = Ledger(path, "era5").read(0, 0)
    assert entry.state == DONE
    assert entry.items == ("weather",)
    assert entry.valid_fraction == 1
    assert entry.step_fractions == dict.fromkeys(("2021-01-01", "2021-02-01", "2021-03-01"), 1)
    assert open_cube(path)["era5/weather"].sizes == {"time": 3, "band": 5, "latitude": 2, "longitude": 2}


def test_resume_reads_weather_again_only_when_it_would_differ(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    facts["modalities"].pop("sentinel2")
    facts["colearn"]["modalities"] = ["sentinel1", "era5"]
    read: list[str] = []
    monkeypatch.setattr(
        "mdico_cube.cube.weather_job.read_weather",
        lambda plan, box: (read.append(plan.modality.name), read_weather(plan, box))[1],
    )
    path = build_cube(parse_recipe(facts))
    before = open_reader(path).stored("era5", slice(0, 8), slice(0, 8))
    build_cube(parse_recipe(facts), resume=True)
    assert read == ["era5"]
    facts["modalities"]["era5"]["lapse_rate"] = 0
    build_cube(parse_recipe(facts), resume=True)
    assert read == ["era5", "era5"]
    after = open_reader(path).stored("era5", slice(0, 8), slice(0, 8))
    assert (after[:, 0] != before[:, 0]).all()
    np.testing.assert_array_equal(after[:, 4], before[:, 4])


def test_a_claim_that_was_overruled_writes_nothing(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another builder took the job over while this one read, with success or without."""
    recipe = parse_recipe(facts)
    path, plan = build_cube(recipe), plan_build(recipe)
    before = Ledger(path, "era5").read(0, 0)

    def fail(*_: Any) -> None:
        raise MdicoError("no weather today.")

    for read in (read_weather, fail):
        monkeypatch.setattr("mdico_cube.cube.weather_job.read_weather", read)
        built = run_weather(path, plan.weather[0], plan.geobox, lambda: False)
        assert (built.lost, built.bytes_written, built.error) == (True, 0, "")
        assert Ledger(path, "era5").read(0, 0) == before
    assert run_weather(path, plan.weather[0], plan.geobox).error == "no weather today."


def test_weather_that_stands_is_carried_over_when_a_cube_grows(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    modalities = facts["modalities"]
    facts["colearn"]["modalities"] = ["sentinel1", "era5"]
    build_cube(parse_recipe({**facts, "modalities": {name: modalities[name] for name in ("sentinel1", "era5", "dem")}}))
    with monkeypatch.context() as patch:
        patch.setattr("mdico_cube.cube.weather_job.read_weather", lambda *_: pytest.fail("era5 is read again"))
        path = build_cube(parse_recipe(facts), update=True)
    grown, new = open_reader(path), open_reader(build_cube(parse_recipe(facts), overwrite=True))
    assert "sentinel2" in grown.modalities
    assert new.coarse("era5").rate > 0
    assert grown.coarse("era5").rate == new.coarse("era5").rate
    np.testing.assert_array_equal(grown.coarse("era5").values, new.coarse("era5").values)


def test_a_plan_with_weather_travels_as_text(facts: Facts) -> None:
    plan = plan_build(parse_recipe(facts))
    again = load_plan(dump_plan(plan))
    assert again.weather[0].origin == plan.weather[0].origin
    np.testing.assert_array_equal(
        read_weather(again.weather[0], again.geobox).values, read_weather(plan.weather[0], plan.geobox).values
    )


def test_memory_is_bounded_by_parts(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    want = only_weather(facts)[1]
    parts: list[int] = []
    real = CoarseStore.read

    def read(self: CoarseStore, variable: Any, unit: str, rows: Any, around: Any) -> Any:
        parts.append(len(rows))
        return real(self, variable, unit, rows, around)

    monkeypatch.setattr(cells, "BATCH", 1)
    monkeypatch.setattr(CoarseStore, "read", read)
    np.testing.assert_allclose(only_weather(facts)[1].values, want.values, rtol=1e-6)
    assert max(parts) <= 240
    assert len(parts) > 20


def test_stores_of_single_months_are_joined(facts: Facts, weather: xr.Dataset, tmp_path: Path) -> None:
    """They overlap by some days, and hold other values there: the first one counts."""
    want = only_weather(facts)[1]
    items = []
    for i, (start, end) in enumerate([("2020-12-31", "2021-02-04"), ("2021-02-01", "2021-04-02")]):
        part = weather.sel(valid_time=slice(start, end)).copy(deep=True)
        if i:
            part["t2m"].loc[{"valid_time": slice("2021-02-01", "2021-02-04")}] = 0
        write_store(tmp_path / f"{i}.zarr", part)
        items.append(weather_item(f"part{i}", str(tmp_path / f"{i}.zarr"), pd.DatetimeIndex(part.valid_time.values)))
    facts["modalities"]["era5"]["href"] = str(weather_catalog(tmp_path / "catalog", items))
    facts["modalities"]["era5"]["bands"] = ["t2m", "tp"]
    came = only_weather(facts)[1]
    np.testing.assert_allclose(came.values, want.values[:, [0, 4]], rtol=1e-6)
    assert came.values[:, 0].min() > 250
    came = only_weather(facts, items=["part1"])[1]
    assert np.isnan(came.values[0]).all(), "January is missing, not zero"
    assert not np.isnan(came.values[1:]).any()


def test_a_store_that_ends_early_leaves_the_last_step_missing(
    facts: Facts, weather: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.quiet = False
    data = weather.sel(valid_time=slice(None, "2021-03-30"))
    facts["modalities"]["era5"]["href"] = str(save_weather(tmp_path, data))
    _, layer = only_weather(facts)
    assert np.isnan(layer.values[2]).all()
    assert not np.isnan(layer.values[:2]).any()
    _, layer = only_weather(facts, coverage=0.9)
    assert not np.isnan(layer.values[2, :4]).any(), "a mean bears a lost day"
    assert np.isnan(layer.values[2, 4]).all(), "a sum does not"
    said = " ".join(capsys.readouterr().err.split())
    assert "era5: 1 of 3 steps have too few values and stay missing: 2021-03-01 has 720 of 744, one every 1h" in said
    assert said.count("too few") == 1, "a mean that bears it is not told of"
    short = weather.sel(valid_time=slice(None, "2021-02-27"))
    facts["modalities"]["era5"]["href"] = str(save_weather(tmp_path / "short", short))
    assert only_weather(facts)[0].gaps() == {"era5": ("2021-03-01",)}


def test_temperatures_of_nought_kelvin_are_missing(facts: Facts, tmp_path: Path) -> None:
    """As AgERA5 has it: monthly values of one cell, where 0 K means not known."""
    months = pd.date_range("2021-01-01", "2021-03-01", freq="MS", name="time")
    axes = ("time", "latitude", "longitude")
    data = xr.Dataset(
        {
            "t2m": (axes, np.array([278.0, 0.0, 281.0], np.float32)[:, None, None], {"units": "K"}),
            "tp": (axes, np.array([30.0, 0.0, 0.0], np.float32)[:, None, None], {"units": "mm"}),
        },
        coords={"time": months, "latitude": [50.6], "longitude": [5.8]},
    )
    facts["modalities"]["era5"]["href"] = str(save_weather(tmp_path, data, zarr_format=2))
    facts["modalities"]["era5"]["bands"] = ["t2m", "tp"]
    variables = {
        "t2m": {"name": "t2m", "kind": "mean", "unit": "K", "missing": 0},
        "tp": {"name": "tp", "kind": "sum", "unit": "mm"},
    }
    _, layer = only_weather(facts, every="MS", variables=variables, orography=None)
    assert layer.values.shape == (3, 2, 1, 1)
    np.testing.assert_array_equal(layer.values[..., 0, 0], [[278, 30], [np.nan, 0], [281, 0]])
    facts["modalities"]["era5"]["source"]["zarr"] = {"every": "MS", "variables": variables}
    facts["modalities"] = {"era5": facts["modalities"]["era5"], "dem": {}}
    facts["colearn"]["modalities"] = ["era5", "dem"]
    values, observed = open_reader(build_cube(parse_recipe(facts))).read("era5", slice(0, 5), slice(0, 5))
    assert observed[0].all()
    assert not observed[1].any()
    assert (values[0, 0] == 278).all()
    assert (values[1] == 0).all(), "the array's filler, masked"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown band": ({"bands": ["t2n"]}, "era5: unknown band t2n.*Did you mean 't2m'"),
    "band not told": ({"bands": ["ssrd"]}, "era5 does not tell era5's ssrd: it has t2m, d2m, tp. Leave ssrd out"),
    "unknown variable": (
        {"rules": {"variables": {"t2m": {"name": "t2mm", "unit": "K"}}}, "bands": ["t2m"]},
        "no variable 't2mm': it has .*Did you mean 't2m'",
    ),
    "wrong unit": (
        {"rules": {"variables": {"tp": {"name": "tp", "kind": "sum", "unit": "mm"}}}, "bands": ["tp"]},
        "tp is in 'm' there, the catalog file says 'mm'",
    ),
    "no such asset": (
        {"rules": {"asset": "dato"}},
        "asset dato: there is none, the item has data.*Did you mean 'data'",
    ),
    "no such item": ({"rules": {"items": ["whether"]}}, "no item 'whether'.*Did you mean 'weather'"),
    "no such collection": ({"collection": "era"}, "no collection 'era'.*Did you mean 'era5'"),
    "no offset": ({"rules": {"every": "daily"}}, "every: 'daily' is no pandas offset that moves on"),
    "an offset backwards": ({"rules": {"every": "-1D"}}, "every: '-1D' is no pandas offset that moves on"),
    "cut months": ({"rules": {"every": "MS"}, "start": "2021-01-10"}, "Use longer steps"),
    "another time": ({"start": "1999-01-01", "end": "1999-02-01"}, "no item in .* is of 1999-01-01"),
    "another place": (
        {"bounds": [300000, 5000000, 300960, 5000640]},
        "covers latitude 50 to 51, the area lies at 45",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(facts: Facts, name: str) -> None:
    change, says = BAD[name]
    era5 = facts["modalities"]["era5"]
    era5["bands"] = change.get("bands", ["t2m"])
    era5["source"] = {"collection": change.get("collection", "era5"), "zarr": {**RULES, **change.get("rules", {})}}
    facts["period"] |= {key: change[key] for key in ("start", "end") if key in change}
    facts["area"]["bounds"] = change.get("bounds", facts["area"]["bounds"])
    with pytest.raises(MdicoError, match=says):
        only_weather(facts)


def test_what_weather_costs_stands_in_the_plan(facts: Facts) -> None:
    """Chunks of 240 hours, three by four cells: the area's four by five cells need two by two of them at a time."""
    plan = plan_build(parse_recipe(facts))
    layer = plan.weather[0]
    cost = costs(plan)["era5"]
    hours = pd.date_range("2020-12-31", "2021-04-02", freq="h")
    chunks = sum(bool(((part >= layer.edges[0][0]) & (part <= layer.edges[-1][1])).any())
                 for part in (hours[i : i + 240] for i in range(0, len(hours), 240)))  # fmt: skip
    rows = len({int(np.flatnonzero(tick == LATITUDES)[0]) // 3 for tick in layer.latitudes})
    columns = len({int(np.flatnonzero(tick == LONGITUDES)[0]) // 4 for tick in layer.longitudes})
    assert (cost.tasks, cost.reads, cost.found) == (1, 1, 1)
    assert cost.requests == chunks * rows * columns * 3, "of t2m, d2m and tp"
    assert cost.memory >= 3 * 240 * 3 * 4 * 4


def test_another_catalog_stands_in_where_the_stores_cannot_be_reached(
    facts: Facts,
    weather: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.yml"
    href = save_weather(tmp_path / "there", weather)
    source = {"collection": "era5", "zarr": RULES}
    other.write_text(
        yaml.safe_dump({"name": "other", "title": "Another", "href": str(href), "modalities": {"era5": source}})
    )
    console.quiet = False
    _, want = only_weather(facts)
    facts["modalities"]["era5"] |= {"catalog": "local", "href": "http://127.0.0.1:9/catalog.json"}
    facts["read"] = {"retries": 0, "timeout": 1}
    with pytest.raises(UnreachableError):
        only_weather(facts)
    facts["fallback"] = [{"catalog": "planetary-computer"}, {"catalog": str(other)}]
    _, got = only_weather(facts)
    np.testing.assert_array_equal(got.values, want.values)
    assert "era5 is taken from other instead" in " ".join(capsys.readouterr().err.split())
    facts["modalities"]["era5"]["bands"] = ["swvl1"]
    with pytest.raises(MdicoError, match="does not tell era5's swvl1"):
        only_weather(facts)


def test_a_reducer_is_refused(facts: Facts) -> None:
    facts["modalities"]["era5"]["reducer"] = "median"
    with pytest.raises(MdicoError, match=r"every band has its own .*t2m_min: min.*tp: sum"):
        plan_build(parse_recipe(facts))


def test_saved_items_build_the_same_weather_without_the_catalog(facts: Facts, weather_href: Path) -> None:
    recipe = parse_recipe(facts)
    want = open_reader(build_cube(recipe)).coarse("era5").values
    saved = read_items(recipe.output / "items.parquet")
    assert [item.id for item in saved["era5"].items] == ["weather"]
    hidden = weather_href.with_suffix(".hidden")
    weather_href.rename(hidden)
    try:
        plan = plan_build(recipe, saved)
        np.testing.assert_array_equal(read_weather(plan.weather[0], plan.geobox).values, want)
    finally:
        hidden.rename(weather_href)
    assert plan_build(recipe, saved, reuse=True).answers["era5"] is saved["era5"]


def test_no_rules_no_weather(facts: Facts) -> None:
    facts["modalities"]["era5"] |= {"catalog": "usgs-landsatlook", "source": {"collection": "era5"}}
    with pytest.raises(MdicoError, match="nobody says how the Zarr stores of era5 are to be read"):
        plan_build(parse_recipe(facts))


def test_a_chunk_that_cannot_be_unpacked_fails_the_job_and_only_it(
    facts: Facts, weather: xr.Dataset, tmp_path: Path
) -> None:
    facts["modalities"]["era5"]["href"] = str(save_weather(tmp_path, weather))
    for chunk in (tmp_path / "weather.zarr" / "tp" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no longer a chunk")
    recipe = parse_recipe(facts)
    with pytest.raises(MdicoError, match=r"1 of .* item weather, asset data: tp: the Zarr store .* cannot be read"):
        build_cube(recipe)
    path = recipe.output / "cube.zarr"
    assert Ledger(path, "era5").read(0, 0).state == FAILED
    assert (Ledger(path, "sentinel2").states() == DONE).all()
    with pytest.raises(MdicoError, match="lacks 1 shard of era5"):
        open_reader(path).check_complete(["era5"])
    assert not open_reader(path).read("era5", slice(0, 2), slice(0, 2))[1].any()


@pytest.mark.parametrize(
    ("store", "cluster"),
    [({"kind": "icechunk"}, {"kind": "loop"}), ({}, {"kind": "local", "workers": 1, "threads": 1})],
)
def test_weather_is_built_wherever_a_cube_is_built(facts: Facts, store: Facts, cluster: Facts) -> None:
    """In a commit, and by worker processes that know the plan as text only."""
    pytest.importorskip("icechunk")
    facts["modalities"] = {name: facts["modalities"][name] for name in ("era5", "dem")}
    facts["colearn"]["modalities"] = ["era5", "dem"]
    facts["store"] |= store
    recipe = parse_recipe({**facts, "cluster": cluster})
    want = only_weather(facts)[1].values
    path = build_cube(recipe)
    np.testing.assert_array_equal(open_reader(path).coarse("era5").values, want)
    assert Ledger(path, "era5").read(0, 0).state == DONE
    build_cube(recipe, resume=True)


def test_stores_that_fail_during_the_build_are_read_from_another_catalog(
    facts: Facts, weather: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: the layer is the one the first catalog would have given; the ledger says whose it is."""
    console.quiet = False
    _, want = only_weather(facts)
    broken = save_weather(tmp_path / "broken", weather)
    for chunk in (tmp_path / "broken" / "weather.zarr" / "tp" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no longer a chunk")
    shifted = weather.assign_coords(latitude=weather.latitude + 0.1)
    short = weather.isel(valid_time=weather.valid_time < np.datetime64("2021-02-20"))
    places = {
        "elsewhere": save_weather(tmp_path / "elsewhere", shifted),
        "short": save_weather(tmp_path / "short", short),
        "good": save_weather(tmp_path / "good", weather),
    }
    for name, href in places.items():
        modalities = {"era5": {"collection": "era5", "zarr": RULES}}
        text = yaml.safe_dump({"name": name, "title": name, "href": str(href), "modalities": modalities})
        (tmp_path / f"{name}.yml").write_text(text)

    def recipe(*names: str) -> Recipe:
        era5 = {**facts["modalities"]["era5"], "href": str(broken)}
        return parse_recipe(
            {
                **facts,
                "modalities": {"era5": era5, "dem": {}},
                "colearn": {**facts["colearn"], "modalities": ["era5", "dem"]},
                "fallback": [{"catalog": str(tmp_path / f"{name}.yml")} for name in names],
            }
        )

    with pytest.raises(MdicoError, match=r"tp: .*be read.*elsewhere: its cells are others.*short: .* 2021-03-01"):
        build_cube(recipe("elsewhere", "short"))
    cube = build_cube(recipe("elsewhere", "good"), resume=True)
    layer = open_reader(cube).coarse("era5")
    np.testing.assert_array_equal(layer.values, want.values)
    np.testing.assert_array_equal(layer.heights, want.heights)
    entry = Ledger(cube, "era5").read(0, 0)
    assert (entry.state, entry.stand_ins) == (DONE, {"weather": "good/era5/weather"})
    assert "It is taken from good/era5/weather instead" in " ".join(capsys.readouterr().err.split())
    plan = plan_build(recipe("elsewhere", "good"))
    assert load_plan(dump_plan(plan)).weather[0].fallbacks == plan.weather[0].fallbacks != ()
