"""An address in, an S3 store or an icechunk repository out; credentials come from the environment and stay there."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zarr.abc.store import Store
from zarr.storage import ObjectStore

from mdico_cube.errors import MdicoError

_QUERY = re.compile(r"\?\S+")
_YES = ("1", "true", "yes", "on")


class reaching:  # noqa: N801 - reads as a phrase: with reaching(address)
    """Turn a fault of a remote store into one sentence that names the address, without a query string."""

    def __init__(self, address: object) -> None:
        self.address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and is_remote_fault(error):
            raise MdicoError(
                f"{self.address}: cannot be reached ({fault_text(error)}). "
                "Check the address and the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, "
                "AWS_ENDPOINT_URL, or AWS_NO_SIGN_REQUEST=YES for public buckets."
            ) from error


def is_remote_fault(error: BaseException) -> bool:
    """True for what obstore and icechunk raise; neither needs to be installed to ask."""
    return type(error).__module__.partition(".")[0] in ("obstore", "icechunk", "_icechunk_python")


def fault_text(error: BaseException) -> str:
    """The first line of a fault, without any query string."""
    lines = [line.strip(" |x") for line in str(error).splitlines() if line.strip(" |x")]
    return _QUERY.sub("", (lines or [type(error).__name__])[0])[:300]


def _environment() -> dict[str, str]:
    """What the environment says of S3, by the names that are in common use."""
    found = {
        "endpoint": os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT", ""),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        "key": os.environ.get("AWS_ACCESS_KEY_ID", ""),
        "unsigned": "yes" if _is_set("AWS_NO_SIGN_REQUEST") or _is_set("AWS_SKIP_SIGNATURE") else "",
    }
    return {name: value for name, value in found.items() if value}


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _YES


def object_store(address: str, read_only: bool) -> Store:
    """The Zarr store of s3://bucket/prefix.

    Raises:
        MdicoError: obstore is not installed.
    """
    return _object_store(address, tuple(sorted(_environment().items()))).with_read_only(read_only)


@lru_cache(maxsize=32)
def _object_store(address: str, environment: tuple[tuple[str, str], ...]) -> ObjectStore[Any]:
    """One client per address, so that its connections are used again; obstore finds the secrets by itself."""
    try:
        library = import_module("obstore.store")
    except ImportError as error:
        raise MdicoError(f"{address}: needs the package obstore: pip install 'mdico-cube[s3]'.") from error
    parts, facts = urlsplit(address), dict(environment)
    options: dict[str, Any] = {"region": facts["region"]}
    if "endpoint" in facts:
        options |= {"endpoint": facts["endpoint"], "virtual_hosted_style_request": False}
    if "unsigned" in facts:
        options["skip_signature"] = True
    with reaching(address):
        store = library.S3Store(
            parts.netloc,
            prefix=parts.path.strip("/"),
            client_options={"allow_http": facts.get("endpoint", "").startswith("http://")},
            retry_config={"max_retries": 5},
            **options,
        )
    return ObjectStore(store)


def _icechunk(address: str) -> Any:
    try:
        library = import_module("icechunk")
    except ImportError as error:
        raise MdicoError(f"{address}: needs the package icechunk: pip install 'mdico-cube[icechunk]'.") from error
    library.set_logs_filter("icechunk=error")  # it warns of concurrent commits to a folder: see docs/store.md
    return library


def _storage(address: str) -> Any:
    library, parts, facts = _icechunk(address), urlsplit(address), _environment()
    if parts.scheme == "icechunk+file":
        return library.local_filesystem_storage(str(Path(parts.path)))
    endpoint = facts.get("endpoint")
    signed: dict[str, Any] = {"anonymous": True} if "unsigned" in facts else {"from_env": True}
    return library.s3_storage(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        region=facts["region"],
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        **signed,
    )


def icechunk_stands(address: str) -> bool:
    """True where an icechunk repository lies.

    Raises:
        MdicoError: icechunk is not installed, or the place cannot be reached.
    """
    with reaching(address):
        return bool(_icechunk(address).Repository.exists(_storage(address)))


def icechunk_repository(address: str, create: bool = False) -> Any:
    """The repository at an address; with `create`, a new one where none lies.

    Raises:
        MdicoError: icechunk is not installed, or there is no repository.
    """
    library = _icechunk(address)
    if not create and not icechunk_stands(address):
        raise MdicoError(f"{address}: is no cube (no icechunk repository there). Build one with `mdico build`.")
    with reaching(address):
        found = library.Repository
        return found.open_or_create(_storage(address)) if create else found.open(_storage(address))


def conflict_solver(address: str) -> Any:
    """What lets a commit go through beside another one.

    Chunks that both wrote are taken from the later commit: builders of one plan write the same pixels and entries.
    """
    library = _icechunk(address)
    return library.BasicConflictSolver(on_chunk_conflict=library.VersionSelection.UseOurs)
