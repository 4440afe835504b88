from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from mdico_cube.maps.scores import MapScores, Scores, Spread, score, scores_table, signed
from mdico_cube.spec import LabelClass

CLASSES = tuple(LabelClass(name, k + 1, "#000000") for k, name in enumerate(("wheat", "maize", "forest", "water")))
FACTS = {"method": "mdico", "modality": "sentinel1", "sensor": "Sentinel-1", "seed": 0, "protocol": "honest"}


def confusion_of(label, predicted):
    matrix = np.zeros((4, 5), np.int64)
    np.add.at(matrix, (label, predicted), 1)
    return matrix


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            arrays(np.int64, n, elements=st.integers(0, 3)), arrays(np.int64, n, elements=st.integers(0, 4))
        )
    )
)
def test_scores_from_the_matrix_equal_scikit_learn_on_the_pixels(pair):
    label, predicted = pair
    got = score(confusion_of(label, predicted), CLASSES, FACTS)
    present = np.unique(label)
    assert got.f1_macro == pytest.approx(f1_score(label, predicted, labels=present, average="macro", zero_division=0))
    assert got.f1_weighted == pytest.approx(
        f1_score(label, predicted, labels=present, average="weighted", zero_division=0)
    )
    assert got.accuracy == pytest.approx(accuracy_score(label, predicted))
    recalls = [float((predicted[label == k] == k).mean()) for k in present]
    assert got.recall_macro == pytest.approx(np.mean(recalls))
    if len({*label, *predicted}) > 1:
        assert got.kappa == pytest.approx(cohen_kappa_score(label, predicted), abs=1e-9)
    assert got.unpredicted == pytest.approx((predicted == 4).mean())
    assert [c.support for c in got.classes] == [int((label == k).sum()) for k in range(4)]
    assert got.pixels == len(label)


def test_figures_worked_out_by_hand():
    matrix = np.array([[3, 1, 0, 0, 0], [1, 2, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 2]])
    got = score(matrix, CLASSES, FACTS)
    wheat, maize, forest, water = got.classes
    assert (wheat.precision, wheat.recall, wheat.f1) == (0.75, 0.75, 0.75)
    assert (maize.precision, maize.recall) == (pytest.approx(2 / 3), 0.5)
    assert (forest.support, water.f1) == (0, 0.0)
    assert got.f1_macro == pytest.approx((0.75 + 4 / 7 + 0) / 3)  # forest does not occur
    assert got.accuracy == pytest.approx(5 / 10)
    assert got.unpredicted == pytest.approx(3 / 10)
    assert got.recall_macro == pytest.approx((3 / 4 + 2 / 4 + 0 / 2) / 3)


def made(method, modality, seed, right, protocol="honest") -> MapScores:
    matrix = np.array([[right, 100 - right, 0, 0, 0], [100 - right, right, 0, 0, 0], [0] * 5, [0] * 5])
    facts = {"method": method, "modality": modality, "sensor": modality.title(), "seed": seed, "protocol": protocol}
    return score(matrix, CLASSES, facts)


@pytest.fixture
def scores() -> Scores:
    maps = [made("mdico", "sentinel1", s, r) for s, r in enumerate((80, 70, 60))]
    maps += [made("independent", "sentinel1", s, r) for s, r in enumerate((70, 65, 65))]
    maps += [made("mdico", "sentinel2", 0, 85), made("independent", "sentinel2", 0, 90)]
    return Scores(CLASSES, tuple(maps))


def test_the_summary_is_mean_and_standard_deviation_over_seeds(scores):
    independent, mdico, *rest = scores.summary
    assert (independent.method, mdico.method) == ("independent", "mdico")
    assert mdico.f1_macro == Spread(pytest.approx(0.7), pytest.approx(0.1), 3)
    assert rest[0].f1_macro.sd is None


def test_gains_pair_the_seeds(scores):
    first, second = scores.gains
    assert (first.modality, first.method) == ("sentinel1", "mdico")
    assert first.f1_macro.mean == pytest.approx(np.mean([0.10, 0.05, -0.05]))
    assert first.f1_macro.sd == pytest.approx(np.std([0.10, 0.05, -0.05], ddof=1))
    assert first.wins == 2
    assert second.f1_macro.mean == pytest.approx(-0.05)
    assert signed(second.f1_macro) == "-0.050"


def test_a_seed_only_one_method_has_does_not_count(scores):
    alone = Scores(CLASSES, (made("mdico", "s", 0, 90), made("mdico", "s", 1, 50), made("independent", "s", 1, 40)))
    assert alone.gains[0].f1_macro.seeds == 1
    assert alone.gains[0].f1_macro.mean == pytest.approx(0.1)
    assert Scores(CLASSES, (made("mdico", "s", 0, 90), made("independent", "s", 1, 40))).gains == ()


def test_other_protocols_are_never_mixed():
    both = Scores(CLASSES, (made("mdico", "s", 0, 90, "paper"), made("independent", "s", 0, 40)))
    assert both.gains == ()


def test_classes_without_a_held_out_label_are_named(scores):
    assert scores.absent == ("forest", "water")
    assert str(scores_table(scores).caption) == "No held-out label, so not scored: forest, water."


def test_scores_survive_json(scores):
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


def test_the_table_fits_a_terminal_and_marks_the_paper_protocol(scores):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    paper = Scores(CLASSES, (*scores.maps, made("mdico", "sentinel3", 0, 90, "paper")))
    console.print(scores_table(paper))
    console.file.close()
    text = console.export_text()
    assert "0.700 ± 0.100" in text
    assert "+0.033 ± 0.076" in text
    assert "-0.050" in text
    assert "mdico *" in text
    assert "paper protocol" in text
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
