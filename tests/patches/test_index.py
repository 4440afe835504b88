"""The index of candidate windows: what stands in it, and that it comes back."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mdico_cube.errors import MdicoError
from mdico_cube.patches.index import IndexFacts, index_schema, open_index, write_index
from mdico_cube.spec import LabelClass

LEGEND = (LabelClass("a", 1, "#000000"), LabelClass("b", 2, "#ffffff"))
FACTS = IndexFacts(4, {"sentinel1": True, "dem": False}, LEGEND, (40, 60), "pixels", "split")


def part(rows: int) -> pa.Table:
    day = datetime.date(2021, 3, 1)
    columns = {
        **{name: range(rows) for name in ("y", "x", "label", "block", "group", "fold")},
        "date": [None] * rows,
        "histogram": [[row, 16 - row] for row in range(rows)],
        **dict.fromkeys(("valid_sentinel1", "valid_dem"), [0.5] * rows),
        **dict.fromkeys(("first_sentinel1", "last_sentinel1"), [day] * rows),
    }
    return pa.table({name: list(values) for name, values in columns.items()}, schema=index_schema(FACTS))


def test_what_is_written_comes_back_part_by_part(tmp_path: Path) -> None:
    index = write_index(tmp_path / "i.parquet", FACTS, [part(3), part(0), part(5)])
    assert index.facts == FACTS
    assert len(index) == 8
    assert [table.num_rows for table in index.parts(["y"])] == [3, 5]
    assert index.table().equals(pa.concat_tables([part(3), part(5)]))
    assert open_index(tmp_path / "i.parquet").table(["histogram"])["histogram"].to_pylist()[1] == [1, 15]


def test_a_broken_off_writing_leaves_the_old_index(tmp_path: Path) -> None:
    write_index(tmp_path / "i.parquet", FACTS, [part(3)])

    def broken():  # type: ignore[no-untyped-def]
        yield part(2)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_index(tmp_path / "i.parquet", FACTS, broken())
    assert len(open_index(tmp_path / "i.parquet")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["i.parquet"]


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_what_is_no_index(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "i.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MdicoError, match=r"is no index of samples\. Make one with `mdico samples index`"):
        open_index(path)
