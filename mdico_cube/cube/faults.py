"""What went wrong with a read in; whether waiting, signing again or nothing mends it out, in words without secrets."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mdico_cube.cube.address import plain

Kind = Literal["passing", "refused", "missing", "no raster", "broken"]
"""passing = try again later; refused = sign again; the others stay as they are."""
_STATUS = re.compile(r"(?:response[_ ]code|HTTP error code|HTTP status)\s*[:=]?\s*(\d{3})")
_MISSING = ("does not exist", "no such file", "nosuchkey", "specified key does not exist", "404")
_REFUSED = ("access denied", "accessdenied", "forbidden", "invalidaccesskey", "signature", "expired", "invalid credent")
_CUT = re.compile(r"got \d+ bytes, expected \d+")
_RASTERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""First bytes of TIFF, BigTIFF and JPEG 2000."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file was not read."""

    kind: Kind
    text: str
    """What was met, in a few words without secrets."""


def judge(error: Exception, remote: bool) -> Fault:
    """What a GDAL error means.

    GDAL passes on the status of a file's first request only; a later one shows as a file that is no raster or that
    ends too early, and `look` must tell.
    """
    texts = _texts(error)
    text = plain(texts[-1])
    whole = " ".join(texts)
    found = _STATUS.search(whole)
    if found:
        return Fault(judge_status(int(found[1])), text)
    if "not recognized as being in a supported file format" in whole:
        return Fault("no raster", "it is no GeoTIFF and no JPEG 2000 file")
    low = whole.lower()
    if any(word in low for word in _MISSING):
        return Fault("missing", text)
    if any(word in low for word in _REFUSED):
        return Fault("refused", text)
    return Fault("passing" if remote else "broken", "its bytes break off early" if _CUT.search(whole) else text)


def judge_status(status: int) -> Kind:
    """What an HTTP status means for whoever wants the file."""
    if status in (401, 403):
        return "refused"
    if status in (404, 410):
        return "missing"
    return "passing" if status in (408, 409, 425, 429) or status >= 500 else "broken"


def look(address: str, headers: Mapping[str, str], timeout: float) -> Fault | None:
    """Ask a web server for the first bytes of a file that GDAL could not read; None where they are a raster's.

    Args:
        address: http(s) address, signed.
        headers: to send along.
        timeout: seconds.
    """
    request = urllib.request.Request(address.split("#")[0], headers={**headers, "Range": "bytes=0-15"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            start = answer.read(16)
    except urllib.error.HTTPError as error:
        error.close()
        return Fault(judge_status(error.code), f"HTTP response code: {error.code}")
    except (OSError, ValueError) as error:
        return Fault("passing", plain(error))
    if start.startswith(_RASTERS):
        return None
    if len(start) < 12:
        return Fault("passing", "the server's answer breaks off")
    return Fault("no raster", "it is no GeoTIFF and no JPEG 2000 file")


def _texts(error: BaseException) -> list[str]:
    """First lines of an error and of what caused it, the cause last."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append((str(seen).splitlines() or [type(seen).__name__])[0])
        seen = seen.__cause__
    return texts
