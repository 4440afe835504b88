"""Studies: what trains and what is scored, variants of methods, paired tests, calibration, tables that add up."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.ensemble import RandomForestClassifier

from mdico_cube.batch import Batch
from mdico_cube.benchmarks.classical import CLASSICAL
from mdico_cube.benchmarks.feed import SeriesLoader
from mdico_cube.benchmarks.region import region_series
from mdico_cube.benchmarks.significance import paired
from mdico_cube.benchmarks.study import StudyPlan, few_labels, run_study
from mdico_cube.benchmarks.study_table import study_table
from mdico_cube.benchmarks.variants import ABLATIONS, ablation, parse_variant
from mdico_cube.cli import app
from mdico_cube.cube.reader import CubeReader, open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import open_samples
from mdico_cube.recipe import ColearnSection, SampleSection

NAMES = ("sentinel1", "sentinel2")
SAMPLES = SampleSection(block=16, guard=1, per_class=60)
COLEARN = ColearnSection.model_validate(
    {
        "modalities": NAMES,
        "encoder": {"width": 8, "hidden": 8, "dense": 8},
        "train": {"epochs": 2, "batch": 32, "accelerator": "cpu", "loggers": ()},
    }
)


def test_series_are_the_cubes_pixels_and_folds_keep_apart(toy_cube: Path, tmp_path: Path) -> None:
    section = SAMPLES.model_copy(update={"unlabelled": 50})
    samples = extract_samples(toy_cube, tmp_path / "samples.zarr", NAMES, section)
    series, division = region_series(samples, ("sentinel2", "sentinel1"))
    store, reader = open_samples(samples), open_reader(toy_cube)
    rows, columns = store.column("row"), store.column("column")
    assert list(series.values) == ["sentinel2", "sentinel1"]
    for i in range(0, len(rows), 7):
        here = (slice(rows[i], rows[i] + 1), slice(columns[i], columns[i] + 1))
        values, valid = reader.read("sentinel2", *here)
        seen = valid[:, 0, 0]
        assert np.array_equal(series.valid["sentinel2"][i], seen)
        np.testing.assert_allclose(series.values["sentinel2"][i], np.where(seen[:, None], values[..., 0, 0], 0))
        if store.fold[i] != 4:
            assert series.target[i] == reader.labels(*here)[0, 0]
    assert set(store.fold[division.train]) == {1, 2}
    assert set(store.fold[division.test]) == {3}
    assert len(division.pool) == 50
    assert (series.target[division.pool] == -1).all(), "the pool's labels are not read"
    with pytest.raises(MdicoError, match="has no dem"):
        region_series(samples, ("dem",))


def test_windows_are_no_series(toy_cube: Path, tmp_path: Path) -> None:
    samples = extract_samples(toy_cube, tmp_path / "s.zarr", NAMES, SAMPLES.model_copy(update={"patch": 3}))
    with pytest.raises(MdicoError, match=r"windows of 3 pixels.*samples\.patch: 1"):
        region_series(samples)


def whole(count: int) -> Batch:
    number = torch.arange(count, dtype=torch.float32)
    return Batch(
        {"a": number.view(-1, 1, 1, 1, 1)}, {"a": torch.ones(count, 1, 1, 1).bool()}, number.long().view(-1, 1, 1)
    )


def test_an_epoch_holds_every_labelled_row_once_and_the_pool_in_turn() -> None:
    loader = SeriesLoader(whole(30), torch.arange(20), 8, True, torch.arange(20, 30), ratio=1.5)
    loader.generator.manual_seed(3)
    batches = [[int(v) for v in batch.images["a"].flatten()] for batch in loader]
    assert len(batches) == len(loader) == 3
    labelled = [v for batch in batches for v in batch if v < 20]
    extra = [v for batch in batches for v in batch if v >= 20]
    assert sorted(labelled) == list(range(20))
    assert [len(b) for b in batches] == [7 + 10, 7 + 10, 6 + 9]
    assert set(extra[:10]) == set(range(20, 30)), "every row of the pool comes before any comes twice"
    loader.generator.manual_seed(3)
    assert [[int(v) for v in batch.images["a"].flatten()] for batch in loader] == batches
    assert [[int(v) for v in batch.images["a"].flatten()] for batch in loader] != batches
    plain = SeriesLoader(whole(30), torch.arange(20), 8, shuffle=False)
    assert [int(v) for batch in plain for v in batch.images["a"].flatten()] == list(range(20))


def test_paired_tests_against_scipy_and_the_formula() -> None:
    first, second = [0.5, 0.6, 0.55, 0.7], [0.45, 0.61, 0.5, 0.6]
    found = paired(first, second, test_share=0.25)
    wanted = stats.ttest_rel(first, second)
    gaps = np.subtract(first, second)
    assert found.p == pytest.approx(wanted.pvalue)
    t = gaps.mean() / np.sqrt((1 / 4 + 0.25) * gaps.var(ddof=1))
    assert found.p_corrected == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert (found.mean, found.wins, found.count) == (pytest.approx(gaps.mean()), 3, 4)
    assert found.errors_away == pytest.approx(gaps.mean() / (gaps.std(ddof=1) / 2))
    assert paired([1.0, 1.0], [1.0, 1.0], 0.25).p == 1.0
    with pytest.raises(MdicoError, match="came 1 and 1"):
        paired([0.1], [0.2], 0.25)


def test_fewer_labels_are_some_of_the_more() -> None:
    target = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, -1, -1])
    rows = np.arange(9)
    kept = {count: few_labels(rows, target, count, seed=1) for count in (1, 2, 4)}
    assert {count: np.bincount(target[found]).tolist() for count, found in kept.items()} == {
        1: [1, 1, 1],
        2: [2, 2, 1],
        4: [4, 3, 1],
    }
    assert set(kept[1]) < set(kept[2]) < set(kept[4])
    assert few_labels(rows, target, None, seed=1) is rows


def test_variants_change_what_they_name() -> None:
    variant = parse_variant("mdico:contrastive=0:discriminate=shared")
    section = variant.section(COLEARN)
    assert (section.mdico.contrastive, section.mdico.discriminate) == (0.0, "shared")
    assert section.mdico.auxiliary == 1.0
    assert section.train == COLEARN.train
    assert variant.stem == "mdico--contrastive-0--discriminate-shared"
    assert parse_variant("comiss").section(COLEARN) == COLEARN
    for method in ABLATIONS:
        for text in ablation(method):
            parse_variant(text).section(COLEARN)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mdicco:main=0", "did you mean 'mdico'"),
        ("mdico:contrastive", "is no option"),
        ("mdico:contrast=0", "Options of mdico: discriminate"),
        ("mdico:contrastive=-1", "greater than or equal to 0"),
        ("independent:main=0", "independent has no options"),
    ],
)
def test_wrong_variants_get_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(MdicoError, match=sentence):
        parse_variant(text).section(COLEARN)


def test_only_methods_with_parts_are_ablated() -> None:
    with pytest.raises(MdicoError, match="no parts to switch off"):
        ablation("independent")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: lambda seed, rows: RandomForestClassifier(5, random_state=seed) for name in CLASSICAL}
    monkeypatch.setattr("mdico_cube.benchmarks.classical.CLASSICAL", small)


@pytest.mark.usefixtures("fast")
def test_a_study_scores_saves_and_goes_on(toy_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = StudyPlan(("independent", "mdico-plus", "mdico-plus:unlabelled=0"), seeds=2, unlabelled=40)
    table = run_study(toy_cube, SAMPLES, COLEARN, tmp_path / "out", plan)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*.json")]
    assert len(runs) == 2 * (2 + 3)
    drawn = [open_samples(tmp_path / "out" / f"seed{seed}" / "samples.zarr").column("row") for seed in (0, 1)]
    assert not np.array_equal(*drawn), "each seed draws its own blocks"
    values = table.scores("mdico-plus", "only sentinel1", "f1_macro")
    assert len(values) == 2
    assert values != table.scores("mdico-plus:unlabelled=0", "only sentinel1", "f1_macro"), "the pool teaches"
    gain = table.gain("mdico-plus", "only sentinel1", "f1_macro")
    assert gain is not None
    assert gain.mean == pytest.approx(
        np.mean(values) - np.mean(table.scores("independent", "only sentinel1", "f1_macro"))
    )
    assert table.test_share == pytest.approx(0.25 / 0.75), "blocks, not windows"
    text = (tmp_path / "out" / "study.md").read_text()
    assert text == study_table(table)
    for word in ("random-forest", "gradient-boosting", "Expected calibration error", "F1 by class", "p, corrected"):
        assert word in text
    with (tmp_path / "out" / "study.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 5 * 3 * 3

    monkeypatch.setattr("mdico_cube.benchmarks.study._one", None)
    assert run_study(toy_cube, SAMPLES, COLEARN, tmp_path / "out", plan, resume=True) == table
    with pytest.raises(MdicoError, match="Use --resume"):
        run_study(toy_cube, SAMPLES, COLEARN, tmp_path / "out", plan)
    other = COLEARN.model_copy(update={"train": COLEARN.train.model_copy(update={"epochs": 3})})
    with pytest.raises(MdicoError, match="other data or options"):
        run_study(toy_cube, SAMPLES, other, tmp_path / "out", plan, resume=True)
    monkeypatch.setattr(CubeReader, "identity", lambda self, modalities: "built anew")
    with pytest.raises(MdicoError, match="holds a study of other data or options"):
        run_study(toy_cube, SAMPLES, COLEARN, tmp_path / "out", plan, resume=True)


def test_without_a_cube_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="is no cube"):
        run_study(tmp_path / "cube.zarr", SAMPLES, COLEARN, tmp_path / "out", StudyPlan(("independent",), seeds=1))
    assert not (tmp_path / "out").exists()


def test_a_study_is_of_the_same_weights_each_time(
    toy_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdico_cube.benchmarks.study.CLASSICAL", {})
    plan = StudyPlan(("mdico-plus",), seeds=1, unlabelled=30)
    first, second = (run_study(toy_cube, SAMPLES, COLEARN, tmp_path / name, plan) for name in ("a", "b"))
    assert [run.rows for run in first.runs] == [run.rows for run in second.runs]


@pytest.mark.usefixtures("fast")
def test_the_command_line_studies_and_ablates(
    toy_cube: Path, tmp_path: Path, recipe_facts: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cube.zarr").symlink_to(toy_cube)
    facts = {**recipe_facts, "period": {"start": "2021-01-01", "end": "2021-04-30"}}
    (tmp_path / "toy.yml").write_text(json.dumps(facts))

    def door(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app([str(a) for a in arguments])
        return int(end.value.code or 0), *capfd.readouterr()

    short = [tmp_path / "toy.yml", "--seeds", 1, "--unlabelled", 0, "--epochs", 1, "--hidden", 4, "--dense", 4]
    code, out, err = door("--quiet", "ablate", *short, "--of", "fullco", "--out", tmp_path / "ablation")
    assert code == 0, err
    assert "| fullco:contrastive=0 | " in out
    assert "tempcnn (4 channels" in out
    code, _, err = door("study", *short, "--methods", "mdico:main", "--out", tmp_path / "study")
    assert code == 2
    assert "is no option" in err
