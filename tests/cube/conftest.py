"""Places where a cube can lie: a folder, an S3 bucket on loopback, icechunk repositories on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from s3_server import BUCKET, s3_server

from mdico_cube.cube.target import Location

_NUMBERS = count()


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of our own in a running S3 service that the environment leads to."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{next(_NUMBERS)}"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Location]:
    """Kind -> a free place of that kind."""

    def make(kind: str) -> Location:
        if kind == "folder":
            return tmp_path / "cube.zarr"
        if kind == "icechunk":
            return f"icechunk+file://{tmp_path}/cube.icechunk"
        address = request.getfixturevalue("s3")
        return f"{address}/cube.zarr" if kind == "s3" else f"icechunk+{address}/cube.icechunk"

    return make
