"""A build, its resume and what is read from it are the same wherever the cube lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3_server import KINDS

import mdico_cube as mdico
from mdico_cube.cube import build as build_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.reader import open_cube, open_reader
from mdico_cube.cube.target import Location, cube_of, is_icechunk
from mdico_cube.errors import MdicoError
from mdico_cube.maps.export import export_step
from mdico_cube.patches.samples import open_samples
from mdico_cube.recipe import ClusterSection, Recipe, parse_recipe

Place = Callable[[str], Location]
WHOLE = slice(0, 64), slice(0, 96)


@pytest.fixture
def recipe_at(recipe_facts: dict[str, Any], place: Place, tmp_path: Path) -> Callable[[str], Recipe]:
    """Kind of place -> the toy recipe with its cube there."""

    def make(kind: str) -> Recipe:
        store = {**recipe_facts["store"], "target": str(place(kind)), "wave": 7}
        return parse_recipe({**recipe_facts, "output": str(tmp_path / "run"), "store": store})

    return make


def told(entry: Entry) -> Entry:
    """An entry without what another run has otherwise: the time it took."""
    return Entry(**{name: getattr(entry, name) for name in Entry.__slots__ if name != "seconds"})


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_build_is_the_same_everywhere(
    kind: str, standing: Path, recipe_at: Callable[[str], Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, there = standing, recipe_at(kind)
    run, count, finished = build_module.run_job, [0], list[object]()

    def stopping(*args: Any) -> object:
        count[0] += 1
        if count[0] == 10:
            raise KeyboardInterrupt
        finished.append(run(*args))
        return finished[-1]

    monkeypatch.setattr(build_module, "run_job", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_cube(there)
    where = cube_of(there.output)
    assert isinstance(where, str)
    assert is_icechunk(where) == ("icechunk" in kind)
    stands = sum(int((Ledger(where, name).states() == DONE).sum()) for name in open_reader(where).modalities)
    assert stands == len(finished), "finished shards are kept, also one at work beside the one that was stopped"
    assert len(finished) >= 9
    monkeypatch.setattr(build_module, "run_job", lambda *a: (count.__setitem__(0, count[0] + 1), run(*a))[1])
    assert build_cube(there, resume=True) == where
    assert count[0] == 10 + 9, "no finished shard is built again"
    first, second = open_reader(local), open_reader(where)
    assert first.identity(tuple(first.modalities)) == second.identity(tuple(second.modalities))
    for name in first.modalities:
        np.testing.assert_array_equal(first.stored(name, *WHOLE), second.stored(name, *WHOLE))
        mine, theirs = Ledger(local, name).entries(), Ledger(where, name).entries()
        assert {at: told(entry) for at, entry in mine.items()} == {at: told(entry) for at, entry in theirs.items()}
    assert [(one.modality, one.done) for one in inspect_cube(where)] == [
        (one.modality, one.done) for one in inspect_cube(local)
    ]
    np.testing.assert_array_equal(
        open_cube(local)["sentinel2/reflectance"].values, open_cube(where)["sentinel2/reflectance"].values
    )
    with pytest.raises(MdicoError, match="exists already"):
        build_cube(there)


@pytest.mark.slow
def test_worker_processes_share_a_commit(standing: Path, recipe_at: Callable[[str], Recipe]) -> None:
    cluster = ClusterSection(kind="local", workers=2)
    local, where = standing, build_cube(recipe_at("icechunk on s3"), cluster=cluster)
    for name in open_reader(local).modalities:
        mine, theirs = Ledger(local, name), Ledger(where, name)
        assert (theirs.states() == DONE).all()
        np.testing.assert_array_equal(mine.digests(), theirs.digests())
        np.testing.assert_array_equal(open_reader(local).stored(name, *WHOLE), open_reader(where).stored(name, *WHOLE))


def test_samples_are_the_same_everywhere(recipe: Recipe, recipe_at: Callable[[str], Recipe]) -> None:
    stores = []
    for one in (recipe, recipe_at("icechunk on s3")):
        mdico.build(one)
        stores.append(open_samples(mdico.sample(one)))
    first, second = stores
    assert (first.inputs, first.legend) == (second.inputs, second.legend)
    for name in ("sentinel1", "sentinel2", "target", "fold"):
        np.testing.assert_array_equal(np.asarray(first.array(name)[:]), np.asarray(second.array(name)[:]))


def test_no_secret_and_no_place_is_written_into_a_cube(
    recipe_at: Callable[[str], Recipe], s3_environment: dict[str, str]
) -> None:
    where = build_cube(recipe_at("s3"))
    reader = open_reader(where)
    kept = json.dumps(reader.attrs)
    for secret in (s3_environment["AWS_SECRET_ACCESS_KEY"], s3_environment["AWS_ENDPOINT_URL"], "s3://"):
        assert secret not in kept
    note = (recipe_at("s3").output / "cube.json").read_text()
    assert json.loads(note)["cube"].startswith("s3://")
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in note


def test_an_icechunk_repository_is_the_default_place_of_its_kind(recipe_facts: dict[str, Any]) -> None:
    recipe = parse_recipe({**recipe_facts, "store": {**recipe_facts["store"], "kind": "icechunk"}})
    where = build_cube(recipe)
    assert where == f"icechunk+file://{recipe.output}/cube.icechunk"
    assert cube_of(recipe.output) == where
    assert export_step(where, "sentinel2", recipe.output / "february.tif", "2021-02").stat().st_size > 1000


@pytest.mark.parametrize("target", ["s3://key:secret@bucket/cube.zarr", "s3://bucket/cube.zarr?X-Amz-Signature=abc"])
def test_a_recipe_carries_no_secret(recipe_facts: dict[str, Any], target: str) -> None:
    with pytest.raises(MdicoError, match="no user name") as fault:
        parse_recipe({**recipe_facts, "store": {"target": target}})
    assert "secret" not in str(fault.value)
    assert "abc" not in str(fault.value)
