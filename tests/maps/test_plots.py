from __future__ import annotations

import numpy as np
import pytest
from matplotlib import _pylab_helpers

from mdico_cube.maps.charts import availability_png, class_f1_png, confusion_png, read_histories, training_png
from mdico_cube.maps.images import QuickLook, painted
from mdico_cube.maps.plots import OUTCOMES, Panel, outcome_panel, outcomes, panels_png, poster_png
from mdico_cube.maps.scores import Scores, score
from mdico_cube.maps.style import _round_length
from mdico_cube.spec import LabelClass

CLASSES = tuple(LabelClass(f"class {k}", k + 1, f"#{k}0{k}0{k}0") for k in range(5))
PANEL = Panel(np.zeros((40, 50, 3), np.float32), "title\nexplained")


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")


@pytest.fixture
def scores() -> Scores:
    rng = np.random.default_rng(0)
    maps = []
    for method in ("independent", "mdico", "fullco"):
        for modality in ("sentinel1", "sentinel2"):
            for seed in (0, 1):
                facts = {"method": method, "modality": modality, "sensor": modality, "seed": seed, "protocol": "honest"}
                maps.append(score(rng.integers(0, 50, (5, 6)), CLASSES, facts))
    return Scores(CLASSES, tuple(maps))


def test_outcomes_say_who_is_right():
    labels = np.array([0, 0, 0, 0, -1], np.int16)
    a, b = np.array([0, 1, 1, 0, 0], np.int16), np.array([0, 2, 0, 1, 1], np.int16)
    got = outcomes(a, b, labels)
    assert [OUTCOMES[k][0] for k in got[:4]] == ["both right", "both wrong", "only {b} right", "only {a} right"]
    assert got[4] == -1


def test_the_difference_panel_counts_held_out_pixels_only():
    outcome = np.array([[2, 2, 3, 0], [3, 3, 3, -1]], np.int16)
    held_out = np.array([[True] * 4, [False] * 4])
    panel = outcome_panel(outcome, held_out, ("independent", "MDiCo"), "Who is right")
    assert panel.title.endswith("held out: MDiCo alone 50.0%, independent alone 25.0%")


def test_every_picture_is_a_png_and_none_stays_open(scores, tmp_path):
    history = {"epoch": [0.0, 1.0], "train_loss": [2.0, 1.0], "val_loss": [2.0, 1.5], "val_f1_sentinel1": [0.1, 0.5]}
    look = QuickLook(PANEL.image, "Sentinel-2\ntrue colour", ("2021-01-01", "2021-02-01"), (0.5, 1.0))
    pictures = [
        panels_png([PANEL], 10.0, ([("wheat", "#112233")],)),
        panels_png([PANEL] * 3, None, ([("wheat", "#112233")], [("right", "#445566")])),
        poster_png(PANEL, [PANEL] * 2, [PANEL] * 2, scores, 10.0),
        confusion_png(scores, "sentinel1"),
        class_f1_png(scores),
        availability_png({"sentinel2": look}),
        training_png({("mdico", "seed-0"): history, ("independent", "seed-0"): history}, {"sentinel1": "Sentinel-1"}),
    ]
    assert all(is_png(picture) for picture in pictures)
    assert not _pylab_helpers.Gcf.get_all_fig_managers()


def test_many_classes_and_long_names_still_fit(scores):
    classes = tuple(LabelClass(f"a class with a rather long name {k}", k + 1, "#808080") for k in range(24))
    facts = {"method": "mdico", "modality": "s", "sensor": "S", "seed": 0, "protocol": "honest"}
    many = Scores(classes, (score(np.eye(24, 25, dtype=np.int64), classes, facts),))
    legend = [(item.name, item.color) for item in classes]
    assert is_png(confusion_png(many, "s"))
    assert is_png(class_f1_png(many))
    assert is_png(panels_png([PANEL], 10.0, (legend,)))


def test_painting_is_by_index_and_minus_one_is_pale():
    image = painted(np.array([[0, 1, -1]], np.int16), ["#ff0000", "#0000ff"])
    assert image[0].tolist()[:2] == [[1, 0, 0], [0, 0, 1]]
    assert image[0, 2].min() > 0.9


@pytest.mark.parametrize(("metres", "round_"), [(1433, 1000), (999, 500), (200, 200), (23, 20), (0.5, 1)])
def test_scale_bars_have_round_lengths(metres, round_):
    assert _round_length(metres) == round_


def test_histories_are_found_by_method_and_seed(tmp_path):
    folder = tmp_path / "models" / "mdico" / "seed-3"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,train_loss,val_loss\n0,2.5,\n1,2.0,1.5\n")
    history = read_histories(tmp_path)["mdico", "seed-3"]
    assert history["train_loss"] == [2.5, 2.0]
    assert np.isnan(history["val_loss"][0])
    assert read_histories(tmp_path / "none") == {}
