"""Servers of the tests on loopback: files by ranges over HTTP with faults by seed, and an S3 service."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

PASSING = ("503", "429", "500", "cut", "short", "reset")
"""Faults that a reader should wait out."""


@dataclass
class Faults:
    """Which requests for a file go wrong, and how."""

    share: float = 0.0
    """Of the requests, drawn by seed, path and how often that path was asked for."""
    kinds: tuple[str, ...] = ("503",)
    seed: int = 0
    in_a_row: int = 3
    """At most this many faults of one file follow each other."""
    among: tuple[str, ...] = (".tif", ".zarr/")
    """Parts of the paths that are disturbed, and shown for the secret only."""
    paths: dict[str, str] = field(default_factory=dict)
    """Part of a path -> what every request for it gets: a status, or a redirect's target after "to "."""


class Loopback:
    """Some routes on a port of their own, served by a thread while the context lasts."""

    def __init__(self, *routes: Route) -> None:
        room = uuid4().hex[:8]  # GDAL remembers addresses, and ports come back
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/{room}"
        app = Starlette(routes=[Mount(f"/{room}", routes=list(routes))])
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


class FileServer(Loopback):
    """A folder, or several, on a port of its own. Each answer can be disturbed; each request is remembered."""

    def __init__(self, *roots: Path) -> None:
        self.roots, self.faults = roots, Faults()
        self.asked: list[tuple[str, str]] = []
        self.secret: str | None = None
        """What files are shown for: ?sig=..., or a bearer; None = to anyone."""
        self.expire_after = 0
        """Files shown before the secret changes; 0 = it never does."""
        self.tokens = 0
        """Tokens handed out."""
        self.stingy = False
        """Hand out tokens that open nothing."""
        self.most = 0
        """Requests for files at once, at most."""
        self.struck = 0
        """Requests that were disturbed by chance."""
        self._now, self._shown, self._counts, self._row = 0, 0, Counter[str](), Counter[str]()
        super().__init__(
            Route("/token", self._token, methods=["GET", "POST"]),
            Route("/{path:path}", self._file, methods=["GET", "HEAD"]),
        )

    def count(self, part: str) -> int:
        """Requests for paths that contain a text."""
        return sum(part in path for _, path in self.asked)

    def mend(self) -> None:
        """Disturb nothing any more, and forget what was asked."""
        self.faults = Faults()
        self.asked.clear()

    async def _token(self, request: Request) -> Response:
        self.tokens += 1
        return JSONResponse({"token": "worthless" if self.stingy else self.secret, "expires_in": 3600})

    async def _file(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append((request.method, path))
        if not any(part in path for part in self.faults.among):
            return self._answer(path)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await self._disturbed(request, path)
        finally:
            self._now -= 1

    async def _disturbed(self, request: Request, path: str) -> Response:
        await asyncio.sleep(0.001)
        given = request.query_params.get("sig") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.secret is not None and given != self.secret:
            return Response(f"no {given}", 403)
        self._shown += 1
        if self.secret is not None and self.expire_after and self._shown % self.expire_after == 0:
            self.secret = f"{self.secret}'"
        kind = next((kind for part, kind in self.faults.paths.items() if part in path), None) or self._drawn(path)
        if kind is None:
            return self._answer(path)
        if kind.startswith("to "):
            return RedirectResponse(kind[3:])
        if kind == "slow":
            await asyncio.sleep(2.5)
            return self._answer(path)
        if kind in ("cut", "short", "reset"):
            return self._answer(path) if request.method == "HEAD" else self._broken(request, path, kind)
        return Response(status_code=int(kind))

    def _broken(self, request: Request, path: str, kind: str) -> Response:
        """Half of a range, broken off in the middle (cut) or as if that were all (short); or nothing (reset)."""
        whole = next(root / path for root in self.roots if (root / path).is_file()).read_bytes()
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        part = whole[int(first) : int(last) + 1]
        head = {"content-range": f"bytes {first}-{int(first) + len(part) - 1}/{len(whole)}"}
        half = part[: len(part) // 2] if kind != "reset" else b""
        if kind == "short":
            return Response(half, 206, head)
        return _BrokenOff(half, 206, {**head, "content-length": str(len(part))})

    def _drawn(self, path: str) -> str | None:
        self._counts[path] += 1
        draw = random.Random(f"{self.faults.seed} {path} {self._counts[path]}")
        if draw.random() >= self.faults.share or self._row[path] >= self.faults.in_a_row:
            self._row[path] = 0
            return None
        self._row[path] += 1
        self.struck += 1
        return draw.choice(self.faults.kinds)

    def _answer(self, path: str) -> Response:
        found = next((root / path for root in self.roots if (root / path).is_file()), None)
        return Response(status_code=404) if found is None else FileResponse(found)


class _BrokenOff(Response):
    """An answer whose connection is gone before its end."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        raise ConnectionResetError("the test breaks this answer off")


def publish(catalog: Path, folder: Path, address: str) -> str:
    """Write a static catalog anew into a folder, with its GeoTIFFs at an address; returns the catalog's own address.

    Args:
        catalog: catalog.json whose assets are absolute paths below its folder.
        folder: to be served at `address`, as the catalog's own folder is.
        address: of the server.
    """
    for path in catalog.parent.rglob("*.json"):
        copy = folder / path.relative_to(catalog.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace(f'"{catalog.parent}/', f'"{address}/'))
    return f"{address}/{catalog.name}"


@contextmanager
def s3_service(bucket: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """An S3 service on loopback whose bucket holds a folder's GeoTIFFs: its endpoint and a client for it."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "hush-hush", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
        client.create_bucket(Bucket=bucket)
        for path in folder.rglob("*.tif"):
            client.upload_file(str(path), bucket, str(path.relative_to(folder)))
        yield f"http://{host}:{port}", client
    finally:
        server.stop()


class SlowApi(Loopback):
    """A small STAC API that holds some items of one collection and answers no search over too long a time."""

    def __init__(self, items: list[dict[str, Any]], longest: timedelta, busy: int = 0) -> None:
        self.items, self.longest, self.busy = items, longest, busy
        self.searches: list[int] = []
        """Status of each answer to a search."""
        super().__init__(
            Route("/", self._landing),
            Route("/collections", self._collections),
            Route("/search", self._search, methods=["POST"]),
        )

    async def _landing(self, request: Request) -> Response:
        links = [
            {"rel": "self", "href": f"{self.address}/"},
            {"rel": "data", "href": f"{self.address}/collections"},
            {"rel": "search", "href": f"{self.address}/search", "method": "POST", "type": "application/geo+json"},
        ]
        core = "https://api.stacspec.org/v1.0.0"
        page = {"type": "Catalog", "stac_version": "1.0.0", "id": "slow", "description": "slow", "links": links}
        return JSONResponse({**page, "conformsTo": [f"{core}/{one}" for one in ("core", "item-search", "collections")]})

    async def _collections(self, request: Request) -> Response:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        one = {"type": "Collection", "stac_version": "1.0.0", "id": self.items[0]["collection"], "description": "one"}
        return JSONResponse({"collections": [{**one, "license": "other", "extent": extent, "links": []}], "links": []})

    async def _search(self, request: Request) -> Response:
        asked = await request.json()
        start, stop = (datetime.fromisoformat(edge) for edge in asked["datetime"].split("/"))
        status = 503 if len(self.searches) < self.busy else 504 if stop - start > self.longest else 200
        self.searches.append(status)
        if status != 200:
            return Response(status_code=status)
        times = [datetime.fromisoformat(item["properties"]["datetime"]) for item in self.items]
        found = [item for item, time in zip(self.items, times, strict=True) if start <= time <= stop]
        return JSONResponse({"type": "FeatureCollection", "features": found, "links": []})
