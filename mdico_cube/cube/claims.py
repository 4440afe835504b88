"""Builders of one cube in, each shard to one of them out: claims that no two hold, and that die with their builder."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from mdico_cube.cube.work import WorkFolder
from mdico_cube.errors import MdicoError

LEASE = 60.0
"""Seconds without a sign of life after which a builder on another machine counts as dead."""
_POLL = 0.5


class Claims:
    """One builder among those of a cube: enter it, take shards, release them.

    A claim is a file that only one can create. A claim of a dead builder is overruled by creating the file with the
    next number, which again only one can do; the highest number holds. A builder on this machine is dead when its
    process is gone; one elsewhere when its counter has not moved for a lease of the observer's own time, so that no
    clock matters.
    """

    def __init__(self, work: WorkFolder, plan: str, lease: float = LEASE) -> None:
        self.name = uuid4().hex
        self.work, self._lease = work, lease
        self._facts: dict[str, Any] = {"plan": plan, "machine": _machine(), "pid": os.getpid(), "born": _born()}
        self._beats = 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Claims:
        """Announce the builder.

        Raises:
            MdicoError: another builder is at work on this cube from another plan.
        """
        self._beat()
        self._heart.start()
        try:
            self._check_plan()
        except MdicoError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Sign off; the last one clears the folder."""
        self._stop.set()
        self._heart.join()
        try:
            self.work.delete(f"builders/{self.name}")
            if not self.others():
                self.work.clear()
        except MdicoError:
            pass  # a disk that fails here has failed the build before; what is left is cleared by the next builder

    def take(self, thing: str) -> int | None:
        """The number of the claim where this builder got it; None where a living one has it."""
        number = 0
        while (holder := self.work.read(_path(thing, number))) is not None:
            number += 1
            last = holder.decode()
        if number and (last == self.name or self._lives(last)):
            return None
        return number if self.work.create(_path(thing, number), self.name.encode()) else None

    def release(self, thing: str, number: int) -> None:
        """Give a claim back, unless it was overruled."""
        if holds(self.work, self.name, thing, number):
            for each in range(number + 1):
                self.work.delete(_path(thing, each))

    @contextmanager
    def holding(self, thing: str) -> Iterator[None]:
        """Wait for a claim, hold it for a while."""
        while (number := self.take(thing)) is None:
            time.sleep(_POLL)
        try:
            yield
        finally:
            self.release(thing, number)

    def others(self) -> list[dict[str, Any]]:
        """Living builders beside this one."""
        names = [name for name in self.work.names("builders") if name != self.name]
        return [facts for name in names if (facts := self._read(name)) is not None and self._lives(name)]

    def _check_plan(self) -> None:
        for other in self.others():
            if other["plan"] != self._facts["plan"]:
                raise MdicoError(
                    f"another build from another recipe is at work on this cube (process {other['pid']} on "
                    f"{other['machine'].split('/')[0]}). Wait until it is done, or stop it."
                )

    def _lives(self, name: str) -> bool:
        facts = self._read(name)
        if facts is None:
            return False
        if facts["machine"] == self._facts["machine"]:
            return bool(_born(facts["pid"]) == facts["born"])
        now = time.monotonic()
        beats, since = self._seen.get(name, (-1, now))
        if beats != facts["beats"]:
            self._seen[name] = (facts["beats"], now)
            return True
        return now - since < self._lease

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self.work.read(f"builders/{name}")
        return None if text is None else dict(json.loads(text))

    def _beat(self) -> None:
        self._beats += 1
        self.work.write(f"builders/{self.name}", json.dumps({**self._facts, "beats": self._beats}).encode())

    def _beat_on(self) -> None:
        while not self._stop.wait(self._lease / 6):
            try:
                self._beat()
            except MdicoError:
                continue  # a full disk: the others may take over, and the claims are checked before every write


def holds(work: WorkFolder, builder: str, thing: str, number: int) -> bool:
    """True while a builder's claim stands: asked by whoever does the work just before it writes."""
    mine = work.read(_path(thing, number))
    return mine is not None and mine.decode() == builder and work.read(_path(thing, number + 1)) is None


def _path(thing: str, number: int) -> str:
    return f"claims/{thing}~{number}"


def _machine() -> str:
    """This machine, start and process table: where process numbers mean the same."""
    return "/".join((platform.node(), _first(Path("/proc/sys/kernel/random/boot_id")), _namespace()))


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _born(pid: int | None = None) -> str:
    """When a process started, as its machine counts; empty where it is gone. It tells a reused number apart."""
    pid = os.getpid() if pid is None else pid
    stat = _first(Path(f"/proc/{pid}/stat"))
    if stat:
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "lives"


def _first(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
