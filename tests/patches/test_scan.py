"""The index says what a naive loop over the cube says, whatever its chunks; a stale one is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cube import LEGEND, NAMES, STEPS, patchwork, small_cube

from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.patches import scan
from mdico_cube.patches.divide import make_split
from mdico_cube.patches.index import SampleIndex
from mdico_cube.patches.scan import make_index
from mdico_cube.patches.windows import grid_windows
from mdico_cube.recipe import SampleSection

SHAPE = (40, 52)


def indexed(cube: Path, folder: Path, **options: Any) -> SampleIndex:
    section = SampleSection.model_validate({"block": 10, "guard": 1, **options})
    make_split(cube, folder / "split.zarr", section)
    return make_index(cube, folder / "split.zarr", folder / "index.parquet", NAMES, section)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, columns = np.indices(SHAPE)
    parcel = (rows // 5 * 100 + columns // 7 + 1).astype(np.int32)
    parcel[::7] = 0
    return small_cube(tmp_path_factory.mktemp("cube") / "cube.zarr", patchwork(SHAPE), parcel)


@pytest.mark.parametrize(("patch", "stride"), [(1, None), (4, None), (5, 3)])
def test_every_column_is_what_a_loop_finds(cube: Path, tmp_path: Path, patch: int, stride: int | None) -> None:
    index = indexed(cube, tmp_path, patch=patch, stride=stride)
    reader = open_reader(cube)
    split = make_split(cube, tmp_path / "split.zarr", SampleSection(block=10, guard=1))
    whole = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    label, parcel, folds = reader.labels(*whole), reader.parcels(*whole), split.folds(reader, *whole)
    assert parcel is not None
    seen = {name: reader.read(name, *whole)[1] for name in NAMES}
    rows = {(row["y"], row["x"]): row for row in index.table().to_pylist()}
    expected = set()
    for y, x in zip(*grid_windows(SHAPE, patch, stride or patch, *whole), strict=True):
        centre = (y + patch // 2, x + patch // 2)
        if label[centre] < 0:
            continue
        expected.add((y, x))
        row, here = rows[(y, x)], (slice(y, y + patch), slice(x, x + patch))
        assert (row["label"], row["group"]) == (label[centre], parcel[centre])
        assert row["block"] == centre[0] // 10 * 6 + centre[1] // 10
        assert row["histogram"] == [(label[here] == k).sum() for k in range(3)]
        assert row["fold"] in (0, folds[centre])
        if patch == 1:
            assert row["fold"] == folds[centre]
        assert row["date"] is None
        for name in NAMES:
            observed = seen[name][:, *here]
            assert row[f"valid_{name}"] == pytest.approx(observed.mean(), abs=1e-6)
            if name == "dem":
                continue
            steps = [day for day, step in zip(STEPS, observed, strict=True) if step.any()]
            first, last = (row[f"{end}_{name}"] for end in ("first", "last"))
            assert (str(first), str(last)) == ((steps[0], steps[-1]) if steps else ("None", "None"))
    assert set(rows) == expected
    assert any(row["fold"] for row in rows.values())
    assert any(row["first_sentinel2"] is None for row in rows.values()), "one corner was never seen"


@pytest.mark.parametrize("strategy", ["grid", "random"])
def test_chunks_and_shards_do_not_matter(tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for number, (chunk, shard) in enumerate(((8, 16), (4, 32), (64, 64))):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = small_cube(folder / "cube.zarr", patchwork(SHAPE), None, chunk, shard)
        monkeypatch.setattr(scan, "_BYTES", 1 << (6 + 8 * number))
        index = indexed(made, folder, patch=3, strategy=strategy, candidates=400)
        assert index.row_groups == (12, 4, 1)[number], "a row group per shard"
        tables.append(index.table().sort_by([("y", "ascending"), ("x", "ascending")]).replace_schema_metadata(None))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert tables[0].num_rows > 100


def test_a_current_index_stands_and_a_stale_one_is_made_again(tmp_path: Path) -> None:
    cube = small_cube(tmp_path / "cube.zarr", patchwork(SHAPE))
    first = indexed(cube, tmp_path)
    stamp = first.path.stat().st_mtime_ns
    indexed(cube, tmp_path)
    assert first.path.stat().st_mtime_ns == stamp
    assert indexed(cube, tmp_path, patch=2).facts.side == 2
    write_labels(cube, patchwork(SHAPE, seed=1), None, LEGEND, {})
    again = indexed(cube, tmp_path, patch=2)
    assert again.table()["label"].to_pylist() == [
        patchwork(SHAPE, seed=1)[y + 1, x + 1] for y, x in zip(*_positions(again), strict=True)
    ]
    Ledger(cube, "sentinel1", "r+").record(0, 0, Entry(DONE, digest="other"))
    assert indexed(cube, tmp_path, patch=2).facts.pixels != again.facts.pixels


def _positions(index: SampleIndex) -> tuple[list[int], list[int]]:
    table = index.table(["y", "x"])
    return table["y"].to_pylist(), table["x"].to_pylist()


@pytest.mark.parametrize("change", [{"block": 13}, {"guard": 3}, {"seed": 5}, {"folds": 4, "test_fold": 2}])
def test_another_split_needs_no_pixels(
    cube: Path, tmp_path: Path, change: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(cube, tmp_path, patch=3)
    (tmp_path / "new").mkdir()
    fresh = indexed(cube, tmp_path / "new", patch=3, **change).table()
    monkeypatch.setattr(scan, "observed_steps", None)
    assert indexed(cube, tmp_path, patch=3, **change).table().equals(fresh)


def test_what_cannot_be_indexed(cube: Path, tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="a window of 41 pixels does not fit into 40 pixels"):
        indexed(cube, tmp_path, patch=41)
    bare = patchwork(SHAPE)
    bare[2::5, 2::5] = 255
    bare[-3, :], bare[:, -3] = 255, 255
    with pytest.raises(MdicoError, match="no window of 5 pixels has a label at its centre"):
        indexed(small_cube(tmp_path / "bare.zarr", bare), tmp_path, patch=5)
    broken = small_cube(tmp_path / "broken.zarr", patchwork(SHAPE))
    Ledger(broken, "sentinel1", "r+").record(0, 0, Entry(FAILED))
    with pytest.raises(MdicoError, match="lacks 1 shard of sentinel1"):
        indexed(broken, tmp_path)
