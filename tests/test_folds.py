"""Every fold in one go: each block is tested once, from one cube, and what stands is kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import mdico_cube as mdico
from mdico_cube.journey import folds
from mdico_cube.patches.splits import TEST


def test_every_fold_is_held_out_once_and_gone_on_with(
    recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cut off in its second fold goes on there; the mean is over all folds and seeds."""
    recipe_facts["samples"] |= {"folds": 2}
    recipe_facts["colearn"] |= {"methods": ["independent", "mdico"], "train": {"epochs": 1, "accelerator": "cpu"}}
    recipe = mdico.parse_recipe(recipe_facts)
    seen: list[int] = []
    real = folds.train

    def train(one: Any, overwrite: bool, resume: bool) -> Any:
        seen.append(one.samples.test_fold)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(one, overwrite, resume)

    monkeypatch.setattr(folds, "train", train)
    with pytest.raises(KeyboardInterrupt):
        mdico.run_folds(recipe)
    with pytest.raises(mdico.MdicoError, match="exists already"):
        mdico.run_folds(recipe)
    kept = recipe.output / "folds" / "fold-0" / "bundles"
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    scores = mdico.run_folds(recipe, resume=True)
    assert seen == [0, 1, 0, 1]
    assert before
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")} == before
    stores = [mdico.open_samples(recipe.output / "folds" / f"fold-{k}" / "samples.zarr") for k in (0, 1)]
    blocks = [set(store.column("block")[store.fold == TEST].tolist()) for store in stores]
    assert all(blocks)
    assert not blocks[0] & blocks[1]
    for row in scores.together.summary:
        each = [
            m.f1_macro
            for s in scores.folds.values()
            for m in s.maps
            if m.modality == row.modality and m.method == row.method
        ]
        assert len(each) == 2
        assert row.f1_macro.mean == pytest.approx(np.mean(each))
        assert row.f1_macro.sd == pytest.approx(np.std(each, ddof=1))
    for gain in scores.together.gains:
        own, base = (
            [
                next(m.f1_macro for m in s.maps if (m.modality, m.method) == (gain.modality, method))
                for s in scores.folds.values()
            ]
            for method in (gain.method, "independent")
        )
        assert gain.f1_macro.mean == pytest.approx(np.mean(np.subtract(own, base)))
    written = json.loads((recipe.output / "folds.json").read_text(encoding="utf-8"))
    assert set(written["folds"]) == {"0", "1"}
    assert written["summary"] == json.loads(json.dumps(scores.to_dict()))["summary"]


def test_without_folds_there_is_nothing_to_run(recipe_facts: dict[str, Any]) -> None:
    recipe = mdico.parse_recipe(recipe_facts)
    with pytest.raises(mdico.MdicoError, match=r"samples\.folds"):
        mdico.run_folds(recipe)
    assert not recipe.output.exists()  # said before anything is built
