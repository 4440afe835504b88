"""Public benchmarks, read from tiny files in their official layouts, and tables of every task out of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import f1_score, r2_score

from mdico_cube.benchmarks.classical import CLASSICAL, FORESTS, fit_labels, fit_values
from mdico_cube.benchmarks.cropharvest import read_cropharvest
from mdico_cube.benchmarks.folds import series_folds
from mdico_cube.benchmarks.lfmc import read_lfmc
from mdico_cube.benchmarks.neural import make_batch
from mdico_cube.benchmarks.run import BenchmarkPlan, run_benchmark
from mdico_cube.benchmarks.scores import figures_of
from mdico_cube.benchmarks.treesat import read_treesat
from mdico_cube.cli import app
from mdico_cube.errors import MdicoError

GROUPS = ("cereals", "oilseeds", "")  # "" is a crop without a group


def write_cropharvest(root: Path, rows: int = 36) -> np.ndarray:
    """Every third row no crop, and one row of a test region without an array."""
    draw = np.random.default_rng(0)
    (root / "features" / "arrays").mkdir(parents=True)
    features, arrays = [], []
    for i in range(rows):
        crop, held = int(i % 3 > 0), i == rows - 1
        array = draw.normal(0, 1, (12, 18)) + 3 * crop
        array[2, 5] = np.nan if i == 0 else array[2, 5]
        arrays.append(array)
        facts = {
            **{"index": i, "dataset": "toy-2020", "lat": 10 + i // 3, "lon": 20.0, "is_crop": crop, "is_test": held},
            **{"export_end_date": "2021-02-01T00:00:00", "label": None},
            "classification_label": GROUPS[i // 3 % 3] or None if crop else None,
        }
        features.append({"type": "Feature", "geometry": None, "properties": facts})
        if not held:
            with h5py.File(root / "features" / "arrays" / f"{i}_toy-2020.h5", "w") as file:
                file["array"] = array
    (root / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return np.stack(arrays)


def write_lfmc(root: Path, rows: int = 60) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    moisture = draw.uniform(50, 200, rows)
    frame = {"site": [f"site {i // 6}" for i in range(rows)], "date": ["2016-05-01"] * rows, "percent(t)": moisture}
    bands = (
        "vv vh vh_vv red green blue swir nir ndvi ndwi nirv slope elevation canopy_height forest_cover silt sand clay"
    )
    for name in bands.split():
        for lag in ("", "-1", "-2", "-3"):
            frame[f"{name}(t{lag})"] = (moisture - 125) / 40 + draw.normal(0, 0.3, rows)
    table = pd.DataFrame(frame)
    table.loc[3, "vh(t-2)"] = np.nan
    table.loc[4, "percent(t)"] = np.nan
    table.to_csv(root / "training_features.csv")
    return table


def write_treesat(root: Path, patches: int = 24) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    labels, kept = {}, {}
    for folder in ("labels", "sentinel-ts", "aerial"):
        (root / folder).mkdir(parents=True)
    names = [f"Abies_alba_{i}_1_WEFL_NLF.tif" for i in range(patches)]
    for i, name in enumerate(names):
        oak, pine = i % 2, i // 2 % 2
        labels[name] = [*([["Quercus", 0.5]] * oak), *([["Pinus", 0.4]] * pine), ["Fagus", 0.05 if i else 0.9]]
        dates = [f"2018{month:02d}{day:02d}" for month in (3, 4, 9) for day in (2, 20)]
        with h5py.File(root / "sentinel-ts" / f"{Path(name).stem}_2018.h5", "w") as file:
            s2 = draw.normal(1000, 50, (6, 10, 6, 6)) + 500 * oak
            masks = np.zeros((6, 2, 6, 6), np.uint8)
            masks[0, 1, :3] = 80
            s2[0, :, :3] = 9999
            file["sen-2-data"], file["sen-2-masks"] = s2.astype(np.uint16), masks
            file["sen-2-products"] = [f"S2A_MSIL2A_{d}T103021_N0206_R108_T32ULC_{d}T000000" for d in dates]
            for way in ("asc", "des"):
                s1 = draw.normal(0.1, 0.01, (6, 2, 6, 6)) + 0.1 * pine
                s1[5] = np.nan if way == "asc" else s1[5]
                file[f"sen-1-{way}-data"] = s1.astype(np.float32)
                file[f"sen-1-{way}-products"] = [f"S1A_IW_GRDH_1SDV_{d}T052600_{d}T052625_022315" for d in dates]
                kept[f"{name} {way}"] = s1
            kept[name] = s2.astype(np.uint16)
        image = draw.integers(0, 255, (4, 304, 304), dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            facts = {"driver": "GTiff", "count": 4, "height": 304, "width": 304, "dtype": "uint8"}
            with rasterio.open(root / "aerial" / name, "w", **facts) as file:
                file.write(image)
        kept[f"{name} aerial"] = image
    (root / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(labels))
    for part, which in (("train", names[:12]), ("val", names[12:16]), ("test", names[16:])):
        (root / f"{part}_filenames.lst").write_text("\n".join(which) + "\n")
    return kept


def test_cropharvest_is_read_band_by_band(tmp_path: Path) -> None:
    arrays = write_cropharvest(tmp_path)[:-1]
    series = read_cropharvest(tmp_path)
    assert series.classes == ("crop", "non_crop")
    assert series.target.tolist() == [1 if i % 3 == 0 else 0 for i in range(35)]
    np.testing.assert_allclose(series.values["S1"], arrays[:, :, :2], rtol=1e-6)
    np.testing.assert_allclose(series.values["S2"][1:], arrays[1:][:, :, [*range(2, 13), 17]], rtol=1e-6)
    np.testing.assert_allclose(series.values["weather"], arrays[:, :, 13:15], rtol=1e-6)
    np.testing.assert_allclose(series.values["DEM"], arrays[:, :1, 15:17], rtol=1e-6)
    assert np.argwhere(~series.valid["S2"]).tolist() == [[0, 2]]
    assert series.steps["S1"][0] == "2000-02-01"
    assert series.steps["S1"][-1] == "2001-01-01"
    assert series.steps["DEM"] == ("",)
    assert len(np.unique(series.groups)) == 12, "a cell of places each"


def test_cropharvest_multi_leaves_out_crops_without_a_group(tmp_path: Path) -> None:
    write_cropharvest(tmp_path)
    series = read_cropharvest(tmp_path, "multi", ["S1", "S2"], min_samples=3)
    assert series.classes == ("cereals", "non_crop", "oilseeds")
    assert np.bincount(series.target).tolist() == [8, 12, 8]
    assert list(series.values) == ["S1", "S2"]


def test_lfmc_is_read_step_by_step(tmp_path: Path) -> None:
    table = write_lfmc(tmp_path)
    series = read_lfmc(tmp_path, modalities=["radar", "optical", "static"])
    assert series.task == "regression"
    assert series.classes == ("percent(t)",)
    assert len(series.target) == 59, "a row without a value is left out"
    kept = table.drop(index=4)
    np.testing.assert_allclose(series.target, kept["percent(t)"], rtol=1e-6)
    for step, lag in enumerate(("-3", "-2", "-1", "")):
        np.testing.assert_allclose(series.values["optical"][:, step, 3], kept[f"swir(t{lag})"], rtol=1e-5)
    assert series.values["radar"].shape == (59, 4, 3)
    assert np.argwhere(~series.valid["radar"]).tolist() == [[3, 1]]
    assert series.values["static"].shape == (59, 1, 7)
    assert len(np.unique(series.groups)) == 10
    assert list(read_lfmc(tmp_path / "training_features.csv").values) == ["radar", "optical"]


def test_treesat_is_read_month_by_month(tmp_path: Path) -> None:
    kept = write_treesat(tmp_path)
    series = read_treesat(tmp_path, min_samples=2)
    assert series.task == "multilabel"
    assert series.classes == ("Pinus", "Quercus"), "Fagus covers enough of one patch only"
    assert series.target.tolist() == [(i // 2 % 2) | (i % 2) << 1 for i in range(24)]
    assert series.official is not None
    assert series.official.tolist() == [False] * 16 + [True] * 8
    name = "Abies_alba_3_1_WEFL_NLF.tif"
    s2 = kept[name].astype(np.float64)
    got = series.values["S2"][3]
    np.testing.assert_allclose(got[2, :, :3], s2[1, :, :3], rtol=1e-5)  # March: the cloudy half counts the second date
    np.testing.assert_allclose(got[2, :, 3:], s2[:2, :, 3:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(got[8], s2[4:].mean(axis=0), rtol=1e-5)
    assert series.valid["S2"][3].any(axis=(1, 2)).tolist() == [m in (2, 3, 8) for m in range(12)]
    np.testing.assert_allclose(series.values["S1"][3, 8, :2], kept[f"{name} asc"][4], rtol=1e-4)
    np.testing.assert_allclose(series.values["S1"][3, 8, 2:], kept[f"{name} des"][4:].mean(axis=0), rtol=1e-4)
    cell = kept[f"{name} aerial"][:, 2:52, 52:102].astype(np.float64)
    np.testing.assert_allclose(series.values["aerial"][3, 0, :4, 0, 1], cell.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(series.values["aerial"][3, 0, 4:, 0, 1], cell.std(axis=(1, 2)), rtol=1e-4)
    batch = make_batch(series, np.array([3, 5]))
    assert batch.images["S2"].shape == (2, 12, 10, 6, 6)
    assert batch.target is not None
    assert batch.target[:, 3, 3].tolist() == series.target[[3, 5]].tolist()
    assert (batch.target != -1).sum() == 2


@pytest.mark.parametrize(
    ("reader", "writer", "change", "sentence"),
    [
        (read_cropharvest, write_cropharvest, ("labels.geojson", None), "labels.geojson: cannot be read"),
        (read_cropharvest, write_cropharvest, ("labels.geojson", b"{}"), "is not CropHarvest's file of labels"),
        (read_cropharvest, write_cropharvest, ("features/arrays/3_toy-2020.h5", b"x"), "cannot be read as HDF5"),
        (
            read_cropharvest,
            write_cropharvest,
            ("features/arrays/3_toy-2020.h5", "images"),
            "has no array array, it holds",
        ),
        (read_cropharvest, write_cropharvest, ("features/arrays/3_toy-2020.h5", "array"), r"has the shape \(2,\)"),
        (
            read_cropharvest,
            write_cropharvest,
            ("features/arrays/3_toy-2020.h5", ("array", np.full((12, 18), b"x"))),
            r"has the shape \(12, 18\) \(\|S1\)",
        ),
        (read_cropharvest, write_cropharvest, ("features/arrays/3_toy-2020.h5", ("array/a", 1)), "has no array array"),
        (
            read_lfmc,
            write_lfmc,
            ("training_features.csv", b"-"),
            r"column vv\(t\) holds text among its numbers",
        ),
        (read_lfmc, write_lfmc, ("training_features.csv", None), "training_features.csv: cannot be read"),
        (
            read_lfmc,
            write_lfmc,
            ("training_features.csv", b"site,percent(t)\na,1\n"),
            r"has no column vv\(t\), vh\(t\)",
        ),
        (read_lfmc, write_lfmc, ("training_features.csv", b""), "is no table in CSV"),
        (read_treesat, write_treesat, ("val_filenames.lst", None), "has no val_filenames.lst"),
        (read_treesat, write_treesat, ("labels/TreeSatBA_v9_60m_multi_labels.json", None), "has no labels/TreeSatBA"),
        (
            read_treesat,
            write_treesat,
            ("labels/TreeSatBA_v9_60m_multi_labels.json", b"{}"),
            "has no entry Abies_alba_0",
        ),
        (
            read_treesat,
            write_treesat,
            ("labels/TreeSatBA_v9_60m_multi_labels.json", b'{"a.tif": ["Quercus"]}'),
            "is not TreeSatAI's file of labels",
        ),
        (read_treesat, write_treesat, ("train_filenames.lst", b"\xff\xfe\x00"), "is no list of file names"),
        (
            read_treesat,
            write_treesat,
            ("test_filenames.lst", b"Abies_alba_0_1_WEFL_NLF.tif\n"),
            "name Abies_alba_0_1_WEFL_NLF.tif more than once",
        ),
        (
            read_treesat,
            write_treesat,
            ("sentinel-ts/Abies_alba_0_1_WEFL_NLF_2018.h5", None),
            "has no sentinel-ts/Abies",
        ),
        (read_treesat, write_treesat, ("sentinel-ts/Abies_alba_0_1_WEFL_NLF_2018.h5", "sen-2-data"), "another version"),
        (read_treesat, write_treesat, ("aerial/Abies_alba_0_1_WEFL_NLF.tif", b"x"), "cannot be read as an image"),
    ],
)
def test_missing_and_foreign_files_get_a_sentence(
    reader: Any, writer: Any, change: tuple[str, Any], sentence: str, tmp_path: Path
) -> None:
    writer(tmp_path)
    path, content = tmp_path / change[0], change[1]
    if content == b"-":  # one cell of a table
        content = pd.read_csv(path).assign(**{"vv(t)": "-"}).to_csv().encode()
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        name, array = content if isinstance(content, tuple) else (content, np.zeros(2))
        with h5py.File(path, "w") as file:
            file[name] = array
    with pytest.raises(MdicoError, match=sentence) as caught:
        reader(tmp_path, min_samples=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [("sen-2-masks", (5, 2, 6, 6)), ("sen-2-data", (6, 9, 6, 6))])
def test_arrays_of_other_shapes_are_named(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    write_treesat(tmp_path)
    with h5py.File(tmp_path / "sentinel-ts" / "Abies_alba_0_1_WEFL_NLF_2018.h5", "r+") as file:
        del file[name]
        file[name] = np.zeros(shape, np.uint8)
    with pytest.raises(MdicoError, match=r"has an array of shape .* \(uint8\), expected numbers"):
        read_treesat(tmp_path, min_samples=2)


def test_a_single_genus_is_no_task(tmp_path: Path) -> None:
    write_treesat(tmp_path)
    path = tmp_path / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
    path.write_text(json.dumps({name: [["Quercus", 0.5]] for name in json.loads(path.read_text())}))
    with pytest.raises(MdicoError, match="1 genera have 2 training patches or more, two are needed"):
        read_treesat(tmp_path, min_samples=2)


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({"lat": float("nan")}, {}, "lat and lon must be numbers everywhere"),
        ({}, {"group": "farm"}, "labels.geojson has no property farm. Choose of classification_label, dataset"),
    ],
)
def test_labels_without_a_place_or_group_are_named(
    change: dict[str, Any], arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    write_cropharvest(tmp_path)
    content = json.loads((tmp_path / "labels.geojson").read_text())
    content["features"][3]["properties"].update(change)
    (tmp_path / "labels.geojson").write_text(json.dumps(content))
    with pytest.raises(MdicoError, match=sentence):
        read_cropharvest(tmp_path, **arguments)


def test_an_export_without_a_date_does_not_move_the_months(tmp_path: Path) -> None:
    write_cropharvest(tmp_path)
    content = json.loads((tmp_path / "labels.geojson").read_text())
    for feature in content["features"][:30]:
        feature["properties"]["export_end_date"] = "soon"
    (tmp_path / "labels.geojson").write_text(json.dumps(content))
    assert read_cropharvest(tmp_path).steps["S1"][0] == "2000-02-01"


def test_unknown_parts_and_single_classes_are_named(tmp_path: Path) -> None:
    write_cropharvest(tmp_path)
    with pytest.raises(MdicoError, match="has no S3, it has S1, S2, weather, DEM"):
        read_cropharvest(tmp_path, modalities=["S3"])
    with pytest.raises(MdicoError, match="--label is binary or multi, came 'wheat'"):
        read_cropharvest(tmp_path, "wheat")
    with pytest.raises(MdicoError, match="has 1 classes with at least 15 pixels"):
        read_cropharvest(tmp_path, "binary", min_samples=15)


def test_folds_follow_the_task(tmp_path: Path) -> None:
    write_lfmc(tmp_path)
    series = read_lfmc(tmp_path)
    for protocol in ("honest", "paper"):
        folds = series_folds(series, 5, protocol, seed=1)
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(59))
        shared = [np.intersect1d(series.groups[train], series.groups[test]).size for train, test in folds]
        assert any(shared) is (protocol == "paper")
    with pytest.raises(MdicoError, match="11 folds cannot be made of 10 groups"):
        series_folds(series, 11, "honest")


def test_figures_of_labels_and_values() -> None:
    truth, guess = np.array([0b01, 0b11, 0b00, 0b10]), np.array([0b01, 0b01, 0b10, 0b10])
    bits = [np.array([[x & 1, x >> 1] for x in each]) for each in (truth, guess)]
    got = figures_of("multilabel", truth, guess, 2)
    assert got["f1_macro"] == pytest.approx(f1_score(*bits, average="macro"))
    assert got["f1_macro"] == pytest.approx((1.0 + 0.5) / 2)
    value, said = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    got = figures_of("regression", value, said, 1)
    assert got["rmse"] == pytest.approx(np.sqrt((0.25 + 1) / 3))
    assert got["bias"] == pytest.approx(-0.5 / 3)
    assert got["mae"] == pytest.approx(0.5)
    assert got["r2"] == pytest.approx(r2_score(value, said))
    assert got["rrmse"] == pytest.approx(got["rmse"] / (7 / 3))


@pytest.mark.parametrize("name", FORESTS)
def test_trees_learn_values_and_labels(name: str) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(0, 1, (90, 3)).astype(np.float32)
    got = fit_values(name, 0, x[:70], 100 + 10 * x[:70, 0], x[70:])
    assert r2_score(100 + 10 * x[70:, 0], got) > 0.7
    bits = (x[:, 0] > 0).astype(np.int64) | (x[:, 1] > 0).astype(np.int64) << 1
    assert (fit_labels(name, 0, x[:70], bits[:70], x[70:], 2) == bits[70:]).mean() > 0.7
    assert (fit_labels(name, 0, x[:70], bits[:70] | 2, x[70:], 2) & 2 == 2).all(), "a label that every row has"


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = {name: lambda seed, rows: RandomForestClassifier(20, random_state=seed) for name in CLASSICAL}
    values = {name: lambda seed, rows: RandomForestRegressor(20, random_state=seed) for name in FORESTS}
    monkeypatch.setattr("mdico_cube.benchmarks.classical.CLASSICAL", trees)
    monkeypatch.setattr("mdico_cube.benchmarks.classical.FORESTS", values)


@pytest.mark.usefixtures("few_trees")
def test_a_table_of_values(tmp_path: Path) -> None:
    write_lfmc(tmp_path)
    plan = BenchmarkPlan(("independent",), folds=2, seeds=1, epochs=20)
    table = run_benchmark(read_lfmc(tmp_path), plan, tmp_path / "out")
    for method in ("random-forest", "independent"):
        found = table.cell(method, "only radar", "r2")
        assert found is not None
        assert found.mean > 0.6, method
    text = (tmp_path / "out" / "table.md").read_text()
    assert "1 value (percent(t)), 2 folds" in text
    assert "| R2 |" in text
    assert "| RMSE / mean |" in text


@pytest.mark.usefixtures("few_trees")
def test_a_table_of_labels_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_treesat(tmp_path)
    options = ["--data", tmp_path, "--methods", "independent", "--modalities", "S1,S2", "--min-samples", 2]
    short = ["--seeds", 1, "--epochs", 20, "--encoder", "mlp", "--out", tmp_path / "out"]
    with pytest.raises(SystemExit) as end:
        app([str(a) for a in ("--quiet", "benchmark", "treesatai", *options, *short)])
    out, _ = capfd.readouterr()
    assert not end.value.code
    assert "24 patches, 2 labels side by side (Pinus, Quercus), the official split" in out
    assert "honest protocol: last epoch" in out
    assert "±" not in out, "one run has no spread"
    assert "| Micro F1 |" in out
    runs = list((tmp_path / "out" / "runs").glob("*.json"))
    assert len(runs) == 3, "one fold"
    found = json.loads((tmp_path / "out" / "runs" / "independent-seed0-fold0.json").read_text())
    assert found["rows"]["all"]["f1_macro"] > 0.6


def test_a_sensor_that_saw_nothing_is_named(tmp_path: Path) -> None:
    write_cropharvest(tmp_path)
    for path in (tmp_path / "features" / "arrays").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file["array"][:, :2] = np.nan
    with pytest.raises(MdicoError, match="cropharvest-binary: S1 was never observed"):
        run_benchmark(read_cropharvest(tmp_path), BenchmarkPlan(folds=2, seeds=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_that_are_not_there_or_all_the_same_are_named(tmp_path: Path) -> None:
    table = write_lfmc(tmp_path)
    for value, sentence in ((np.nan, "has 0 values, at least two are needed"), (100.0, "has the same value, 100")):
        table.assign(**{"percent(t)": value}).to_csv(tmp_path / "training_features.csv")
        with pytest.raises(MdicoError, match=sentence):
            run_benchmark(read_lfmc(tmp_path), BenchmarkPlan((), 2, 1), tmp_path / str(value))


def test_values_have_no_class_weights(tmp_path: Path) -> None:
    write_lfmc(tmp_path)
    with pytest.raises(MdicoError, match="a value has no classes to weigh, came sqrt"):
        run_benchmark(read_lfmc(tmp_path), BenchmarkPlan((), 2, 1, weights="sqrt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
