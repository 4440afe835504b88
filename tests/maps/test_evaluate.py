from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from sklearn.metrics import confusion_matrix, f1_score

from mdico_cube.cube.ledger import Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.evaluate import evaluate, read_scores
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.write import map_path, open_map


def test_scores_equal_scikit_learn_on_the_flattened_held_out_pixels(mapped):
    scores = evaluate(mapped.out)
    assert len(scores.maps) == 8
    labels = mapped.reader.labels(*mapped.everything)
    chosen = (mapped.folds == 3) & (labels >= 0)
    values = [item.value for item in mapped.classes]
    truth = np.array(values)[labels[chosen]]
    for item in scores.maps:
        path = map_path(mapped.out, item.method, item.modality, item.seed)
        predicted = open_map(path)["class"].values[chosen]
        assert item.f1_macro == pytest.approx(
            f1_score(truth, predicted, labels=values, average="macro", zero_division=0)
        )
        expected = confusion_matrix(truth, predicted, labels=[*values, 255])[:3]
        assert np.array_equal(item.confusion, expected)
        assert item.pixels == chosen.sum()
    optical = next(item for item in scores.maps if item.modality == "sentinel2")
    assert optical.unpredicted == pytest.approx(np.mean(predicted == 255))
    assert optical.unpredicted > 0


def test_scores_are_written_whole_and_read_back(mapped):
    scores = evaluate(mapped.out)
    assert read_scores(mapped.out) == scores
    assert {"summary", "gains", "maps"} <= set(json.loads((mapped.out / "scores.json").read_text()))
    assert not [path for path in mapped.out.iterdir() if path.name.startswith(".")]


def test_existing_scores_are_refused_or_replaced(mapped):
    evaluate(mapped.out)
    with pytest.raises(MdicoError, match=r"exist already.*--overwrite"):
        evaluate(mapped.out)
    evaluate(mapped.out, overwrite=True)


def test_no_map_is_one_sentence(run):
    with pytest.raises(MdicoError, match=r"hold no map.*mdico predict"):
        evaluate(run.out)


def test_no_held_out_label_is_one_sentence(mapped):
    mapped.folds[mapped.folds == 3] = 1
    with pytest.raises(MdicoError, match="no held-out block has a labelled pixel"):
        evaluate(mapped.out)
    assert not (mapped.out / "scores.json").exists()


def test_a_map_of_another_cube_is_refused(mapped):
    path = map_path(mapped.out, "mdico", "sentinel1", 0)
    zarr.open_group(path, mode="r+").attrs["cube_digest"] = "0"
    with pytest.raises(MdicoError, match="made from another cube"):
        evaluate(mapped.out)


def test_an_unfinished_map_is_refused(mapped):
    Ledger(map_path(mapped.out, "mdico", "sentinel1", 0), LAYER, "r+").forget(1, 1)
    with pytest.raises(MdicoError, match="lacks 1 shard:"):
        evaluate(mapped.out)


def test_missing_and_damaged_scores_are_one_sentence(run):
    with pytest.raises(MdicoError, match="mdico evaluate first"):
        read_scores(run.out)
    (run.out / "scores.json").write_text("{")
    with pytest.raises(MdicoError, match="damaged"):
        read_scores(run.out)
