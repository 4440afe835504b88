"""No two builders hold one shard, whoever dies and whatever the clocks say."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mdico_cube.cube import claims as claims_module
from mdico_cube.cube.claims import Claims, holds
from mdico_cube.cube.target import Location
from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "cube.zarr")


def stranger(work: WorkFolder, name: str, beats: int = 1, plan: str = "p") -> None:
    """A builder on another machine that says it lives."""
    facts = {"plan": plan, "machine": "elsewhere/1/1", "pid": 1, "born": "1", "beats": beats}
    work.write(f"builders/{name}", json.dumps(facts).encode())


def test_a_claim_is_held_by_one(work: WorkFolder, tmp_path: Path) -> None:
    with Claims(work, "p") as one, Claims(work, "p") as other:
        assert one.take("s2.0.0") == 0
        assert other.take("s2.0.0") is None
        assert one.take("s2.0.0") is None, "not twice either"
        one.release("s2.0.0", 0)
        assert other.take("s2.0.0") == 0
        assert holds(work, other.name, "s2.0.0", 0)
    assert not (tmp_path / ".cube.zarr.work").exists(), "the last one clears up"


@pytest.mark.parametrize(("kind", "builders", "shards"), [("folder", 6, 30), ("s3", 4, 5)])
def test_many_threads_never_share_a_claim(
    place: Callable[[str], Location], kind: str, builders: int, shards: int
) -> None:
    got: Counter[str] = Counter()
    gate, cube = threading.Barrier(builders), place(kind)

    def builder() -> None:
        with Claims(WorkFolder(cube), "p") as mine:
            gate.wait()
            for shard in range(shards):
                if mine.take(f"s.0.{shard}") is not None:
                    got[f"s.0.{shard}"] += 1
            gate.wait()

    threads = [threading.Thread(target=builder) for _ in range(builders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == Counter({f"s.0.{shard}": 1 for shard in range(shards)})


def test_another_recipe_is_refused_while_a_build_lives(work: WorkFolder) -> None:
    with Claims(work, "p"):
        with pytest.raises(MdicoError, match=r"another recipe is at work.*Wait until it is done"), Claims(work, "q"):
            pass
        assert len(work.names("builders")) == 1
    with Claims(work, "q"):
        pass


def test_a_dead_process_holds_nothing(work: WorkFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Claims(work, "q")
    dead._facts |= {"born": "long ago"}
    dead._beat()
    assert dead.take("s.0.0") == 0
    with Claims(work, "p") as one, Claims(work, "p") as other:
        assert one.take("s.0.0") == 1
        assert other.take("s.0.0") is None
        assert not holds(work, dead.name, "s.0.0", 0), "a builder that was overruled must not write"
        dead.release("s.0.0", 0)
        assert holds(work, one.name, "s.0.0", 1)
        one.release("s.0.0", 1)
        assert other.take("s.0.0") == 0


def test_only_one_overrules_a_dead_builder(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "c.zarr")
    work.write("claims/s.0.0~0", b"dead")
    got, gate = [], threading.Barrier(8)

    def builder() -> None:
        with Claims(WorkFolder(tmp_path / "c.zarr"), "p") as mine:
            gate.wait()
            got.append(mine.take("s.0.0"))
            gate.wait()

    threads = [threading.Thread(target=builder) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=str) == [1] + [None] * 7


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_builder_elsewhere_lives_by_its_beats_not_by_clocks(
    work: WorkFolder, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims_module.time, "time", lambda: 1e9 + jump * now[0])
    stranger(work, "far")
    work.write("claims/s.0.0~0", b"far")
    with Claims(work, "p", lease=1000) as mine:
        for beats in (2, 3, 4):
            assert mine.take("s.0.0") is None
            now[0] += 900
            stranger(work, "far", beats)
        assert mine.take("s.0.0") is None
        now[0] += 999
        assert mine.take("s.0.0") is None
        now[0] += 2
        assert mine.take("s.0.0") == 1, "a lease without a beat"


def test_a_builder_gives_signs_of_life(work: WorkFolder) -> None:
    with Claims(work, "p", lease=0.06) as mine:
        for _ in range(200):
            if json.loads(work.read(f"builders/{mine.name}") or b"{}")["beats"] > 3:
                return
            time.sleep(0.02)
    pytest.fail("no beat")
