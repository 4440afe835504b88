"""Windows that a block needs in, their scores out: what a neighbouring block computed is not computed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mdico_cube.spec import Floats

Place = tuple[int, int]
"""First row and column of a window in the cube; negative at its edges."""
Compute = Callable[[Sequence[Place]], Iterator[Floats]]
"""Windows to their scores (F, S, S), in order."""
BYTES = 256 << 20
"""Most that one cache keeps: a few hundred windows of 256 pixels and ten classes."""


@dataclass
class Windows:
    """Scores of the windows of one model over one cube, the latest ones, for the threads of one process.

    A window's scores follow from its place alone, so a block that takes them from here gets the same bits.
    """

    most: int = 0
    """Bytes; 0 keeps nothing."""
    _kept: OrderedDict[Place, Floats] = field(default_factory=OrderedDict, repr=False)
    _at_work: dict[Place, threading.Event] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _bytes: int = 0

    def scores(self, places: Sequence[Place], compute: Compute) -> Iterator[tuple[Place, Floats]]:
        """Each window with its scores, in the order of `places`; what another thread is computing is waited for.

        All windows that this thread has to compute are done before it waits, so that no two wait for each other.
        """
        if not self.most:
            yield from zip(places, compute(places), strict=True)
            return
        held, mine = self._claim(places)
        left = list(mine)
        try:
            for place, found in zip(mine, compute(mine), strict=True):
                held[place] = found
                self._keep(place, found)
                self._release(left.pop(0))
        finally:
            for place in left:
                self._release(place)
        for place in places:
            known = held.pop(place, None)
            yield place, self._awaited(place, compute) if known is None else known

    def _claim(self, places: Sequence[Place]) -> tuple[dict[Place, Floats], list[Place]]:
        """What is known already, and what is left to this thread: all at once, so that each window has one thread."""
        with self._lock:
            held = {place: self._kept[place] for place in places if place in self._kept}
            mine = [place for place in places if place not in held and place not in self._at_work]
            self._at_work |= {place: threading.Event() for place in mine}
            for place in held:
                self._kept.move_to_end(place)
            return held, mine

    def _awaited(self, place: Place, compute: Compute) -> Floats:
        with self._lock:
            work = self._at_work.get(place)
        if work is not None:
            work.wait()
        with self._lock:
            found = self._kept.get(place)
        return next(compute([place])) if found is None else found  # it failed there, or had to make room

    def _keep(self, place: Place, found: Floats) -> None:
        with self._lock:
            self._kept[place] = found
            self._bytes += found.nbytes
            while self._bytes > self.most:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _release(self, place: Place) -> None:
        with self._lock:
            work = self._at_work.pop(place, None)
        if work is not None:
            work.set()
