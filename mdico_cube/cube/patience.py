"""One read that may fail in; its result out after as many tries as its fault deserves, so many at a time per host."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from mdico_cube.cube.access import Access, Reach
from mdico_cube.cube.address import host_of
from mdico_cube.cube.faults import Fault, judge, look
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection

T = TypeVar("T")
_LONGEST = 60.0
"""Seconds: no pause is longer."""
_FAILED: set[str] = set()
"""Addresses whose last read failed: GDAL remembers that, and must be told to look again."""
_SAID: set[str] = set()
"""Sentences about refused credentials that this process has said already."""


class ReadError(Exception):
    """A read that failed for good."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


def persist(
    read: Callable[[Reach, bool], T], address: str, access: Access, reading: ReadSection, patient: bool = True
) -> T:
    """Read a file, again and again while its fault may pass.

    A refused signature is renewed and tried once more at once; a passing fault is waited out with pauses that double.

    Args:
        read: (how it is reached now, whether this is another try) -> what was read; raises GDAL's errors.
        address: where the asset is, unsigned.
        access: how the catalog's files are reached.
        reading: how long to go on.
        patient: False gives up at the first passing fault.

    Raises:
        ReadError: it failed for good.
        MdicoError: a secret is missing, so that no read of this kind can work.
    """
    host = host_of(address)
    waits = iter(pauses(reading) if patient else ())
    newer, again = 0.0, address in _FAILED
    while True:
        began = time.monotonic()
        try:
            with _slot(host, reading.per_host):
                result = read(access.reach(address, reading, newer), again)
            _FAILED.discard(address)
            return result
        except MdicoError:
            raise
        except Exception as error:  # GDAL, network and signing errors have no common class
            fault = _judged(error, address, access, reading, newer)
        again = True
        if fault.kind == "refused" and newer == 0.0:
            newer = began
            continue
        pause = next(waits, None) if fault.kind == "passing" else None
        if pause is None:
            if fault.kind == "refused":
                fault = Fault("refused", f"{fault.text}: the credentials are refused. {access.hint(address)}")
                _say_once(f"{host}: {fault.text}")
            _FAILED.add(address)
            raise ReadError(fault) from None
        time.sleep(pause)


def _judged(error: Exception, address: str, access: Access, reading: ReadSection, newer: float) -> Fault:
    """What an error means; a web server is asked where GDAL does not say."""
    host = host_of(address)
    fault = judge(error, bool(host))
    asked = fault.kind in ("no raster", "passing", "missing")  # a file that GDAL waited for in vain is "missing" too
    if not host.startswith("http") or not asked or "HTTP" in fault.text:
        return fault
    reach = access.reach(address, reading, newer)
    text = "it could not be opened in time" if fault.kind == "missing" else fault.text
    return look(reach.path.removeprefix("/vsicurl/"), reach.headers, reading.timeout) or Fault("passing", text)


def pauses(reading: ReadSection) -> Iterator[float]:
    """Seconds to wait before each further try."""
    for attempt in range(reading.retries):
        yield min(_LONGEST, reading.backoff * 2**attempt) * random.uniform(0.5, 1)


@contextmanager
def _slot(host: str, places: int) -> Iterator[None]:
    """Wait for one of a host's places; local files need none."""
    if not host:
        yield
        return
    with _places(host, places):
        yield


@cache
def _places(host: str, places: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(places)


def _say_once(sentence: str) -> None:
    if sentence not in _SAID:
        _SAID.add(sentence)
        say(sentence)
