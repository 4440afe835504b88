"""An asset's address in; whether it may be read, how GDAL spells it, and what of it may be shown out."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

REMOTE = ("http", "https", "s3", "gs", "az", "abfs")
"""Schemes that a remote catalog may use."""
_VSI = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/"}
_VSI |= {"az": "/vsiaz/", "abfs": "/vsiaz/"}
_QUERY = re.compile(r"\?[^\s'\")>]*")
_CAUSE = re.compile(r"\(Caused by \w+\((.*)\)\)", re.DOTALL)
_CONNECTION = re.compile(r"^<?[\w.]*HTTPS?Connection(?:Pool)?(?:\([^)]*\)| object at \w+>)(?: at \w+>)?(?:, |: )")
_PREFIX = re.compile(r"\w[\w+.-]+:")  # longer than a drive's letter
_STRANGE = re.compile(r"[\x00-\x20\x7f<>\\]")


def is_remote(address: str) -> bool:
    """True for what is read over a network."""
    return urlsplit(address).scheme.lower() in REMOTE


def is_plain(address: str, remote: bool) -> bool:
    """True for the address of one plain file that may be read.

    A remote catalog must not make us read this machine's files, nor open one dressed up as another: GDAL would follow
    /vsi... prefixes, "scheme:" prefixes of its drivers and VRT files to anywhere.

    Args:
        address: where an asset is said to be.
        remote: the catalog itself came over a network.
    """
    bare = unquote(unquote(address)).strip()
    name = bare.split("?")[0].lower()
    if bare.startswith(("/vsi", "<")) or "/vsi" in name.split("://")[0] or name.endswith(".vrt"):
        return False
    scheme = urlsplit(address).scheme.lower()
    if scheme in REMOTE:
        return _STRANGE.search(address) is None and bool(urlsplit(address).netloc)
    return not remote and (scheme == "file" or _PREFIX.match(address) is None)


def placed(address: str, catalog: str) -> str:
    """Where an asset is, from the folder of its static catalog on where it lies below it: the same after a move.

    Args:
        address: of the asset.
        catalog: address of the catalog.json; an API's has no folder.
    """
    folder, _, name = catalog.rpartition("/")
    below = folder and name.endswith(".json") and address.startswith(f"{folder}/")
    return address.removeprefix(f"{folder}/") if below else address


def host_of(address: str) -> str:
    """The machine, bucket or account that is asked for a file; "" for a local one."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme.lower() in REMOTE else ""


def gdal_path(address: str) -> str:
    """How GDAL spells an address that `is_plain`."""
    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    if scheme in _VSI:
        return _VSI[scheme] + address.split("://", 1)[1]
    return str(Path(unquote(parts.path))) if scheme == "file" else address


def shown(address: str) -> str:
    """An address without its query, where signatures live, and without a user's name and password."""
    return re.sub(r"://[^/@]*@", "://", address.split("?")[0].split("#")[0])


def plain(error: object) -> str:
    """A text without the queries of the addresses in it; of a lost connection only the innermost reason."""
    text = str(error)
    cause = _CAUSE.search(text)
    if cause:
        text = _CONNECTION.sub("", _CONNECTION.sub("", cause[1]).strip("\"'"))
    return re.sub(r"://[^/@\s]*@", "://", _QUERY.sub("", text))


def hush(*loggers: str) -> None:
    """Take the queries out of what these loggers, and those below them that exist, say at any level."""
    for name in loggers:
        logging.getLogger(name)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and f"{name}.".startswith(tuple(f"{one}." for one in loggers)):
            logger.addFilter(_without_queries)


def _without_queries(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if "?" in text:
        record.msg, record.args = plain(text), ()
    return True
