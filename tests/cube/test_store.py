"""The cube on disk: round trip, missing shards, layout check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox

from mdico_cube.cube.labels import write_labels
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, FAILED, MISSING, Entry, Ledger
from mdico_cube.cube.reader import open_cube, open_reader
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.schema import check_cube
from mdico_cube.sensors.registry import SENSORS
from mdico_cube.spec import LabelClass

STEPS = ("2021-01-01", "2021-02-01")
LAYERS = [
    Layer(SENSORS["sentinel1"].modality, STEPS),
    Layer(SENSORS["sentinel2"].modality.select(("B04", "B08")), STEPS),
    Layer(SENSORS["dem"].modality, ("",)),
]


@pytest.fixture
def cube(tmp_path: Path, grid: GeoBox) -> Path:
    path = tmp_path / "cube.zarr"
    create_cube(path, grid, LAYERS, 16, 32, {"mdico_recipe": "{}"}, (2, 3))
    return path


def test_a_new_cube_is_missing_everywhere(cube: Path) -> None:
    reader = open_reader(cube)
    for name, modality in reader.modalities.items():
        values, observed = reader.read(name, slice(0, 64), slice(0, 96))
        assert not observed.any()
        assert values.shape == (1 if name == "dem" else 2, len(modality.bands), 64, 96)
    assert bool(open_cube(cube)["sentinel2/reflectance"].isnull().all())


def test_the_reader_knows_grid_bands_and_steps(cube: Path, grid: GeoBox) -> None:
    reader = open_reader(cube)
    assert reader.geobox == grid
    assert reader.modalities == {layer.modality.name: layer.modality for layer in LAYERS}
    assert reader.steps("sentinel1") == STEPS
    assert reader.steps("dem") == ("",)
    with pytest.raises(MdicoError, match="has no landsat"):
        reader.steps("landsat")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays(np.int16, (2, 2, 64, 96), elements=st.integers(-32768, 32767)), data=st.data())
def test_what_is_written_is_read_in_any_window(cube: Path, values: np.ndarray, data: st.DataObject) -> None:  # type: ignore[type-arg]
    zarr.open_group(cube, mode="r+")["sentinel1/backscatter"][:] = values
    top, left = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 95))
    y, x = slice(top, data.draw(st.integers(top + 1, 64))), slice(left, data.draw(st.integers(left + 1, 96)))
    physical, observed = open_reader(cube).read("sentinel1", y, x)
    part = values[..., y, x]
    assert (observed == (part != -32768).all(axis=1)).all()
    np.testing.assert_allclose(physical, np.where(part == -32768, 0, part * np.float32(0.01)), atol=1e-4)


def test_plain_xarray_opens_a_group(cube: Path) -> None:
    dataset = xr.open_zarr(cube, group="sentinel2", consolidated=False, decode_coords="all")
    assert dataset["reflectance"].odc.crs.epsg == 32631
    assert dataset["band"].values.tolist() == ["B04", "B08"]


def test_a_group_off_the_grid_is_named(cube: Path) -> None:
    zarr.open_group(cube, mode="r+")["sentinel1/x"][:] = np.arange(96) * 10.0
    tree = xr.DataTree.from_dict(
        {
            "/": xr.open_zarr(cube, consolidated=False),
            **{
                f"/{name}": xr.open_zarr(cube, group=name, consolidated=False).rename(x="x")
                for name in ("sentinel2", "dem")
            },
        }
    )
    with pytest.raises(MdicoError, match="group sentinel1 is missing"):
        check_cube(tree)
    with pytest.raises(ValueError, match="not aligned"):
        open_cube(cube)


@pytest.mark.parametrize("what", ["nothing", "file", "other zarr"])
def test_what_is_no_cube(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing.zarr"
    if what == "file":
        path.write_text("x")
    if what == "other zarr":
        zarr.open_group(path, mode="w")
    with pytest.raises(MdicoError, match="mdico build"):
        open_reader(path)


def test_labels_come_back_with_their_legend(cube: Path) -> None:
    legend = (LabelClass("wheat", 1, "#ffffff"), LabelClass("maize", 2, "#000000"))
    label = np.full((64, 96), 255, dtype=np.uint8)
    label[:, :10] = 1
    with pytest.raises(MdicoError, match="has no labels"):
        open_reader(cube).labels(slice(0, 1), slice(0, 1))
    write_labels(cube, label, None, legend, {})
    reader = open_reader(cube)
    assert reader.legend == legend
    assert (reader.labels(slice(0, 64), slice(0, 12)) == np.where(label[:, :12] == 255, -1, 1)).all()
    assert reader.parcels(slice(0, 1), slice(0, 1)) is None
    write_labels(cube, label, np.full((64, 96), 7, dtype=np.int32), legend, {})
    assert (open_reader(cube).parcels(slice(0, 2), slice(0, 2)) == 7).all()


def test_ledger_entries_come_back(cube: Path) -> None:
    pixels: Any = zarr.open_group(cube, mode="r+")["sentinel2/reflectance"]
    pixels[:] = 1  # a shard in which something was observed has a file
    ledger = Ledger(cube, "sentinel2", mode="r+")
    assert ledger.read(1, 2) == Entry(MISSING)
    entry = Entry(DONE, "abc", ("a", "b"), {"a": "-0.1 (declared)"}, 0.25, 1.5, 10, "", "0.1.0")
    ledger.record(1, 2, entry)
    failed = Entry(FAILED, "d", ("c",), error="no file")
    ledger.record(0, 0, failed)
    again = Ledger(cube, "sentinel2")
    assert again.read(1, 2) == entry
    assert again.read(0, 0) == failed
    assert again.states().tolist() == [[FAILED, 0, 0], [0, 0, DONE]]


def test_a_full_disk_while_recording_leaves_the_entry_that_stood(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(cube, "sentinel2", mode="r+")
    ledger.record(0, 0, Entry(DONE, "old"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)  # the last step of a write
    with pytest.raises(OSError, match="No space left"):
        ledger.record(0, 0, Entry(DONE, "new"))
    assert Ledger(cube, "sentinel2").read(0, 0) == Entry(DONE, "old")


def test_a_shards_entry_is_one_file_of_its_own(cube: Path) -> None:
    ledger = Ledger(cube, "sentinel2", mode="r+")
    before = {path for path in cube.rglob("*") if path.is_file()}
    ledger.record(1, 2, Entry(DONE, "d" * 64, tuple(f"item {i}" for i in range(100_000))))
    ledger.record(0, 1, Entry(FAILED, "e" * 64))
    added = {path for path in cube.rglob("*") if path.is_file()} - before
    assert {path.relative_to(cube).as_posix() for path in added} == {
        f"ledger/sentinel2/entry/c/{place}" for place in ("1/2", "0/1")
    }
    assert len(Ledger(cube, "sentinel2").read(1, 2).items) == 100_000
    digests = Ledger(cube, "sentinel2").digests()
    assert digests[1, 2].tobytes() == b"d" * 64
    assert not digests[0, 1].any(), "a failed shard does not stand"
