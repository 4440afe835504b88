"""One modality of one shard: what decides it, what it is called, what became of it; a plan in, every job out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from odc.geo.geobox import GeoBox
from zarr.abc.store import Store

from mdico_cube.cube.grid import Shard
from mdico_cube.cube.ledger import DONE, FAILED, GAPS, STANDS, Entry, Ledger, Origin
from mdico_cube.cube.plan import BuildPlan, LayerPlan
from mdico_cube.cube.target import Location
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.errors import MdicoError

Retry = Literal["failed", "gaps", "stale"]
"""Kinds of shards that a build may be confined to."""


@dataclass(frozen=True)
class Job:
    """One modality of one shard."""

    layer: LayerPlan
    shard: Shard
    block: GeoBox
    origin: Origin

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides its pixels."""
        return self.origin.digest

    def kept(self, entry: Entry) -> list[int]:
        """Time steps that stand as they are in a shard with this entry: built whole, from the same scenes and rules."""
        if not self.layer.modality.temporal or entry.state not in STANDS:
            return []
        if (entry.settings, entry.grid) != (self.origin.settings, self.origin.grid):
            return []
        torn = {read.item for read in entry.failed_reads}
        gaps = {scene.step for scene in self.layer.scenes if scene.item.id in torn}
        return [
            index
            for index, step in enumerate(self.layer.steps)
            if index not in gaps and entry.steps.get(step) == self.origin.steps[step]
        ]


@dataclass(frozen=True, slots=True)
class Key:
    """Which job: small enough to travel to a worker a million times."""

    modality: str
    row: int
    column: int
    claim: int = 0
    """Number of the builder's claim on it."""

    @property
    def name(self) -> str:
        """What the claim is called."""
        return f"{self.modality}.{self.row}.{self.column}"


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a job."""

    error: str = ""
    """Why the shard could not be built."""
    bytes_written: int = 0
    failed_reads: int = 0
    """Files that could not be read for good; the shard was composed of the others."""
    stand_ins: tuple[str, ...] = ()
    """Items in whose place the same acquisition of another catalog was read."""
    notes: tuple[str, ...] = ()
    """What the person watching should know."""
    target: Store | None = None
    """What was written to, if not the cube itself: to be merged into the commit."""
    lost: bool = False
    """The claim was overruled meanwhile, so nothing was written."""


def digest_of(plan: BuildPlan, key: Key) -> str:
    """SHA-256 of everything that decides what a job writes."""
    layer = plan.layer(key.modality)
    return layer.origin.digest if isinstance(layer, WeatherPlan) else shard_job(plan, layer, key).digest


def job_parts(plan: BuildPlan, key: Key) -> tuple[Origin, tuple[str, ...]]:
    """What decides a shard's values, and the ids of the items in it."""
    layer = plan.layer(key.modality)
    if isinstance(layer, WeatherPlan):
        return layer.origin, tuple(item.id for item in layer.items)
    job = shard_job(plan, layer, key)
    return job.origin, tuple(scene.item.id for scene in layer.scenes_of(job.block))


def shard_job(plan: BuildPlan, layer: LayerPlan, key: Key) -> Job:
    """The job that a key names."""
    shard = plan.shard_at(key.row, key.column)
    block = plan.block(shard)
    return Job(layer, shard, block, layer.origin(block))


def unfinished(
    path: Location, plan: BuildPlan, retry: Sequence[Retry] = (), known: Sequence[str] | None = None
) -> list[Key]:
    """Jobs to do: shards that are missing, failed, stale or have gaps.

    Args:
        path: the cube.
        plan: what should stand there.
        retry: only these kinds; empty = all.
        known: modalities that the cube holds, if not all; every shard of another is to be done.
    """
    heads = {
        layer.modality.name: Ledger(path, layer.modality.name).heads()
        for layer in plan.every
        if known is None or layer.modality.name in known
    }
    keys = []
    for key in _keys(plan):
        if key.modality not in heads:
            keys.append(key)
            continue
        states, digests = heads[key.modality]
        same = digests[key.row, key.column].tobytes() == digest_of(plan, key).encode()
        if _is_wanted(int(states[key.row, key.column]), same, retry):
            keys.append(key)
    return keys


def _keys(plan: BuildPlan) -> Iterator[Key]:
    for weather in plan.weather:
        yield Key(weather.modality.name, 0, 0)
    for shard in plan.shards():
        for layer in plan.layers:
            yield Key(layer.modality.name, shard.row, shard.column)


def retries(names: Sequence[str]) -> tuple[Retry, ...]:
    """Kinds of shards by name.

    Raises:
        MdicoError: there is no such kind.
    """
    known = get_args(Retry)
    for name in names:
        if name not in known:
            raise MdicoError(f"--retry is one of {', '.join(known)}, came {name!r}.")
    return tuple(kind for kind in known if kind in names)


def _is_wanted(state: int, same: bool, retry: Sequence[Retry]) -> bool:
    if state == DONE and same:
        return False
    if not retry:
        return True
    if state == GAPS and same:
        return "gaps" in retry
    return (state == FAILED and "failed" in retry) or (state in STANDS and "stale" in retry)
