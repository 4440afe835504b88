"""The draw: filters, balance, caps, the same windows for any chunks and workers, and no leak ever."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pytest
from array_labels import ArrayLabels
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cube import LEGEND, NAMES, patchwork, small_cube

from mdico_cube.errors import MdicoError
from mdico_cube.patches.draw import choose_windows, draw_windows
from mdico_cube.patches.index import IndexFacts, SampleIndex, index_schema, write_index
from mdico_cube.patches.leaks import check_windows, touching
from mdico_cube.patches.splits import STRICTER, TEST, TRAIN, VALIDATION
from mdico_cube.patches.windows import Windows, grid_windows, window_folds
from mdico_cube.recipe import SampleSection

SHAPE = (60, 72)
DAY = datetime.date(2021, 5, 1)


def table_of(facts: IndexFacts, **columns: Any) -> pa.Table:
    rows = len(columns["y"])
    given = {
        "label": [0] * rows, "block": [0] * rows, "group": [0] * rows, "fold": [1] * rows, "date": [None] * rows,
        "histogram": [[1] + [0] * (len(facts.legend) - 1)] * rows, "valid_sentinel1": [1.0] * rows,
        "first_sentinel1": [DAY] * rows, "last_sentinel1": [DAY] * rows, **columns,
    }  # fmt: skip
    return pa.table({name: list(given[name]) for name in index_schema(facts).names}, schema=index_schema(facts))


def index_of(path: Path, side: int = 1, parts: int = 3, classes: int = 3, **columns: Any) -> SampleIndex:
    """An index with these columns, cut into some row groups."""
    facts = IndexFacts(side, {"sentinel1": True}, LEGEND[:classes], (999, 999), "p", "s")
    rows = len(columns["y"])
    cuts = np.array_split(np.arange(rows), parts)
    return write_index(
        path / "i.parquet",
        facts,
        [
            table_of(facts, **{name: np.asarray(values, dtype=object)[cut] for name, values in columns.items()})
            for cut in cuts
        ],
    )


def classes_of(windows: Windows, fold: int) -> list[int]:
    return np.bincount(windows.label[windows.fold == fold], minlength=3).tolist()  # type: ignore[no-any-return]


@pytest.fixture
def uneven(tmp_path: Path) -> SampleIndex:
    """Training candidates of three classes: 600, 300 and 30; half as many to test, far away."""
    label = np.repeat([0, 1, 2, 0, 1, 2], [600, 300, 30, 300, 150, 15])
    fold = np.repeat([TRAIN, TEST], [930, 465])
    y = np.arange(label.size) + 500 * (fold == TEST)
    return index_of(tmp_path, y=y, x=[0] * label.size, label=label, fold=fold)


@pytest.mark.parametrize(
    ("options", "train", "test"),
    [
        ({"per_class": 50}, [50, 50, 30], [25, 25, 15]),
        ({"per_class": 1000}, [600, 300, 30], [300, 150, 15]),
        ({"per_class": 50, "balance": "balanced"}, [30, 30, 30], [15, 15, 15]),
        ({"per_class": 20, "balance": "balanced"}, [20, 20, 20], [10, 10, 10]),
        ({"count": 93, "balance": "stratified"}, [60, 30, 3], [30, 15, 1]),
        ({"count": 10, "balance": "stratified"}, [6, 3, 1], [3, 2, 1]),
    ],
)
def test_windows_per_class(uneven: SampleIndex, options: dict[str, Any], train: list[int], test: list[int]) -> None:
    section = SampleSection.model_validate({"validation": 0, "test": 1 / 3, **options})
    windows = draw_windows(uneven, LEGEND, section)
    assert classes_of(windows, TRAIN) == train
    assert classes_of(windows, TEST) == test
    assert classes_of(windows, VALIDATION) == [0, 0, 0]
    again = draw_windows(uneven, LEGEND, section)
    assert (windows.y == again.y).all()
    if options == {"per_class": 50}:
        other = draw_windows(uneven, LEGEND, section.model_copy(update={"seed": 1}))
        assert (windows.y != other.y).any()


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_at_most_so_many_of_one_parcel(tmp_path: Path, parts: int) -> None:
    """However the index is cut, the same windows: a naive pass in order of the keys is the oracle."""
    generator = np.random.default_rng(0)
    group, label = generator.integers(0, 9, 300), generator.integers(0, 3, 300)
    index = index_of(tmp_path, parts=parts, y=generator.permutation(300), x=[3] * 300, group=group, label=label)
    section = SampleSection(per_class=25, per_group=2, validation=0)
    windows = draw_windows(index, LEGEND, section)
    for name in range(3):
        taken = windows.group[windows.label == name]  # type: ignore[index]
        counts = np.bincount(taken)
        assert (counts[1:] == 2).all(), "each of eight parcels gives its two"
        assert counts[0] == 25 - 16 if (label[group == 0] == name).sum() > 9 else True
        assert len(taken) <= 25
    whole = draw_windows(index_of(tmp_path, parts=1, y=index.table()["y"].to_pylist(), x=[3] * 300,
                                  group=index.table()["group"].to_pylist(), label=index.table()["label"].to_pylist()),
                         LEGEND, section)  # fmt: skip
    assert (whole.y == windows.y).all()


def test_balanced_classes_stay_equal_under_a_cap_per_parcel(tmp_path: Path) -> None:
    label, group = np.repeat([0, 1, 2], [90, 60, 30]), np.r_[np.repeat(range(1, 91), 1), [91] * 60, np.arange(92, 122)]
    index = index_of(tmp_path, y=np.arange(180), x=[0] * 180, label=label, group=group)
    section = SampleSection(balance="balanced", per_group=4, validation=0)
    assert classes_of(draw_windows(index, LEGEND, section), TRAIN) == [4, 4, 4], "the second class lies in one parcel"


FILTERS: list[tuple[dict[str, Any], dict[str, Any], list[int]]] = [
    ({"valid_sentinel1": [0.0, 0.2, 0.5, 1.0]}, {"min_valid": 0.5}, [2, 3]),
    ({"valid_sentinel1": [0.0, 0.2, 0.5, 1.0]}, {"min_valid": {"sentinel1": 0.6}}, [3]),
    ({"valid_sentinel1": [0.0, 0.2, 0.5, 1.0]}, {"min_valid": {}}, [1, 2, 3]),
    ({"histogram": [[4, 0], [3, 1], [2, 2], [1, 3]]}, {"min_purity": 0.75}, [0, 1]),
    ({"date": [None, DAY, DAY.replace(year=2020), DAY.replace(month=6)]}, {"dates": ("2021-05-01", "2021-05-31")}, [1]),
    ({"first_sentinel1": [None, DAY, DAY.replace(month=6), DAY], "last_sentinel1": [None, DAY, DAY.replace(month=9),
      DAY.replace(month=9)]}, {"observed": ("2021-05-15", "2021-08-01")}, [3]),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "options", "kept"), FILTERS)
def test_filters(tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], kept: list[int]) -> None:
    """Two classes; the second is always there, so that only the first is judged."""
    more = {name: [*values, values[kept[0]]] for name, values in columns.items()}
    if "histogram" in more:
        more["histogram"][-1] = [0, 4]
    index = index_of(tmp_path, classes=2, y=range(5), x=[0] * 5, label=[0, 0, 0, 0, 1], **{
        "histogram": [[1, 0]] * 4 + [[0, 1]], **more})  # fmt: skip
    windows = draw_windows(index, LEGEND[:2], SampleSection.model_validate(options))
    assert windows.y[windows.label == 0].tolist() == kept


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": [0, 0, 0]}, "no window has it at its centre"),
        ({"label": [0, 0, 1], "fold": [1, 3, 3]}, "none of its 1 windows lies in a training block: use smaller blocks"),
        ({"label": [0, 1, 1], "valid_sentinel1": [1, 0, 0]}, "none of its 2 windows .* lower samples.min_valid"),
    ],
)
def test_a_class_without_training_windows_is_named(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    index = index_of(tmp_path, classes=2, y=[0, 50, 90], x=[0] * 3, **columns)
    with pytest.raises(MdicoError, match=f"class 'maize' has no training window, {sentence}"):
        draw_windows(index, LEGEND[:2], SampleSection())


def test_neither_chunks_nor_workers_change_the_draw(tmp_path: Path) -> None:
    drawn = []
    for number, (chunk, shard, scheduler) in enumerate(((8, 16, "threads"), (16, 64, "sync"), (4, 32, "cluster"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        cube = small_cube(folder / "cube.zarr", patchwork(SHAPE), None, chunk, shard)
        section = SampleSection(patch=3, block=12, guard=1, per_class=20, stride=2)
        with two_workers() if scheduler == "cluster" else dask.config.set(scheduler=scheduler):
            drawn.append(choose_windows(cube, folder, NAMES, section).windows)
    assert len(drawn[0]) > 30
    for other in drawn[1:]:
        for name in ("y", "x", "fold", "label", "group"):
            assert (getattr(drawn[0], name) == getattr(other, name)).all()


@contextmanager
def two_workers() -> Iterator[None]:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        yield


def brute_gap(windows: Windows, loose: int, strict: int) -> float:
    """Fewest pixels from a window of one fold to one of stricter folds, counted from edge to edge."""
    a, b = (np.stack([windows.y[f], windows.x[f]], 1) for f in (windows.fold == loose, windows.fold == strict))
    if not len(a) or not len(b):
        return np.inf
    return float(np.abs(a[:, None] - b[None]).max(axis=2).min()) - (windows.side - 1)


@st.composite
def drawn_worlds(draw):  # type: ignore[no-untyped-def]
    shape = draw(st.integers(30, 60)), draw(st.integers(30, 60))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    label = patchwork(shape, draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.2, 0.6]))).astype(np.int16)
    label[label == 255] = -1
    rows, columns = np.indices(shape)
    parcel = (rows // 5 * 100 + columns // 7 + 1).astype(np.int32)
    parcel[generator.random(shape) < 0.1] = 0
    section = SampleSection(
        patch=draw(st.integers(1, 7)), stride=draw(st.integers(1, 4)), block=draw(st.integers(6, 14)),
        guard=draw(st.integers(0, 5)), per_class=draw(st.sampled_from([3, 500])), seed=draw(st.integers(0, 9)),
        folds=draw(st.sampled_from([None, 3])),
    )  # fmt: skip
    return ArrayLabels(label, parcel if draw(st.booleans()) else None), section


@settings(max_examples=40)
@given(drawn_worlds())
def test_no_draw_ever_leaks(tmp_path_factory: pytest.TempPathFactory, world) -> None:  # type: ignore[no-untyped-def]
    labels, section = world
    split, side = labels.split(section), section.patch
    whole = slice(0, labels.shape[0]), slice(0, labels.shape[1])
    raw, _, _ = split.around(labels, *whole, 0)
    folds = split.folds(labels, *whole)
    y, x = grid_windows(labels.shape, side, section.step, *whole)
    centre = labels.label[y + side // 2, x + side // 2]
    y, x, centre = y[centre >= 0], x[centre >= 0], centre[centre >= 0]
    owner = np.zeros_like(y) if labels.parcel is None else labels.parcel[y + side // 2, x + side // 2]
    fold = window_folds(raw, y, x, side, section.guard)
    if set(centre[fold == TRAIN]) != {0, 1, 2}:
        return
    index = index_of(
        tmp_path_factory.mktemp("i"), side, y=y, x=x, label=centre, fold=fold, group=owner,
        histogram=[[1, 0, 0]] * len(y),
    )  # fmt: skip
    try:
        windows = draw_windows(index, LEGEND, section)
    except MdicoError:
        return  # the held-out windows left no room for a class
    check_windows(labels, split, windows)
    for loose, stricter in STRICTER.items():
        for strict in stricter:
            assert brute_gap(windows, loose, strict) > section.guard
        held = np.argwhere(np.isin(folds, stricter))
        for top, left in zip(windows.y[windows.fold == loose], windows.x[windows.fold == loose], strict=True):
            down = np.maximum(np.maximum(top - held[:, 0], held[:, 0] - top - side + 1), 0)
            right = np.maximum(np.maximum(left - held[:, 1], held[:, 1] - left - side + 1), 0)
            assert not len(held) or np.maximum(down, right).min() > section.guard, "no scored pixel is near"
    if labels.parcel is not None:
        inside: dict[int, set[int]] = {1: set(), 2: set(), 3: set()}
        for top, left, name in zip(windows.y, windows.x, windows.fold, strict=True):
            here = slice(top, top + side), slice(left, left + side)
            inside[int(name)] |= set(labels.parcel[here][labels.label[here] >= 0]) - {0}
        assert not inside[1] & inside[2]
        assert not inside[1] & inside[3]
        assert not inside[2] & inside[3]


@given(st.integers(0, 999), st.integers(1, 6), st.integers(0, 5))
def test_touching_is_exact(seed: int, side: int, guard: int) -> None:
    generator = np.random.default_rng(seed)
    (y, x), (other_y, other_x) = generator.integers(0, 40, (2, 2, 15))
    gap = np.maximum(np.abs(y[:, None] - other_y), np.abs(x[:, None] - other_x)) - (side - 1)
    assert (touching(y, x, other_y, other_x, side, guard) == (gap <= guard).any(axis=1)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": [0, 4, 30]}, "training|train window .* within 2 pixels of a held-out window"),
        ({"group": [7, 0, 7]}, "in a parcel or group of a held-out window"),
        ({"fold": [3, 3, 3]}, "the test window at row 0, .* on or too near to pixels of another fold"),
        ({"y": [27, 0, 35]}, "the train window at row 27, .* on or too near to pixels of another fold"),
    ],
)
def test_a_leak_is_refused(change: dict[str, list[int]], sentence: str) -> None:
    labels = ArrayLabels(np.zeros((40, 20), np.int16), classes=1)
    split = labels.split(SampleSection(block=20, guard=2, validation=0, test=0.5))
    split.fold[:] = [TRAIN, TEST]
    facts = {"y": [0, 10, 30], "x": [0, 0, 0], "fold": [1, 1, 3], "label": [0, 0, 0], "group": [1, 2, 3], **change}
    if change.get("y") == [0, 4, 30]:
        facts["fold"] = [3, 1, 3]

    def made(values: dict[str, list[int]]) -> Windows:
        y, x, fold, label, group = (np.array(values[name]) for name in ("y", "x", "fold", "label", "group"))
        return Windows(y, x, fold.astype(np.uint8), label, 3, group)

    check_windows(labels, split, made({**facts, "y": [0, 10, 30], "fold": [1, 1, 3], "group": [1, 2, 3]}))
    with pytest.raises(MdicoError, match=sentence):
        check_windows(labels, split, made(facts))
