"""Windows that several blocks touch are computed once, and no bit changes by it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mdico_cube.maps.crew import groups
from mdico_cube.maps.forms import Loaded
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.window_cache import Windows
from mdico_cube.maps.write import open_map, write_map
from mdico_cube.recipe import ClusterSection

ONE = np.zeros((2, 4, 4), np.float32)


def counting(asked, fail=()):
    def compute(places):
        for place in places:
            asked.append(place)
            if place in fail:
                raise ValueError(place)
            yield ONE + place[0]

    return compute


def taken(windows, places, compute):
    return [(place, float(scores[0, 0, 0])) for place, scores in windows.scores(places, compute)]


def test_a_window_is_computed_once_and_given_in_the_order_asked():
    asked, windows = [], Windows(1 << 20)
    assert taken(windows, [(1, 0), (2, 0)], counting(asked)) == [((1, 0), 1.0), ((2, 0), 2.0)]
    assert taken(windows, [(3, 0), (2, 0), (0, 0)], counting(asked)) == [((3, 0), 3.0), ((2, 0), 2.0), ((0, 0), 0.0)]
    assert asked == [(1, 0), (2, 0), (3, 0), (0, 0)]


def test_the_oldest_make_room():
    asked, windows = [], Windows(2 * ONE.nbytes)
    taken(windows, [(1, 0), (2, 0), (3, 0)], counting(asked))
    taken(windows, [(3, 0), (2, 0)], counting(asked))
    assert asked == [(1, 0), (2, 0), (3, 0)]
    taken(windows, [(1, 0)], counting(asked))
    assert asked[-1] == (1, 0)


def test_nothing_is_kept_without_room():
    asked, windows = [], Windows()
    for _ in range(2):
        taken(windows, [(1, 0)], counting(asked))
    assert asked == [(1, 0)] * 2


def test_what_another_thread_computes_is_waited_for_and_not_computed_twice():
    asked, windows, begun, go = [], Windows(1 << 20), threading.Event(), threading.Event()

    def slowly(places):
        for place in places:
            asked.append(place)
            begun.set()
            assert go.wait(20)
            yield ONE + place[0]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(taken, windows, [(1, 0), (2, 0)], slowly)
        assert begun.wait(20)
        second = pool.submit(taken, windows, [(2, 0), (1, 0), (5, 0)], counting(asked))
        go.set()
        assert second.result(20) == [((2, 0), 2.0), ((1, 0), 1.0), ((5, 0), 5.0)]
        assert first.result(20) == [((1, 0), 1.0), ((2, 0), 2.0)]
    assert sorted(asked) == [(1, 0), (2, 0), (5, 0)]


def test_where_a_thread_fails_the_next_one_computes_for_itself():
    asked, windows = [], Windows(1 << 20)
    with pytest.raises(ValueError, match="2"):
        taken(windows, [(1, 0), (2, 0)], counting(asked, fail={(2, 0)}))
    assert taken(windows, [(2, 0)], counting(asked)) == [((2, 0), 2.0)]


@pytest.fixture
def spatial(run):
    run.make_bundles(run.out / "unet", "mdico", 0, {"name": "unet", "layers": 1, "heads": 2, "hidden": 8})
    return run, run.out / "unet" / "sentinel2"


def test_a_map_computes_each_window_once_and_is_the_map_without_that(spatial, monkeypatch):
    run, bundle = spatial
    calls, scorer = [], Loaded.image_scorer

    def counted(self, *given):
        model = scorer(self, *given)
        return lambda *parts: calls.append(1) or model(*parts)

    monkeypatch.setattr(Loaded, "image_scorer", counted)
    whole = open_map(write_map(run.cube, bundle, run.out / "kept.zarr", window=40, cluster=ClusterSection(kind="loop")))
    kept = len(calls) - 1  # one makes the form
    calls.clear()
    monkeypatch.setattr("mdico_cube.maps.predict.MapPlan.keep_windows", lambda self: [None])
    plain = open_map(
        write_map(run.cube, bundle, run.out / "plain.zarr", window=40, cluster=ClusterSection(kind="loop"))
    )
    plan = plan_map(run.cube, bundle, window=40)
    tiling = plan.loaded.tiling(40)
    each = [len(tiling.starts(0, side)) for side in run.shape]
    assert kept <= each[0] * each[1]
    assert len(calls) - 1 > 1.5 * kept
    assert whole.drop_attrs().identical(plain.drop_attrs())


def test_threads_and_dask_share_windows_and_write_the_same_bytes(spatial):
    run, bundle = spatial
    maps = [
        open_map(write_map(run.cube, bundle, run.out / f"{k}.zarr", window=40, cluster=section))
        for k, section in enumerate(
            (ClusterSection(kind="threads", workers=2), ClusterSection(kind="local", workers=1))
        )
    ]
    assert np.array_equal(maps[0]["class"], maps[1]["class"])
    assert np.array_equal(maps[0]["confidence"], maps[1]["confidence"])


def test_neighbours_stand_in_one_job_only_where_they_share_windows(spatial):
    run, bundle = spatial
    due = [(row, column) for row in range(8) for column in range(8)]
    squares = groups(plan_map(run.cube, bundle, window=40), due)
    assert [len(square) for square in squares] == [16] * 4
    assert squares[0] == [(row, column) for row in range(4) for column in range(4)]
    assert sorted(place for square in squares for place in square) == due
    assert groups(plan_map(run.cube, run.bundle()), due) == [[place] for place in due]
