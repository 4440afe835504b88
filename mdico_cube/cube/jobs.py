"""A plan and its cube in, the jobs that are left out: handed to a crew one claimed shard at a time, results counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from zarr.abc.store import Store

from mdico_cube.cube.change import changing
from mdico_cube.cube.claims import Claims, holds
from mdico_cube.cube.execute import Crew, crew_for, execute
from mdico_cube.cube.job import Built, Job, Key, digest_of, shard_job
from mdico_cube.cube.ledger import DONE, Ledger
from mdico_cube.cube.plan import BuildPlan
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.target import Location, Target, is_icechunk
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_job import run_weather
from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError, some
from mdico_cube.progress import Meter, meter, say
from mdico_cube.recipe import ClusterSection


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The one function of every build: a key in, its shard on disk. The plan is loaded once per worker process."""

    run: Callable[[Target, Job, int, Callable[[], bool], bool], Built]
    """Computes and writes one shard, if what it is given last still says True just before."""
    cube: Location
    builder: str
    """Name of the builder, and of the plan in the cube's work folder."""
    threads: int
    """Files read at once."""
    durable: bool = True
    """Wait until a shard is on the disk before it is recorded."""
    target: Store | None = None
    """Where to write, if not straight into the cube: a commit that other processes share."""

    def __call__(self, key: Key) -> Built:
        """Build one shard, or one coarse modality."""
        work, target = WorkFolder(self.cube), self.cube if self.target is None else self.target
        plan = _plan(self.cube, self.builder)
        layer = plan.layer(key.modality)
        standing = partial(holds, work, self.builder, key.name, key.claim)
        if isinstance(layer, WeatherPlan):
            built = run_weather(target, layer, plan.geobox, standing, self.durable)
        else:
            built = self.run(target, shard_job(plan, layer, key), self.threads, standing, self.durable)
        return replace(built, target=self.target)


def run_jobs(
    path: Location,
    plan: BuildPlan,
    keys: Sequence[Key],
    make_task: Callable[[str], ShardTask],
    cluster: ClusterSection,
    claims: Claims,
    commit: int = 64,
) -> None:
    """Do the jobs on the recipe's crew; a shard that another builder has in hand is left to it.

    An icechunk repository takes `commit` shards at once.

    Raises:
        MdicoError: some shards could not be built (the others are kept), or the store or the cluster failed.
    """
    if not keys:
        return
    tally = _Tally()
    with meter("build", len(keys)) as gauge:
        try:
            with ExitStack() as stack:
                crew = stack.enter_context(crew_for(cluster))
                if crew.here:
                    _PLANS[claims.name] = plan
                    stack.callback(_PLANS.pop, claims.name, None)
                else:
                    claims.work.write(f"plan/{claims.name}", dump_plan(plan))
                for wave in _waves(path, keys, commit):
                    _do_wave(path, plan, wave, make_task(claims.name), crew, claims, gauge, tally)
        except KeyboardInterrupt:  # also while the workers start or stop
            say(f"build: {gauge.done - gauge.failed} of {len(keys)} shards are finished and kept")
            raise
    tally.tell(len(keys))


def _waves(path: Location, keys: Sequence[Key], commit: int) -> Iterator[Sequence[Key]]:
    """All jobs at once, or so many as make one commit."""
    size = commit if is_icechunk(path) else len(keys)
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _do_wave(
    path: Location,
    plan: BuildPlan,
    keys: Sequence[Key],
    task: ShardTask,
    crew: Crew,
    claims: Claims,
    gauge: Meter,
    tally: _Tally,
) -> None:
    """Jobs whose results count together: claims are given back when they do."""
    done: list[Key] = []
    with changing(path, some(len(keys), "shard"), partial=True) as change:
        if is_icechunk(path):
            store = change.target if crew.here else change.away()
            assert isinstance(store, Store)
            task = replace(task, target=store)
        for key, built in execute(crew, task, _claimed(path, plan, keys, claims, gauge.add)):
            if built.target is not None and not crew.here:
                change.merge(built.target)
            gauge.add(built.bytes_written, bool(built.error))
            tally.add(built)
            if is_icechunk(path):
                done.append(key)
            else:
                claims.release(key.name, key.claim)
    for key in done:
        claims.release(key.name, key.claim)


class _Tally:
    """What became of the jobs of one build."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.gaps: list[int] = []
        self.elsewhere: set[str] = set()
        self.notes: dict[str, int] = {}
        self.lost = 0

    def add(self, built: Built) -> None:
        """Count one job, pass on its notes."""
        self.failed += [built.error] if built.error else []
        self.gaps += [built.failed_reads] if built.failed_reads else []
        self.elsewhere.update(built.stand_ins)
        self.lost += built.lost
        for note in built.notes:  # the first of each modality; a large region would say the same a thousand times
            about = note.partition(":")[0]
            self.notes[about] = self.notes.get(about, 0) + 1
            if self.notes[about] == 1:
                say(note)

    def tell(self, total: int) -> None:
        """Say how it went; raise MdicoError when some shards could not be built."""
        if self.lost:
            say(f"build: {self.lost} shards were taken over by another builder; go on with --resume should it stop")
        for about, count in self.notes.items():
            if count > 1:
                say(f"{about}: so it is in {count - 1} more shards; `mdico inspect` lists every item")
        if self.elsewhere:
            say(f"{some(len(self.elsewhere), 'scene')} read from another catalog: `mdico inspect` lists them.")
        if self.gaps:
            say(
                f"{len(self.gaps)} of {total} shards have gaps: {some(sum(self.gaps), 'read')} failed for good. "
                "`mdico inspect` lists them; --resume tries them again."
            )
        if self.failed:
            kept = ", the others are kept" if len(self.failed) < total else ""
            raise MdicoError(f"{len(self.failed)} of {total} shards could not be built{kept}. {self.failed[0]}")


def _claimed(
    path: Location, plan: BuildPlan, keys: Sequence[Key], claims: Claims, skip: Callable[[], None]
) -> Iterator[Key | None]:
    """The jobs with this builder's claim; None while all that are left are in the hands of other builders."""
    ledgers = {layer.modality.name: Ledger(path, layer.modality.name) for layer in plan.every}
    waiting, refused = deque(keys), 0
    while waiting:
        key = waiting.popleft()
        number = claims.take(key.name)
        if number is None:
            waiting.append(key)
            refused += 1
            if refused >= len(waiting):
                refused = 0
                yield None
            continue
        refused = 0
        entry = ledgers[key.modality].read(key.row, key.column)
        if entry.state == DONE and entry.digest == digest_of(plan, key):  # another builder did it meanwhile
            claims.release(key.name, number)
            skip()
            continue
        yield replace(key, claim=number)


_PLANS: dict[str, BuildPlan] = {}
"""Plans this process knows, by builder."""


def _plan(cube: Location, name: str) -> BuildPlan:
    """A builder's plan, read from the cube's work folder when this process meets it first."""
    if name not in _PLANS:
        text = WorkFolder(cube).read(f"plan/{name}")
        if text is None:
            raise MdicoError(f"{cube}: the build that this job belongs to has ended.")
        _PLANS[name] = load_plan(text)
    return _PLANS[name]
