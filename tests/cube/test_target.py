"""One contract for every place a cube can lie in."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from s3_server import KINDS

from mdico_cube.cube.change import changing
from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, MISSING, Entry, Ledger
from mdico_cube.cube.reader import CubeReader, forget_readers, open_cube, open_reader
from mdico_cube.cube.store import create_cube, keep_recipe
from mdico_cube.cube.target import Location, Target, beside, exists, locate, name_of, open_group, open_store, write_key
from mdico_cube.errors import MdicoError
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import LabelClass

STEPS = ("2021-01-01", "2021-02-01")
LAYERS = [Layer(SENSORS["sentinel1"].modality, STEPS), Layer(SENSORS["dem"].modality, ("",))]
WHOLE = slice(0, 64), slice(0, 96)
Place = Callable[[str], Location]


def make(place: Location, grid: GeoBox, overwrite: bool = False) -> None:
    create_cube(place, grid, LAYERS, 16, 32, {"mdico_recipe": "{}"}, (2, 3), overwrite)


def fill(target: Target, value: int, row: int = 0, column: int = 1) -> None:
    """Write one shard and record it."""
    rows, columns = slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32)
    open_group(target, "r+")["sentinel1/backscatter"][..., rows, columns] = value  # type: ignore[index]
    Ledger(target, "sentinel1", "r+").record(row, column, Entry(DONE, f"{value:064d}", ("a",)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cube_lives_there(kind: str, place: Place, grid: GeoBox) -> None:
    where = place(kind)
    assert not exists(where)
    with pytest.raises(MdicoError, match="is no cube"):
        CubeReader(where)
    make(where, grid)
    assert exists(where)
    assert open_reader(where).geobox == grid
    assert not open_reader(where).read("sentinel1", *WHOLE)[1].any()
    assert (Ledger(where, "sentinel1").states() == MISSING).all()
    with changing(where, "a shard") as change:
        fill(change.target, 7)
    forget_readers()
    stored = open_reader(where).stored("sentinel1", *WHOLE)
    assert (stored[..., :32, 32:64] == 7).all()
    assert (stored[..., 32:, :] == -32768).all()
    assert Ledger(where, "sentinel1").read(0, 1) == Entry(DONE, f"{7:064d}", ("a",))
    label = np.full((64, 96), 1, dtype=np.uint8)
    write_labels(where, label, None, (LabelClass("wheat", 1, "#ffffff"),), {})
    keep_recipe(where, json.dumps({"name": "kept"}))
    reader = open_reader(where)
    assert reader.has_labels
    assert (reader.labels(*WHOLE) == 1).all()
    assert reader.attrs["mdico_recipe"] == '{"name": "kept"}'
    tree = open_cube(where)
    assert tree["sentinel1"].dataset.odc.crs == grid.crs
    assert float(tree["sentinel1/backscatter"][0, 0, 0, 33]) == pytest.approx(0.07)
    make(where, grid, overwrite=True)
    assert not open_reader(where).has_labels
    assert not open_reader(where).read("sentinel1", *WHOLE)[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_plain_xarray_opens_a_group(kind: str, place: Place, grid: GeoBox) -> None:
    where = place(kind)
    make(where, grid)
    dataset = xr.open_zarr(open_store(where), group="sentinel1", consolidated=False, decode_coords="all")  # type: ignore[arg-type]
    assert dataset.odc.crs == grid.crs
    assert dataset["band"].values.tolist() == ["vv", "vh"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_processes_write_counts_when_it_is_merged(kind: str, place: Place, grid: GeoBox) -> None:
    where = place(kind)
    make(where, grid)
    with changing(where, "two shards of two workers") as change:
        away = [pickle.loads(pickle.dumps(change.away())) for _ in range(2)]  # as Dask would send them
        for column, target in enumerate(away):
            fill(target, column + 1, column=column)
        for target in away:
            change.merge(pickle.loads(pickle.dumps(target)))
    forget_readers()
    assert Ledger(where, "sentinel1").states().tolist() == [[DONE, DONE, 0], [0, 0, 0]]
    stored = open_reader(where).stored("sentinel1", *WHOLE)
    assert [int(stored[0, 0, 0, x]) for x in (0, 32, 64)] == [1, 2, -32768]


@pytest.mark.parametrize("kind", ["icechunk", "icechunk on s3"])
def test_a_fault_within_a_change_leaves_a_repository_as_it_was(kind: str, place: Place, grid: GeoBox) -> None:
    where = place(kind)
    make(where, grid)

    def stop(partial: bool = False) -> None:
        with changing(where, "never", partial=partial) as change:
            fill(change.target, 8)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert (Ledger(where, "sentinel1").states() == MISSING).all()
    with pytest.raises(KeyboardInterrupt):
        stop(partial=True)
    assert Ledger(where, "sentinel1").read(0, 1).digest == f"{8:064d}", "finished shards of a wave are kept"
    with pytest.raises(MdicoError, match="written in commits"):
        Ledger(where, "sentinel1", "r+")


@pytest.mark.parametrize("kind", ["icechunk", "icechunk on s3"])
def test_two_builders_commit_beside_each_other(kind: str, place: Place, grid: GeoBox) -> None:
    where = place(kind)
    make(where, grid)
    with changing(where, "outer") as outer:
        fill(outer.target, 1, column=0)
        with changing(where, "inner") as inner:
            fill(inner.target, 2, column=1)
    assert Ledger(where, "sentinel1").states().tolist() == [[DONE, DONE, 0], [0, 0, 0]]
    with changing(where, "late") as outer:
        fill(outer.target, 3)
        with changing(where, "first") as inner:
            fill(inner.target, 4)
    assert Ledger(where, "sentinel1").read(0, 1).digest == f"{3:064d}", "the later commit's shard and entry"
    forget_readers()
    assert int(open_reader(where).stored("sentinel1", *WHOLE)[0, 0, 0, 32]) == 3


def test_without_the_roots_metadata_there_is_no_cube(s3: str, grid: GeoBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while a cube is being created leaves nothing that opens, and the next try clears it."""
    where = f"{s3}/cube.zarr"
    store = open_store(where, "w")
    real, count = type(store).set, [0]

    async def failing(self: object, key: str, value: object) -> None:
        count[0] += 1
        if count[0] > 9:
            raise OSError(5, "Input/output error")
        await real(self, key, value)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "set", failing)
        with pytest.raises(MdicoError, match="cannot be written"):
            make(where, grid)
    assert not exists(where)
    make(where, grid)
    assert open_reader(where).geobox == grid


def test_strange_files_are_not_replaced(s3: str, tmp_path: Path, grid: GeoBox) -> None:
    write_key(open_store(f"{s3}/data", "w"), "report.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(MdicoError, match="no cube of ours"):
            make(f"{s3}/data", grid, overwrite)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "report.txt").write_text("mine")
    with pytest.raises(MdicoError, match="is no cube"):
        make(tmp_path / "data", grid, overwrite=True)
    assert (tmp_path / "data" / "report.txt").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host/cube.zarr", "cannot lie there"),
        ("s3://key:secret@bucket/cube.zarr", "no user name"),
        ("s3://bucket/cube.zarr?X-Amz-Signature=abc", "no user name"),
        ("s3://bucket", "names no place"),
        ("s3://bucket/", "names no place"),
    ],
)
def test_bad_addresses(text: str, said: str) -> None:
    with pytest.raises(MdicoError, match=said) as fault:
        locate(text)
    assert "secret" not in str(fault.value)
    assert "abc" not in str(fault.value)


def test_locations_have_one_form(tmp_path: Path) -> None:
    assert locate(str(tmp_path / "a" / ".." / "cube.zarr")) == tmp_path / "cube.zarr"
    assert locate("s3://bucket/a/cube.zarr/") == "s3://bucket/a/cube.zarr"
    assert locate(Path("s3://bucket/a/cube.zarr")) == "s3://bucket/a/cube.zarr", "a Path squeezes the slashes"
    assert locate(Path("icechunk+file:///a/b")) == "icechunk+file:///a/b"
    assert name_of("s3://bucket/a/cube.zarr") == name_of(tmp_path / "cube.zarr") == "cube.zarr"
    assert beside("s3://bucket/cube.zarr", "work") == "s3://bucket/.cube.zarr.work"
    assert beside("icechunk+s3://bucket/a/cube", "work") == "s3://bucket/a/.cube.work"
    assert beside("icechunk+file:///a/cube", "work") == Path("/a/.cube.work")


def test_a_repositorys_folder_is_known_for_what_it_is(place: Place, tmp_path: Path, grid: GeoBox) -> None:
    make(place("icechunk"), grid)
    assert open_reader(tmp_path / "cube.icechunk").geobox == grid


def test_an_unreachable_service_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with pytest.raises(MdicoError, match="cannot be reached") as fault:
        CubeReader("s3://bucket/cube.zarr")
    assert "very-secret" not in str(fault.value)
    assert "\n" not in str(fault.value)


def test_opening_on_s3_takes_few_requests(s3: str, grid: GeoBox, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{s3}/cube.zarr"
    make(where, grid)
    asked: list[str] = []
    kind = type(open_store(where))
    real = kind.get

    async def counting(self: object, key: str, *args: object, **options: object) -> object:
        asked.append(key)
        return await real(self, key, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "get", counting)
    reader = CubeReader(where)
    assert reader.array("sentinel1").shape == (2, 2, 64, 96)
    assert asked == ["zarr.json"]
    asked.clear()
    xr.open_zarr(open_store(where), group="sentinel1", decode_coords="all")  # type: ignore[arg-type]
    assert len(asked) <= 10, asked  # as plain xarray does it: metadata, four probes for older forms, coordinates
    asked.clear()
    forget_readers()
    open_cube(where)
    assert [key for key in asked if "zarr.json" in key] == ["zarr.json"] * 2  # the reader's and the tree's
    assert len(asked) <= 2 + 3 * 4, "beside them each group's coordinates"
