"""A cube in, the report's table of where its pixels came from out: items, offsets, doubts, what was left out."""

from __future__ import annotations

from dataclasses import dataclass

from mdico_cube.cube.inspect import LayerStatus, inspect_cube
from mdico_cube.cube.items import reasons
from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.target import Location
from mdico_cube.errors import some

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One sensor of the table."""

    sensor: str
    items: int
    """Items read."""
    offsets: tuple[str, ...]
    """Offset and why, with the number of items."""
    verdict: str
    """What the offset sentinel says, in a sentence."""
    doubts: tuple[str, ...]
    """Items whose offset looks wrong, each with why; the first few."""
    left_out: tuple[str, ...]
    """Why items that were found are not read, with their number."""
    failed: int
    """Files that could not be read for good."""


def source_rows(place: Location, reader: CubeReader) -> list[SourceRow]:
    """One row per modality of a cube, in its order."""
    return [_row(status, reader.modalities[status.modality].title) for status in inspect_cube(place)]


def _row(status: LayerStatus, title: str) -> SourceRow:
    doubts = [f"{item}: {why}" for item, why in status.doubts.items()]
    more = [f"and {len(doubts) - _SHOWN} more"] if len(doubts) > _SHOWN else []
    return SourceRow(
        sensor=title or status.modality,
        items=status.items,
        offsets=tuple(f"{offset}: {some(count, 'item')}" for offset, count in status.offsets.items()),
        verdict=_verdict(status),
        doubts=(*doubts[:_SHOWN], *more),
        left_out=tuple(f"{reason}: {some(count, 'item')}" for reason, count in reasons(status.left_out).items()),
        failed=len(status.unread()),
    )


def _verdict(status: LayerStatus) -> str:
    """What the dark floors say of the offsets."""
    return status.watch() or "not checked: this sensor's counts keep their meaning, or too little ground was clear"
