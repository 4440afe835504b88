"""A cube in, what its ledger tells out: per modality, how many shards stand, what was observed, what failed and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mdico_cube.cube.items import uses
from mdico_cube.cube.ledger import DOUBT, FAILED, STANDS, STATE_NAMES, Entry, FailedRead, Ledger
from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import some

_NAMED = 12  # shards that a sentence names


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard of one modality."""

    row: int
    column: int
    state: str
    """missing, done, gaps or failed."""
    valid_fraction: float
    """Share of (step, pixel) observed."""
    items: int
    """STAC items read."""
    failed_reads: int
    """Files that could not be read for good."""
    seconds: float
    digest: str
    """SHA-256 of everything that decides its values."""
    version: str
    """Version of mdico_cube that wrote it."""


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """One modality of a cube."""

    modality: str
    done: int
    """Shards that stand and lack nothing."""
    gaps: int
    """Shards that stand, but without scenes whose files could not be read."""
    failed: int
    missing: int
    valid_fraction: float
    """Mean share of (step, pixel) observed, over the shards that stand; 0 where none does."""
    items: int
    """Different STAC items read."""
    offsets: dict[str, int]
    """Offset and reason -> items it was applied to."""
    floors: dict[str, float]
    """Item -> reflectance of its darkest clear ground after its offset; the darkest of its shards."""
    doubts: dict[str, str]
    """Item -> what the offset sentinel has against its offset."""
    left_out: dict[str, str]
    """Item that was found and not read -> why: an older processing, no such asset, another day."""
    seconds: float
    """Time spent on the shards that stand."""
    bytes_written: int
    """Before compression."""
    errors: dict[str, str]
    """Shard "row,column" -> why it failed."""
    failed_reads: dict[str, tuple[FailedRead, ...]]
    """Shard "row,column" -> every file that could not be read for good."""
    step_fractions: dict[str, float]
    """Time step -> mean share of pixels observed, over the shards that stand."""
    shards: tuple[ShardStatus, ...]
    """Every shard, row by row."""
    stand_ins: dict[str, str]
    """Item -> "catalog/collection/id" of the same acquisition that was read in its place, in some shard at least."""

    def watch(self) -> str:
        """Whether the offsets are right, as the darkest ground of each item tells; empty where not measured."""
        if not self.floors:
            return ""
        low, high = min(self.floors.values()), max(self.floors.values())
        said = f"{some(len(self.doubts), 'item')} in doubt" if self.doubts else "looks right"
        return f"{said} (darkest ground of {some(len(self.floors), 'item')}: reflectance {low:.3f} to {high:.3f})"

    def failures(self) -> list[str]:
        """A sentence per reason why shards failed, with the shards it made fail."""
        shards: dict[str, list[str]] = {}
        for shard, error in self.errors.items():
            shards.setdefault(error, []).append(shard)
        return [f"{_named(places)} failed: {error}" for error, places in shards.items()]

    def unread(self) -> list[str]:
        """A sentence per file that could not be read, with the shards that lack it."""
        shards: dict[tuple[str, str, str], dict[str, None]] = {}
        for shard, reads in self.failed_reads.items():
            for one in reads:
                shards.setdefault((one.item, one.asset, one.error), {})[shard] = None
        return [
            f"item {item}, asset {asset} was not read in {_named([*places])}: {error}"
            for (item, asset, error), places in sorted(shards.items())
        ]


def _named(shards: Sequence[str]) -> str:
    """Shards for people: a thousand are counted, the first are named."""
    if len(shards) == 1:
        return f"shard {shards[0]}"
    return f"{len(shards):,} shards ({' '.join(shards[:_NAMED])}{' ...' if len(shards) > _NAMED else ''})"


def inspect_cube(path: Location) -> list[LayerStatus]:
    """The state of every modality of a cube.

    Raises:
        MdicoError: there is no cube.
    """
    left_out = uses(path)
    return [_status(path, name, left_out.get(name, {})) for name in open_reader(path).modalities]


def _status(path: Location, modality: str, left_out: dict[str, str]) -> LayerStatus:
    entries = Ledger(path, modality).entries()
    standing = [entry for entry in entries.values() if entry.state in STANDS]
    said = {item: why.partition(DOUBT) for entry in standing for item, why in entry.offsets.items()}
    doubts = [one for entry in standing for one in entry.offsets.items() if DOUBT in one[1]]
    floors: dict[str, float] = {}
    for entry in standing:
        floors |= {item: min(floor, floors.get(item, floor)) for item, floor in entry.floors.items()}
    count = Counter(STATE_NAMES[entry.state] for entry in entries.values())
    return LayerStatus(
        modality=modality,
        done=count["done"],
        gaps=count["gaps"],
        failed=count["failed"],
        missing=count["missing"],
        valid_fraction=sum(entry.valid_fraction for entry in standing) / max(1, len(standing)),
        items=len({item for entry in standing for item in entry.items}),
        offsets=dict(Counter(rule for rule, _, _ in said.values()).most_common()),
        floors=dict(sorted(floors.items())),
        doubts={item: why.partition(DOUBT)[2] for item, why in sorted(doubts)},
        left_out=left_out,
        seconds=sum(entry.seconds for entry in standing),
        bytes_written=sum(entry.bytes_written for entry in standing),
        errors={f"{row},{column}": entry.error for (row, column), entry in entries.items() if entry.state == FAILED},
        failed_reads={f"{row},{column}": e.failed_reads for (row, column), e in entries.items() if e.failed_reads},
        step_fractions=_per_step(open_reader(path).steps(modality), standing),
        shards=tuple(_shard(row, column, entry) for (row, column), entry in entries.items()),
        stand_ins={item: other for entry in standing for item, other in sorted(entry.stand_ins.items())},
    )


def _shard(row: int, column: int, entry: Entry) -> ShardStatus:
    return ShardStatus(
        row,
        column,
        STATE_NAMES[entry.state],
        entry.valid_fraction,
        len(entry.items),
        len(entry.failed_reads),
        entry.seconds,
        entry.digest,
        entry.version,
    )


def _per_step(steps: Sequence[str], standing: Sequence[Entry]) -> dict[str, float]:
    return {
        step: sum(entry.step_fractions.get(step, 0.0) for entry in standing) / max(1, len(standing)) for step in steps
    }
