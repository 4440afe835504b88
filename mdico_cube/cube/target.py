"""Where a cube lies in, an open Zarr store out: a folder, an S3-compatible address or an icechunk repository."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from mdico_cube.cube.remote import icechunk_repository, icechunk_stands, object_store, reaching
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe

Location = Path | str
"""A folder as a Path, else an address: s3://bucket/prefix, icechunk+s3://bucket/prefix or icechunk+file:///folder."""
Target = Location | Store
"""What a job writes to: a location, or the open store of a change that is committed later."""
Mode = Literal["r", "r+", "a", "w"]

_SCHEMES = ("s3", "icechunk+s3", "icechunk+file")
_FLATTENED = re.compile(rf"^({'|'.join(map(re.escape, _SCHEMES))}):/+")  # what pathlib makes of an address
NOTE = "cube.json"
"""File in a run's folder that says where the cube lies, if elsewhere."""
ROOT = "zarr.json"
"""The root's metadata, written last: a cube without it does not exist."""


def locate(place: Location) -> Location:
    """The one way to write a location: an absolute Path, or an address.

    A folder that holds an icechunk repository becomes its address.

    Raises:
        MdicoError: the address has another scheme, no bucket, or carries a user name or a query.
    """
    text = _FLATTENED.sub(lambda match: f"{match[1]}://{'/' * (match[1] == 'icechunk+file')}", str(place))
    if "://" not in text:
        folder = Path(text).resolve()
        is_repository = (folder / "refs").is_dir() and (folder / "snapshots").is_dir()
        return f"icechunk+file://{folder.as_posix()}" if is_repository else folder
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise MdicoError(
            f"{parts.scheme}://...: a cube cannot lie there. Give a folder or an address that begins with "
            f"{', '.join(f'{scheme}://' for scheme in _SCHEMES)}."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise MdicoError(
            f"{parts.scheme}://{parts.hostname or ''}{parts.path}: an address carries no user name, password or query. "
            "Put credentials into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)."
        )
    if parts.scheme.endswith("s3") and not (parts.netloc and parts.path.strip("/")):
        raise MdicoError(f"{text}: names no place within a bucket. Give one, for example s3://bucket/region/cube.zarr.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def cube_location(recipe: Recipe) -> Location:
    """Where a recipe's cube lies.

    Raises:
        MdicoError: its address is none for a cube.
    """
    icechunk = recipe.store.kind == "icechunk"
    place = recipe.store.target or str(recipe.output / ("cube.icechunk" if icechunk else "cube.zarr"))
    if icechunk and not place.startswith("icechunk+"):
        place = f"icechunk+{place}" if "://" in place else f"icechunk+file://{Path(place).resolve().as_posix()}"
    return locate(place)


def note_location(out: Path, location: Location) -> None:
    """Leave a note in a run's folder where its cube lies, if that is not in the folder under its usual name."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / NOTE
    if location == locate(out / "cube.zarr"):
        note.unlink(missing_ok=True)
        return
    draft = note.with_name(f".{NOTE}.draft")
    draft.write_text(json.dumps({"cube": str(location)}), encoding="utf-8")
    draft.replace(note)


def cube_of(out: Path) -> Location:
    """Where the cube of a run's folder lies, by the note that its build left.

    Raises:
        MdicoError: the note cannot be read.
    """
    note = Path(out) / NOTE
    if not note.exists():
        return locate(Path(out) / "cube.zarr")
    try:
        return locate(str(json.loads(note.read_text(encoding="utf-8"))["cube"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MdicoError(
            f"{note}: does not say where the cube lies. Write it again with `mdico build --resume`."
        ) from error


def is_icechunk(location: Location) -> bool:
    """True for an icechunk repository, which is written in commits."""
    return isinstance(location, str) and location.startswith("icechunk+")


def is_consolidated(location: Location) -> bool:
    """True where the root's metadata holds all other metadata too: on an object store, where each request costs."""
    return isinstance(location, str) and not is_icechunk(location)


def name_of(location: Location) -> str:
    """Last part of a location."""
    return str(location).rstrip("/").rsplit("/", 1)[-1]


def beside(location: Location, suffix: str) -> Location:
    """A hidden place next to a cube, where its builders meet: `.NAME.SUFFIX`, never inside an icechunk repository."""
    if isinstance(location, Path):
        return location.with_name(f".{location.name}.{suffix}")
    kind, _, rest = location.partition("://")
    folder, _, name = rest.rpartition("/")
    near = f"{folder}/.{name}.{suffix}"
    return Path(near) if kind == "icechunk+file" else f"s3://{near}"


def open_store(target: Target, mode: Mode = "r") -> Store:
    """The Zarr store of a location.

    Raises:
        MdicoError: an optional package is missing, there is no such repository, or an icechunk repository is to be
            written outside a change (see mdico_cube.cube.change).
    """
    if isinstance(target, Store):
        return target
    place, reading = locate(target), mode == "r"
    if isinstance(place, Path):
        return LocalStore(place, read_only=reading)
    if not is_icechunk(place):
        return object_store(place, read_only=reading)
    if not reading:
        raise MdicoError(f"{place}: an icechunk repository is written in commits: use `with changing(...)`.")
    return icechunk_repository(place).readonly_session("main").store  # type: ignore[no-any-return]


def open_group(target: Target, mode: Mode = "r", path: str = "") -> zarr.Group:
    """A group of a cube.

    Raises:
        FileNotFoundError: there is none.
        MdicoError: what `open_store` raises.
    """
    store = open_store(target, mode)
    if isinstance(store, LocalStore) and mode in ("r", "r+") and not store.root.is_dir():
        raise FileNotFoundError(store.root)
    return zarr.open_group(store, path=path or None, mode=mode, zarr_format=3)


def exists(location: Location) -> bool:
    """True where something stands that a new cube would replace: a path of any kind, a root's metadata, a repository.

    Raises:
        MdicoError: the place cannot be reached.
    """
    place = locate(location)
    if isinstance(place, Path):
        return place.exists()
    if is_icechunk(place) and not icechunk_stands(place):
        return False
    with reaching(place):
        return read_key(open_store(place), ROOT) is not None


def read_key(store: Store, key: str) -> bytes | None:
    """The bytes under one key; None where there are none."""
    if isinstance(store, LocalStore):  # a file is read at once: zarr's way through two other threads takes far longer
        found: Any = store.get_sync(key)
    else:
        found = sync(store.get(key, default_buffer_prototype()))
    return None if found is None else bytes(found.to_bytes())


def write_key(store: Store, key: str, content: bytes) -> None:
    """Put bytes under one key, in one piece."""
    value = default_buffer_prototype().buffer.from_bytes(content)
    if isinstance(store, LocalStore):
        store.set_sync(key, value)
    else:
        sync(store.set(key, value))


def create_key(store: Store, key: str, content: bytes) -> None:
    """Put bytes under one key in one piece, unless there are some: then nothing happens."""
    if not isinstance(store, LocalStore):
        sync(store.set_if_not_exists(key, default_buffer_prototype().buffer.from_bytes(content)))
        return
    path = store.root / key
    draft = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.write_bytes(content)
        with suppress(FileExistsError):
            path.hardlink_to(draft)  # as one step, and with its content
    finally:
        draft.unlink(missing_ok=True)


def delete_key(store: Store, key: str) -> None:
    """Remove one key; fine where there is none."""
    if isinstance(store, LocalStore):
        store.delete_sync(key)
    else:
        sync(store.delete(key))


def keys_under(store: Store, prefix: str = "") -> list[str]:
    """Every key that begins with a prefix."""

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sync(collect())
