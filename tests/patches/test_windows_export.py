"""Pixel series as a table: every value where it belongs, and read by the benchmark as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_samples import NAMES, extracted

from mdico_cube.benchmarks.pixel_series import read_pixel_series
from mdico_cube.errors import MdicoError
from mdico_cube.patches import export
from mdico_cube.patches.export import export_samples


def test_every_value_stands_where_it_belongs(cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_ROWS", 50)  # several row groups
    store = extracted(cube, tmp_path)
    path = export_samples(store.path, tmp_path / "series.parquet")
    table = pq.read_table(path)
    assert pq.ParquetFile(path).num_row_groups == -(-len(store.fold) // 50)
    for name in ("row", "column", "x", "lat", "block", "group"):
        np.testing.assert_array_equal(table[name].to_numpy(), store.column(name))
    assert table["label"].to_pylist() == [store.legend[k].name for k in store.label]
    assert set(table["fold"].to_pylist()) == {"train", "validation", "test"}
    for name in NAMES:
        found = np.array(table[name].to_pylist(), dtype=np.float32)
        values, seen = store.inputs[name].modality.storage.unpack(np.asarray(store.array(name)[:])[..., 0, 0])
        np.testing.assert_array_equal(found, np.where(seen, values, np.float32(np.nan)))


def test_the_benchmark_reads_it(cube: Path, tmp_path: Path) -> None:
    store = extracted(cube, tmp_path)
    path = export_samples(store.path, tmp_path / "series.parquet")
    series = read_pixel_series(path, "label", NAMES, "block", 1)
    assert series.values["sentinel2"].shape == (len(store.fold), 4, 2)
    assert len(series.classes) == 2


def test_windows_and_standing_files_are_refused(cube: Path, tmp_path: Path) -> None:
    store = extracted(cube, tmp_path / "a")
    path = export_samples(store.path, tmp_path / "series.parquet")
    with pytest.raises(MdicoError, match="exists already"):
        export_samples(store.path, path)
    export_samples(store.path, path, overwrite=True)
    with pytest.raises(MdicoError, match="only pixel series"):
        export_samples(extracted(cube, tmp_path / "b", patch=4).path, tmp_path / "other.parquet")
