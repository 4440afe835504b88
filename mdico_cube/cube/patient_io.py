"""A catalog's page in, its text out: asked again while the server is busy, and never a file of this machine."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import urlparse

import pystac
from pystac.stac_io import DefaultStacIO
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from mdico_cube.cube.address import is_remote, plain, shown
from mdico_cube.cube.faults import judge_status
from mdico_cube.cube.links import whole
from mdico_cube.cube.patience import pauses
from mdico_cube.errors import MdicoError
from mdico_cube.progress import say
from mdico_cube.recipe import ReadSection

_TOLD = 2.0  # seconds of a pause that a person is told of
_REASON = re.compile(r"\[Errno -?\d+\] ([^'\")\]]+)")


class PatientIO(StacApiIO):
    """How pystac and pystac-client read the pages of one catalog, static or an API."""

    def __init__(self, href: str, reading: ReadSection, hasty: bool = False) -> None:
        """Read pages of the catalog at `href`; `hasty` gives up at once where an answer takes too long."""
        super().__init__(timeout=reading.timeout, max_retries=None)
        self._remote, self._reading, self._hasty = is_remote(href), reading, hasty

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """The text of a page.

        Raises:
            MdicoError: a remote catalog links to a file of this machine.
            APIError: the server does not give it.
        """
        href = str(getattr(source, "href", source))
        if urlparse(href).scheme.lower() in ("http", "https"):
            return str(super().read_text(source, *args, **kwargs))
        if self._remote:
            raise MdicoError(
                f"the catalog links to {shown(href)}, which a remote catalog may not ask for. "
                "Only http(s) links are followed from the web."
            )
        return str(DefaultStacIO.read_text(self, source, *args, **kwargs))

    def request(self, *args: Any, **kwargs: Any) -> str:
        """One page over the network, asked for again after passing faults."""
        waits = pauses(self._reading)
        while True:
            try:
                return str(super().request(*args, **kwargs))
            except APIError as error:
                pause = next(waits, None)
                status = status_of(error)
                lasting = not is_text(error) or (status is not None and judge_status(status) != "passing")
                if pause is None or lasting or (self._hasty and too_slow(error)):
                    raise
                if pause >= _TOLD:
                    asked = shown(str(getattr(args[0], "href", args[0])))
                    say(f"catalog {asked}: does not answer ({told(error)}), asked again in {pause:.0f} s")
            time.sleep(pause)


class StaticIO(PatientIO):
    """The same for static catalogs: plain pystac objects instead of clients."""

    def stac_object_from_dict(self, d: dict[str, Any], *args: Any, **kwargs: Any) -> pystac.STACObject:
        """The catalog, collection or item that a text describes; see `whole`."""
        return DefaultStacIO.stac_object_from_dict(self, whole(d), *args, **kwargs)


def status_of(error: APIError) -> int | None:
    """The server's answer, or None where it gave none: the error of a lost connection has no such attribute at all."""
    status: int | None = getattr(error, "status_code", None)
    return status


def is_text(error: BaseException) -> bool:
    """False where a server answered with something else than text."""
    return not isinstance(error.__context__, UnicodeDecodeError)


def told(error: BaseException) -> str:
    """What went wrong with a page, in a few words without secrets."""
    status, text = getattr(error, "status_code", None), plain(error)
    reason = _REASON.search(text)  # the network's own, in the midst of the names of Python's classes
    return (reason[1] if reason else text) or (f"HTTP status {status}" if status else type(error).__name__)


def too_slow(error: APIError) -> bool:
    """True where a server was there, but took too long for its answer."""
    return status_of(error) == 504 or "read timed out" in str(error).lower()
