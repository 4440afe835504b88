"""Tables of candidate windows in, one Parquet file out, a row group per shard; and back, part by part.

A row is one window that could train or score. Columns, in this order:

| column | type | what |
|---|---|---|
| y, x | int32 | first row and first column of the window on the cube's grid |
| label | int16 | class index at the window's centre pixel (row and column side // 2), or of its point; -1 = none |
| block | int32 | split block of the centre pixel: row by row from the upper left; see `patches.splits` |
| group | int32 | parcel or group the window belongs to, 0 = none: no group stands in two folds |
| fold | uint8 | 0 unused, 1 train, 2 validation, 3 test |
| date | date32 | when the label was taken, null where nobody says |
| histogram | list of uint32, one per class | labelled pixels of each class inside the window |
| valid_M | float32 | modality M: share of (step, pixel) observed in every band |
| first_M, last_M | date32 | temporal modality M: first and last step in which any pixel was observed, null = never |

Windows that stand in no fold are kept with fold 0, so that another split needs no new pass over the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mdico_cube.cube.change import writing
from mdico_cube.errors import MdicoError
from mdico_cube.spec import LabelClass

VERSION = 1
_KEY = b"mdico_index"


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What an index says of itself, in the file's metadata."""

    side: int
    """Window side in pixels."""
    modalities: Mapping[str, bool]
    """Modality -> True where it has time."""
    legend: tuple[LabelClass, ...]
    shape: tuple[int, int]
    """Rows and columns of the cube's grid."""
    pixels: str
    """SHA-256 of all that decides the rows but their folds: cube, labels, modalities and options."""
    split: str
    """SHA-256 of all that decides the folds."""
    values: bool = False
    """True where the classes are parts of the range of a value."""

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True).encode()


def index_schema(facts: IndexFacts) -> pa.Schema:
    """Columns and types of an index; see the table above."""
    fields = [
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("label", pa.int16()),
        ("block", pa.int32()),
        ("group", pa.int32()),
        ("fold", pa.uint8()),
        ("date", pa.date32()),
        ("histogram", pa.list_(pa.uint32(), len(facts.legend))),
        *((f"valid_{name}", pa.float32()) for name in facts.modalities),
        *((f"{end}_{n}", pa.date32()) for n, temporal in facts.modalities.items() if temporal for end in _ENDS),
    ]
    return pa.schema(fields, metadata={_KEY: facts.dump()})


_ENDS = ("first", "last")


def write_index(path: Path, facts: IndexFacts, parts: Iterable[pa.Table]) -> SampleIndex:
    """Write an index whole or not at all; each part becomes one row group, as soon as it comes.

    Raises:
        MdicoError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    schema = index_schema(facts)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
                for part in parts:
                    if part.num_rows:
                        writer.write_table(part.cast(schema), row_group_size=part.num_rows)
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return open_index(path)


class SampleIndex:
    """An index on disk, read part by part: memory does not grow with its length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                raw = json.loads((file.schema_arrow.metadata or {})[_KEY])
                self._rows = int(file.metadata.num_rows)
                self.row_groups = int(file.num_row_groups)
        except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
            raise MdicoError(f"{path}: is no index of samples. Make one with `mdico samples index`.") from error
        if raw.pop("version") != VERSION:
            raise MdicoError(f"{path}: is not an index of layout {VERSION}. Make it again with `mdico samples index`.")
        self.facts = _facts(raw)

    def __len__(self) -> int:
        return self._rows

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, one row group at a time."""
        with pq.ParquetFile(self.path) as file:
            for group in range(self.row_groups):
                yield file.read_row_group(group, columns=None if columns is None else list(columns))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every row at once, for looking around."""
        return pq.read_table(self.path, columns=None if columns is None else list(columns))


def open_index(path: Path | str) -> SampleIndex:
    """Open an index of samples.

    Raises:
        MdicoError: there is none.
    """
    return SampleIndex(Path(path))


def _facts(raw: Mapping[str, Any]) -> IndexFacts:
    legend = tuple(LabelClass(**entry) for entry in raw["legend"])
    return IndexFacts(**{**raw, "legend": legend, "shape": tuple(raw["shape"])})
