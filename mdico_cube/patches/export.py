"""A samples store of pixel series in, one Parquet file out, chunk of rows by chunk of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mdico_cube.cube.change import writing
from mdico_cube.errors import MdicoError
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.patches.sources import StoredWindows, gather
from mdico_cube.patches.splits import FOLDS
from mdico_cube.spec import Array

_ROWS = 16384  # rows of a row group
_PLACES = ("row", "column", "x", "y", "lon", "lat", "block", "group")


def export_samples(samples: Path, target: Path, overwrite: bool = False) -> Path:
    """Write pixel series as Parquet: places, fold and class of each, and one nested list (T, C) per modality.

    Values are physical, NaN where not observed. Dates and bands stand in the file's metadata under `mdico_samples`;
    `mdico benchmark pixel-series` reads the file as it is.

    Raises:
        MdicoError: no samples, samples of more than one pixel, or a file that exists already.
    """
    store = open_samples(samples)
    if store.side != 1:
        raise MdicoError(
            f"{samples}: holds windows of {store.side} pixels; only pixel series (samples.patch: 1) fit into a table. "
            "Open the windows themselves with xarray: it is a Zarr store."
        )
    if target.exists() and not overwrite:
        raise MdicoError(f"{target}: exists already. Use --overwrite to replace it.")
    draft = target.with_name(f".{target.name}.draft")
    schema = _schema(store)
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
                for part in _parts(store, schema):
                    writer.write_table(part, row_group_size=_ROWS)
            draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _schema(store: SampleStore) -> pa.Schema:
    kinds = [(name, pa.float64() if name in ("x", "y", "lon", "lat") else pa.int64()) for name in _PLACES]
    series = [
        (name, pa.list_(pa.list_(pa.float32(), len(spec.modality.bands)), len(spec.steps)))
        for name, spec in store.inputs.items()
    ]
    facts = {name: {"steps": spec.steps, "bands": spec.modality.band_names} for name, spec in store.inputs.items()}
    metadata = {b"mdico_samples": json.dumps(facts).encode()}
    label = pa.string() if store.value is None else pa.float32()
    return pa.schema(
        [*kinds, ("fold", pa.string()), ("label", label), ("start_date", pa.string()), *series], metadata=metadata
    )


def _parts(store: SampleStore, schema: pa.Schema) -> Iterator[pa.Table]:
    source = StoredWindows(store, tuple(FOLDS.values()), tuple(store.inputs), hold=False)
    columns = {name: store.column(name) for name in _PLACES}
    folds = {number: name for name, number in FOLDS.items()}
    for start in range(0, len(source), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(source)))
        stored = gather(source, rows)
        table = {name: pa.array(values[rows]) for name, values in columns.items()}
        table["fold"] = pa.array([folds[int(fold)] for fold in store.fold[rows]])
        table["label"] = (
            pa.array([store.legend[int(label)].name for label in store.label[rows]])
            if store.value is None
            else pa.array(store.target(rows)[:, 0, 0])
        )
        first = min((spec.steps[0] for spec in store.inputs.values() if spec.modality.temporal), default="2001-01-01")
        table["start_date"] = pa.array([first] * len(rows))
        for name, values in stored.items():
            physical, seen = store.inputs[name].modality.storage.unpack(values[..., 0, 0])  # (N, T, C)
            table[name] = _nested(np.where(seen, physical, np.float32(np.nan)))
        yield pa.table(table, schema=schema)


def _nested(values: Array) -> pa.Array:
    """(N, T, C) as a list of lists per row."""
    bands = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[2])
    return pa.FixedSizeListArray.from_arrays(bands, values.shape[1])
