"""`mdico samples index`, from the command line and on a cluster."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import mdico_cube as mdico
from mdico_cube.cli import app
from mdico_cube.errors import MdicoError


def test_the_index_tells_what_there_is(recipe_facts: dict[str, Any], tmp_path: Any) -> None:
    file = tmp_path / "toy.yml"
    file.write_text(yaml.safe_dump(recipe_facts))
    mdico.build(mdico.load_recipe(file))
    told = json.loads(CliRunner().invoke(app, ["samples", "index", str(file), "--json"]).stdout)
    reader = mdico.open_reader(tmp_path / "out/cube.zarr")
    label = reader.labels(slice(0, 64), slice(0, 96))
    assert told["windows"] == (label >= 0).sum()
    index = mdico.open_index(tmp_path / "out/samples-index.parquet").table().to_pandas()
    for number, name in enumerate(("odd", "even")):
        mine = index[index.label == number].fold
        wanted = {fold: int((mine == k).sum()) for k, fold in enumerate(("unused", "train", "validation", "test"))}
        assert told["classes"][name] == wanted
        assert min(wanted.values()) > 0
    seen = reader.read("sentinel2", slice(0, 64), slice(0, 96))[1]
    assert told["observed"]["sentinel2"] == pytest.approx(seen[:, label >= 0].mean(), abs=1e-6)
    shown = CliRunner().invoke(app, ["samples", "index", str(file)]).stdout
    assert "samples-index.parquet" in shown
    assert f"{told['windows']:,} windows" in shown

    (tmp_path / "out/samples-index.parquet").unlink()
    recipe_facts["cluster"] = {"kind": "local", "workers": 2}
    again = mdico.index_samples(mdico.parse_recipe(recipe_facts)).table().to_pandas()
    assert index.drop(columns="histogram").equals(again.drop(columns="histogram"))
    assert np.array_equal(np.stack(index.histogram), np.stack(again.histogram))


def test_an_index_without_a_cube(recipe_facts: dict[str, Any], tmp_path: Any) -> None:
    file = tmp_path / "toy.yml"
    file.write_text(yaml.safe_dump(recipe_facts))
    done = CliRunner().invoke(app, ["samples", "index", str(file)])
    assert done.exit_code == 2
    assert "Build one with `mdico build`" in done.output


def test_classes_that_changed_after_the_build_are_named(recipe_facts: dict[str, Any]) -> None:
    recipe = mdico.parse_recipe(recipe_facts)
    mdico.build(recipe)
    odd, even = recipe_facts["labels"]["classes"]
    for classes, came in (([odd, {**even, "name": "pair"}], "odd, pair"), ([{**odd, "source": 3}, even], "odd, even")):
        recipe_facts["labels"]["classes"] = classes
        other = mdico.parse_recipe(recipe_facts)
        sentence = rf"holds labels of odd, even; .* changed since \({came}\). Put them .* `mdico build --resume`"
        for stage in (mdico.sample, mdico.index_samples):
            with pytest.raises(MdicoError, match=sentence):
                stage(other)
    recipe_facts["labels"]["classes"] = [{**odd, "color": "#123456"}, even]
    mdico.index_samples(mdico.parse_recipe(recipe_facts))
    recipe_facts["labels"]["classes"] = [odd, {**even, "name": "pair"}]
    renamed = mdico.parse_recipe(recipe_facts)
    mdico.build(renamed, resume=True)
    mdico.sample(renamed)
