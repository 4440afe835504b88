"""STAC APIs on loopback for the tests: started on a free port, stopped whatever happens."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pystac

PATIENCE = 60.0
"""Seconds a server gets to come up."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def published(catalog: Path, address: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Collections and items of a static catalog as an API holds them: no links, assets under a web address."""
    root = pystac.Catalog.from_file(str(catalog))
    collections, items = [], []
    for collection in root.get_children():
        collections.append({**collection.to_dict(include_self_link=False), "links": []})
        for item in collection.get_items(recursive=True):
            item.make_asset_hrefs_absolute()
            for asset in item.assets.values():
                asset.href = f"{address}/{Path(asset.href).relative_to(catalog.parent).as_posix()}"
            items.append({**item.to_dict(include_self_link=False, transform_hrefs=False), "links": []})
    return collections, items


@contextmanager
def running(command: Sequence[str | Path], url: str, **options: Any) -> Iterator[str]:
    """A server for as long as the block lasts; yields its address once it answers."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
    )
    try:
        _await(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(f"{process.args!r} stopped: {process.stderr.read().decode()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not answer at {url} within {PATIENCE:.0f} s")


@contextmanager
def rustac_api(folder: Path, collections: list[dict[str, Any]], items: list[dict[str, Any]]) -> Iterator[str]:
    """The in-memory API of rustac: bbox, datetime, intersects, ids, paging; it ignores filters silently."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for collection in collections:
        paths.append(folder / f"{collection['id']}.json")
        paths[-1].write_text(json.dumps(collection))
    paths.append(folder / "items.json")
    paths[-1].write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    address = f"127.0.0.1:{free_port()}"
    command = [Path(sys.executable).with_name("rustac"), "serve", *paths, "--addr", address]
    with running(command, f"http://{address}") as url:
        yield url


POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql/15/bin"))
"""Programs of Debian's PostgreSQL."""


def _as_postgres(*words: str | Path) -> list[str]:
    """A command under the account of PostgreSQL, which refuses to run as root."""
    command = [str(word) for word in words]
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own in a temporary folder; yields the environment that libpq connects with."""
    folder = Path(tempfile.mkdtemp(prefix="mdico-postgres-"))  # not pytest's, which no other account may enter
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        with _postgres_in(folder) as facts:
            yield facts
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _postgres_in(folder: Path) -> Iterator[dict[str, str]]:
    port, data = free_port(), folder / "data"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(_as_postgres(POSTGRES / "initdb", "-D", data, "-U", "mdico", "-A", "trust", "-E", "UTF8"), **quiet)
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [POSTGRES / "pg_ctl", "-D", data, "-w"]
    subprocess.run(_as_postgres(*control, "-l", folder / "log", "-o", settings, "start"), **quiet)
    try:
        facts = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "mdico", "PGPASSWORD": "none"}
        facts["PGDATABASE"] = "stac"
        subprocess.run([POSTGRES / "createdb", "stac"], env={**os.environ, **facts}, check=True)
        yield facts
    finally:
        subprocess.run(_as_postgres(*control, "-m", "immediate", "stop"), **quiet)


@contextmanager
def pgstac_api(
    folder: Path, programs: Path, collections: list[dict[str, Any]], items: list[dict[str, Any]]
) -> Iterator[str]:
    """The API of stac-fastapi on pgstac: also filter (CQL2), query, sort and fields.

    Args:
        folder: where the rows to load are written.
        programs: bin folder of the environment that has stac-fastapi.pgstac and pypgstac.
        collections: what is loaded.
        items: what is loaded.
    """
    with postgres() as database:
        env = {**os.environ, **database}
        subprocess.run([programs / "pypgstac", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
        for kind, rows in (("collections", collections), ("items", items)):
            path = folder / f"{kind}.ndjson"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            subprocess.run(
                [programs / "pypgstac", "load", kind, path, "--method", "upsert"],
                env=env,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        port = free_port()
        command = [programs / "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory", "--port", str(port)]
        with running([*command, "--log-level", "error"], f"http://127.0.0.1:{port}", env=env, cwd=folder) as url:
            yield url
