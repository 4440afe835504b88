"""Pixel series: what a file means, honest folds, tables that add up, and runs that can be gone on with."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import RandomForestClassifier

import mdico_cube as mdico
from mdico_cube.benchmarks.classical import CLASSICAL, fit_classical
from mdico_cube.benchmarks.folds import make_folds
from mdico_cube.benchmarks.neural import filled_features, make_inputs, subsets
from mdico_cube.benchmarks.pixel_series import PixelSeries, read_pixel_series
from mdico_cube.benchmarks.run import BenchmarkPlan, run_benchmark, section_for
from mdico_cube.benchmarks.scores import figures_of
from mdico_cube.benchmarks.table import benchmark_table
from mdico_cube.cli import app
from mdico_cube.errors import MdicoError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "pixel-series"
N, T = 60, 6


def facts(seed: int = 0) -> dict[str, Any]:
    """Two classes told apart by the level of both sensors, in 12 places, and a few pixels without a label."""
    draw = np.random.default_rng(seed)
    label = np.array(["maize", "wheat"])[np.arange(N) % 2]
    level = (np.arange(N) % 2 * 2.0 - 1)[:, None, None]
    s1 = (level * 3 - 12 + draw.normal(0, 1, (N, T, 2))).astype(np.float32)
    s2 = (-level * 0.1 + 0.3 + draw.normal(0, 0.03, (N, T, 3))).astype(np.float32)
    s2[draw.random((N, T)) < 0.3] = np.nan
    weather = np.stack([np.full((N, T), 285.0), np.full((N, T), 10.0)], axis=2).astype(np.float32)
    weather[5, 2, 0] = 0.0
    label[:4] = ["?", "ignore", "rye", "rye"]
    place = np.arange(N) // 5
    return {
        "S1": s1,
        "S2": s2,
        "weather": weather,
        "DEM": draw.normal(100, 5, (N, 2)).astype(np.float32),
        "crop": label,
        "farm": np.array([f"farm {p}" for p in place]),
        "lat": 50 + place * 0.3,
        "lon": 5 + place * 0.0,
        "timestamps": np.array([f"2021-{m:02d}-01" for m in range(3, 9)]),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.npz"
    np.savez(path, **facts())
    return path


def test_a_file_says_what_it_holds(file: Path) -> None:
    series = read_pixel_series(file, "crop")
    assert list(series.values) == ["S1", "S2", "weather", "DEM"]
    assert series.classes == ("maize", "wheat")
    assert len(series.target) == N - 4, "unlabelled pixels and classes that are too small are left out"
    assert series.steps["S1"] == tuple(f"2021-{m:02d}-01" for m in range(3, 9))
    assert series.steps["DEM"] == ("",)
    assert series.values["DEM"].shape == (N - 4, 1, 2)
    raw = facts()["S2"][4:]
    assert np.array_equal(series.valid["S2"], ~np.isnan(raw).any(axis=2))
    assert not series.values["S2"][~series.valid["S2"]].any()


def test_a_temperature_of_zero_is_missing(file: Path) -> None:
    valid = read_pixel_series(file, "crop").valid["weather"]
    assert not valid[1, 2]
    assert valid.sum() == valid.size - 1


def test_parquet_is_read_as_npz_is(file: Path, tmp_path: Path) -> None:
    columns = {k: v.tolist() for k, v in facts().items() if k != "timestamps"}
    pq.write_table(pa.table(columns), tmp_path / "toy.parquet")
    npz, parquet = (read_pixel_series(p, "crop", ["S1", "S2"]) for p in (file, tmp_path / "toy.parquet"))
    for name in ("S1", "S2"):
        np.testing.assert_allclose(parquet.values[name], npz.values[name], rtol=1e-6)
        assert np.array_equal(parquet.valid[name], npz.valid[name])
    assert np.array_equal(parquet.target, npz.target)
    assert np.array_equal(parquet.groups, npz.groups)
    assert parquet.steps["S1"][:2] == ("2001-01-01", "2001-02-01"), "without dates: months"


def test_groups_are_places_or_a_column(file: Path) -> None:
    by_place, by_farm = read_pixel_series(file, "crop"), read_pixel_series(file, "crop", group="farm")
    same = by_place.groups[:, None] == by_place.groups[None]
    assert np.array_equal(same, by_farm.groups[:, None] == by_farm.groups[None])
    assert len(np.unique(by_place.groups)) == 12


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({}, {"label": "crops"}, r"has no 'crops'. It holds: S1, S2"),
        ({}, {"label": "crop", "modalities": ["S3"]}, "has no 'S3'"),
        ({}, {"label": "crop", "min_samples": 1000}, "0 classes with at least 1000 pixels"),
        ({}, {"label": "S1"}, "must hold one value per pixel"),
        ({"S2": np.full((N, T, 3), np.nan, np.float32)}, {"label": "crop"}, "S2 is missing in every pixel"),
        ({"S2": np.zeros((N - 1, T, 3), np.float32)}, {"label": "crop"}, r"S2 must be numbers of shape .* N = 60"),
        ({"crop": np.full(N, np.nan)}, {"label": "crop"}, "holds NaN"),
        ({"lat": None}, {"label": "crop"}, "no lat and lon to group by"),
        ({"timestamps": np.array(["2021-01-01"] * T)}, {"label": "crop"}, "timestamps must increase"),
        ({"timestamps": np.array(["soon"] * T)}, {"label": "crop"}, "timestamps must hold ISO dates. Write them as"),
        ({"timestamps": np.array(["2021-01-01"] * 2)}, {"label": "crop"}, "holds 2 dates, the modalities have 1, 6 st"),
        ({"timestamps": None, "start_date": np.array(["?"] * N)}, {"label": "crop"}, "start_date must hold ISO dates"),
        ({"S2": np.zeros((N, T, 0), np.float32)}, {"label": "crop"}, r"S2 must be numbers of shape .* \(60, 6, 0\)"),
        ({"lat": np.full(N, np.nan)}, {"label": "crop"}, "lat and lon must be numbers everywhere"),
        ({"lat": np.array(["north"] * N)}, {"label": "crop"}, "lat and lon must be numbers everywhere"),
        ({"lon": np.zeros(N - 1)}, {"label": "crop"}, r"lon must hold one value for each of 60 pixels, came \(59,\)"),
        ({"farm": np.zeros(N - 1)}, {"label": "crop", "group": "farm"}, "farm must hold one value for each of 60"),
        ({}, {"label": "crop", "group": "S1"}, r"S1 must hold one value for each of 60 pixels, came \(60, 6, 2\)"),
    ],
)
def test_bad_files_get_a_sentence(
    change: dict[str, Any], arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{k: v for k, v in {**facts(), **change}.items() if v is not None})
    with pytest.raises(MdicoError, match=sentence):
        read_pixel_series(path, **arguments)


@pytest.mark.parametrize("name", ["torn.npz", "empty.npz", "torn.parquet", "series.csv", "absent.npz"])
def test_files_that_are_no_series_get_a_sentence(name: str, tmp_path: Path) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"PK not really")
    with pytest.raises(MdicoError, match=name):
        read_pixel_series(tmp_path / name, "crop")


@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_every_pixel_is_scored_once_and_honest_groups_stay_together(file: Path, protocol: str) -> None:
    series = read_pixel_series(file, "crop")
    folds = make_folds(series.target, series.groups, series.classes, 4, protocol)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(series.target)))
    shared = [np.intersect1d(series.groups[train], series.groups[test]).size for train, test in folds]
    assert any(shared) is (protocol == "paper")
    for train, test in folds:
        assert not np.intersect1d(train, test).size


def test_folds_that_cannot_be_made_are_named() -> None:
    target, groups = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    with pytest.raises(MdicoError, match="3 folds cannot be made of 2 groups"):
        make_folds(target, groups, ("a", "b"), 3, "honest")
    with pytest.raises(MdicoError, match="every sample is in the same group"):
        make_folds(target, np.zeros(4, np.int64), ("a", "b"), 2, "honest")
    with pytest.raises(MdicoError, match=r"would train without class [ab]"):
        make_folds(target, groups, ("a", "b"), 2, "honest")


def test_statistics_come_from_the_training_rows_alone(file: Path) -> None:
    series = read_pixel_series(file, "crop")
    rows = np.arange(0, 30)
    stats = make_inputs(series, rows)["S2"].stats
    seen = facts()["S2"][4:][rows].reshape(-1, 3)
    np.testing.assert_allclose(stats.mean, np.nanmean(seen, axis=0), rtol=1e-5)
    assert filled_features(series, rows)["S2"].shape == (N - 4, T * 3)
    assert np.isfinite(filled_features(series, rows)["S2"]).all()


def test_figures_in_plain_counts() -> None:
    truth, guess = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    got = figures_of("classes", truth, guess, 3)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["f1_macro"] == pytest.approx((2 * 2 / (2 * 2 + 1) + 2 * 1 / (2 * 1 + 1 + 1)) / 2)


def test_subsets_are_alone_all_but_one_and_all() -> None:
    assert list(subsets(("a", "b"))) == ["only a", "only b", "all"]
    three = subsets(("a", "b", "c"))
    assert list(three) == ["only a", "only b", "only c", "all but a", "all but b", "all but c", "all"]
    assert three["all but b"] == ("a", "c")


def test_the_protocols_differ_in_what_they_choose_on() -> None:
    honest, paper = (section_for(BenchmarkPlan(protocol=p), ("a", "b")).train for p in ("honest", "paper"))  # type: ignore[arg-type]
    assert (honest.keep, honest.schedule) == ("last", "onecycle")
    assert (paper.keep, paper.schedule, paper.patience, paper.learning_rate) == ("best", "constant", 5, 1e-3)


def test_the_weights_reach_the_networks() -> None:
    assert section_for(BenchmarkPlan(weights="sqrt"), ("a", "b")).task.weights == "sqrt"


PLAN = BenchmarkPlan(("independent", "fusion-concat"), folds=2, seeds=1, epochs=6)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forest of few trees stands for both."""
    small = {name: lambda seed, rows: RandomForestClassifier(20, random_state=seed) for name in CLASSICAL}
    monkeypatch.setattr("mdico_cube.benchmarks.classical.CLASSICAL", small)


@pytest.mark.parametrize("name", CLASSICAL)
def test_trees_learn_and_follow_the_seed(name: str) -> None:
    draw = np.random.default_rng(0)
    target = np.arange(80) % 2
    x = (draw.normal(0, 1, (80, 6)) + 2 * target[:, None]).astype(np.float32)
    target = 2 * target  # class 1 has no training row
    found = fit_classical(name, 1, x[:60], target[:60], x[60:], 3)
    assert (found.argmax(axis=1) == target[60:]).mean() > 0.8
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not found[:, 1].any()
    assert np.array_equal(found, fit_classical(name, 1, x[:60], target[:60], x[60:], 3))


@pytest.mark.usefixtures("fast")
def test_a_benchmark_prints_saves_and_goes_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = read_pixel_series(file, "crop", ["S1", "S2", "DEM"])
    table = run_benchmark(series, PLAN, tmp_path / "out")
    runs = [json.loads(p.read_text()) for p in sorted((tmp_path / "out" / "runs").glob("*.json"))]
    assert len(runs) == 4 * 2
    cell = table.cell("independent", "only S1", "f1_macro")
    values = [r["rows"]["only S1"]["f1_macro"] for r in runs if r["method"] == "independent"]
    assert cell is not None
    assert (cell.mean, cell.std, cell.count) == pytest.approx((np.mean(values), np.std(values, ddof=1), 2))
    for method in ("random-forest", "independent"):
        found = table.cell(method, "only S1", "accuracy")
        assert found is not None
        assert found.mean > 0.9
    assert table.cell("independent", "all but S1", "f1_macro") is not None
    assert table.cell("fusion-concat", "only S1", "f1_macro") is None
    assert table.cell("fusion-concat", "all", "f1_macro") is not None
    gain = next(g.difference for g in table.gains if (g.method, g.subset) == ("random-forest", "only S1"))
    forest = table.cell("random-forest", "only S1", "f1_macro")
    assert forest is not None
    assert (gain.mean, gain.count) == (pytest.approx(forest.mean - cell.mean), 2)
    text = (tmp_path / "out" / "table.md").read_text()
    assert text == benchmark_table(table)
    assert f"{gain.mean:+.3f} ({gain.p_corrected:.2f})" in text
    assert "honest protocol" in text
    with (tmp_path / "out" / "table.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(table.cells)
    assert {row["protocol"] for row in rows} == {"honest"}

    monkeypatch.setattr("mdico_cube.benchmarks.run._one", None)
    with pytest.raises(MdicoError, match="Use --resume"):
        run_benchmark(series, PLAN, tmp_path / "out")
    assert run_benchmark(series, PLAN, tmp_path / "out", resume=True) == table
    (tmp_path / "out" / "runs" / "independent-seed0-fold0.json").write_text("{")
    with pytest.raises(MdicoError, match=r"independent-seed0-fold0.json: is torn .* Delete it and go on with --resume"):
        run_benchmark(series, PLAN, tmp_path / "out", resume=True)
    with pytest.raises(MdicoError, match=r"text.md: is a file. Name a folder"):
        run_benchmark(series, PLAN, Path(shutil.copy(tmp_path / "out" / "table.md", tmp_path / "text.md")))
    other = BenchmarkPlan(PLAN.methods, 2, 1, epochs=7)
    with pytest.raises(MdicoError, match="other data or options"):
        run_benchmark(series, other, tmp_path / "out", resume=True)
    (tmp_path / "out" / "benchmark.json").write_text("[")
    with pytest.raises(MdicoError, match=r"benchmark.json: is torn .* Use --overwrite to start anew"):
        run_benchmark(series, PLAN, tmp_path / "out", resume=True)


def test_an_interrupted_benchmark_runs_only_what_is_missing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = read_pixel_series(file, "crop", ["S1", "S2"])
    plan, made = BenchmarkPlan((), folds=2, seeds=1), []

    def count(series: PixelSeries, section: object, method: str, *_: object) -> dict[str, Any]:
        made.append(method)
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"test": 1, "rows": {"all": {"f1_macro": 0.5, "accuracy": 0.5}}, "seconds": 0.0}

    monkeypatch.setattr("mdico_cube.benchmarks.run._one", count)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(series, plan, tmp_path / "out")
    run_benchmark(series, plan, tmp_path / "out", resume=True)
    assert len(made) == 5


@pytest.mark.parametrize(
    ("methods", "encoder", "sentence"),
    [
        (("mdico:contrast=1",), "mlp", "contrast: Extra inputs are not permitted. Options of mdico"),
        (("independent:main=0",), "mlp", "independent has no options"),
        (("independent",), "galileo", "no group of bands is whole"),
    ],
)
def test_what_a_method_cannot_take_is_refused_before_anything_is_written(
    methods: tuple[str, ...], encoder: str, sentence: str, file: Path, tmp_path: Path
) -> None:
    series = read_pixel_series(file, "crop", ["S1", "S2"])
    with pytest.raises(MdicoError, match=sentence):
        run_benchmark(series, BenchmarkPlan(methods, 2, 1, encoder=encoder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sensor_that_no_training_pixel_has_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    half = np.arange(N) < N // 2
    changed = {"S2": np.where(half[:, None, None], np.nan, facts()["S2"]), "farm": half.astype(str)}
    np.savez(tmp_path / "half.npz", **{**facts(), **changed})
    series = read_pixel_series(tmp_path / "half.npz", "crop", ["S1", "S2"], group="farm")
    with pytest.raises(MdicoError, match=r"fold \d of seed 0 would train without S2"):
        run_benchmark(series, BenchmarkPlan((), 2, 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fast")
def test_the_command_line_runs_it(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def door(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app([str(a) for a in arguments])
        return int(end.value.code or 0), *capfd.readouterr()

    options = ["--data", file, "--label", "crop", "--modalities", "S1, S2", "--methods", "comiss, comiss:modality=0"]
    short = ["--folds", 2, "--seeds", 1, "--epochs", 2, "--protocol", "paper", "--out", tmp_path / "out"]
    short += ["--weights", "sqrt"]
    code, out, _ = door("--quiet", "benchmark", "pixel-series", *options, *short)
    assert code == 0
    assert "2 epochs, weights sqrt" in out
    assert "PAPER PROTOCOL" in out
    assert (tmp_path / "out" / "table.csv").read_text().splitlines()[1].endswith(",paper")
    assert "| comiss |" in out
    assert "| comiss:modality=0 |" in out
    assert "gain over comiss" in out
    code, _, err = door("benchmark", "pixel-series", *options, *short[:-1], "root")
    assert code == 2
    assert "--weights is auto, balanced, sqrt or none, came 'root'" in err
    code, _, err = door("benchmark", "pixelseries", *options, *short)
    assert code == 2
    assert "did you mean 'pixel-series'" in err
    code, out, _ = door("methods")
    assert code == 0
    for name, method in mdico.METHODS.items():
        assert name in out
        assert method.card.paper in out
        assert method.card.formula in out


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "label", "pixels", "bands"),
    [("fra2023_dekad", "landcover_name", 467, 9), ("afr2017_monthly", "label_name", 449, 10)],
)
def test_real_series(name: str, label: str, pixels: int, bands: int) -> None:
    path = REAL / f"{name}.npz"
    if not path.exists():
        pytest.skip("the real data do not stand beside the project")
    series = read_pixel_series(path, label)
    assert set(series.values) == {"DEM", "S2", "S1", "weather"}
    assert len(series.target) == pixels
    assert len(series.classes) == 4
    assert series.values["S2"].shape[2] == bands
    assert 200 < series.values["weather"][series.valid["weather"]][:, 0].min() < 320
    folds = make_folds(series.target, series.groups, series.classes, 5, "honest")
    assert min(len(test) for _, test in folds) > 60
