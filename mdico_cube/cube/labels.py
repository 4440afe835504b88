"""Labels of a grid, shard by shard, in; /labels of a cube out: written by whole shards, their digest last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from mdico_cube.cube.change import changing, writing
from mdico_cube.cube.geozarr import grid_attrs
from mdico_cube.cube.grid import Shard, shards
from mdico_cube.cube.reader import CubeReader, forget_readers
from mdico_cube.cube.store import GRID_MAPPING, grid_coords
from mdico_cube.cube.target import Location, open_group, open_store
from mdico_cube.schema import LABELS, NO_DATE, UNLABELLED
from mdico_cube.spec import LabelClass


@dataclass(frozen=True, slots=True)
class LabelBlock:
    """What is known on the ground of one block of a grid."""

    label: npt.NDArray[np.uint8]
    """(h, w) class index 0..K-1, 255 = unlabelled."""
    parcel: npt.NDArray[np.int32] | None
    """(h, w) parcel number from 1 on, 0 = none; None where the labels have no groups."""
    value: npt.NDArray[np.float32] | None = None
    """(h, w) NaN = unlabelled; None where the labels are classes. `label` is then the part of its range it lies in."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the values."""
        total = hashlib.sha256(np.ascontiguousarray(self.label).tobytes())
        total.update(b"-" if self.parcel is None else np.ascontiguousarray(self.parcel).tobytes())
        if self.value is not None:
            total.update(np.ascontiguousarray(self.value).tobytes())
        return total.digest()


def write_label_blocks(
    path: Location,
    blocks: Iterable[tuple[Shard, LabelBlock]],
    legend: Sequence[LabelClass],
    attrs: Mapping[str, Any],
    grouped: bool,
    dates: npt.NDArray[np.datetime64] | None = None,
    valued: bool = False,
) -> None:
    """Write /labels of a cube: label, parcel where `grouped`, value where `valued`, and the day of each parcel's label.

    Labels count once their digest stands, which is written last; until then the cube has none. Memory holds one block.

    Args:
        path: the cube.
        blocks: every shard of the cube's grid in row order, with its labels.
        legend: classes in index order.
        attrs: facts to keep beside the legend.
        grouped: True where the blocks have parcels.
        dates: (parcels + 1,) day each parcel was labelled, not-a-time where unknown; entry 0 is no parcel.
        valued: True where the blocks have values.
    """
    reader = CubeReader(path)
    total = hashlib.sha256()
    with writing(path), changing(path, "labels", metadata=True) as change:
        store = open_store(change.target, "r+")
        dataset, encoding = _template(reader, grouped, valued)
        facts = {**grid_attrs(reader.geobox), **attrs, "legend": [asdict(entry) for entry in legend]}
        dataset.assign_attrs(facts).to_zarr(
            store, group=LABELS, mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding
        )
        group = open_group(store, "r+", LABELS)
        for shard, block in blocks:
            _array(group, "label")[shard.y, shard.x] = block.label
            if block.parcel is not None:
                _array(group, "parcel")[shard.y, shard.x] = block.parcel
            if block.value is not None:
                _array(group, "value")[shard.y, shard.x] = block.value
            total.update(block.digest)
        if dates is not None:
            days = np.where(np.isnat(dates), NO_DATE, dates.astype("datetime64[D]").astype(np.int64))
            group.create_array("parcel_date", data=days.astype(np.int32), dimension_names=("parcel",))
            total.update(days.astype(np.int32).tobytes())
        group.attrs["digest"] = total.hexdigest()
    forget_readers()


def write_labels(
    path: Location,
    label: npt.NDArray[np.uint8],
    parcel: npt.NDArray[np.int32] | None,
    legend: Sequence[LabelClass],
    attrs: Mapping[str, Any],
) -> None:
    """Write labels (y, x) that are held in arrays; see `write_label_blocks`. Equal ones that stand are left alone."""
    reader = CubeReader(path)

    def blocks() -> Iterator[tuple[Shard, LabelBlock]]:
        for shard in shards(reader.shape, reader.shard):
            here = shard.y, shard.x
            yield shard, LabelBlock(label[here], None if parcel is None else parcel[here])

    digest = hashlib.sha256(b"".join(block.digest for _, block in blocks())).hexdigest()
    facts = {**attrs, "legend": [asdict(entry) for entry in legend], "digest": digest}
    if not reader.has_labels or reader.label_facts != {**reader.label_facts, **facts}:
        write_label_blocks(path, blocks(), legend, attrs, parcel is not None)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def _template(reader: CubeReader, grouped: bool, valued: bool) -> tuple[xr.Dataset, dict[str, Any]]:
    side = (reader.shard, reader.shard)
    layers: dict[str, tuple[str, float]] = {"label": ("uint8", UNLABELLED)}
    layers |= {"parcel": ("int32", 0)} if grouped else {}
    layers |= {"value": ("float32", np.nan)} if valued else {}
    empty = {name: (("y", "x"), da.zeros(reader.shape, chunks=side, dtype=kind)) for name, (kind, _) in layers.items()}
    shards = {"shards": side} if reader.sharded else {}
    encoding = {
        name: {
            "chunks": (reader.chunk, reader.chunk),
            **shards,
            "grid_mapping": GRID_MAPPING,
            "_FillValue": np.dtype(kind).type(missing),
            "fill_value": missing,
            "compressors": [ZstdCodec(level=3)],
        }
        for name, (kind, missing) in layers.items()
    }
    return xr.Dataset(empty, coords=grid_coords(reader.geobox)), encoding
