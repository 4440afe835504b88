"""A location in, a place to write out whose changes count together: at once for Zarr, by one commit for icechunk."""

from __future__ import annotations

import asyncio
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore, ObjectStore

from mdico_cube.cube.remote import conflict_solver, fault_text, icechunk_repository, is_remote_fault
from mdico_cube.cube.target import (
    ROOT,
    Location,
    Target,
    is_icechunk,
    keys_under,
    locate,
    open_store,
    read_key,
    write_key,
)
from mdico_cube.errors import MdicoError

_DRAFT = "mdico-draft"
"""Marks a prefix of an object store in which a cube is being created, so that what is left of a stop may be cleared."""
_AT_ONCE = 8


class writing:  # noqa: N801 - reads as a phrase: with writing(place)
    """Turn a failed write into one sentence that says what to do."""

    def __init__(self, place: object) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        remote = error is not None and is_remote_fault(error)
        if remote or isinstance(error, OSError):
            why = fault_text(error) if remote else error.strerror or error  # type: ignore[arg-type, union-attr]
            raise MdicoError(
                f"{self.place}: cannot be written ({why}). "
                "Free space there or choose another place; finished work is kept, go on with --resume."
            ) from error


class Change:
    """Writes that belong together. Zarr stores take each at once; an icechunk repository takes all in one commit."""

    def __init__(self, location: Location, session: Any = None) -> None:
        self.location = location
        self._session = session

    @property
    def target(self) -> Target:
        """What jobs in this process write to, from any thread."""
        return self.location if self._session is None else self._session.store

    def away(self) -> Target:
        """What a job in another process writes to; hand what it has then to `merge`."""
        return self.location if self._session is None else self._session.fork().store

    def merge(self, target: Target) -> None:
        """Take over what another process wrote to its `away()` target."""
        if self._session is not None:
            self._session.merge(target.session)  # type: ignore[union-attr]


@contextmanager
def changing(location: Location, message: str, metadata: bool = False, partial: bool = False) -> Iterator[Change]:
    """Write to a cube that stands; at the end its changes count.

    After an exception a Zarr store has what was written until then; an icechunk repository is as it was, or has what
    was written until then where `partial` says that this makes sense.

    Args:
        location: the cube.
        message: of the commit.
        metadata: arrays, groups or attributes change too, not pixels alone.
        partial: what is there when an exception comes is worth a commit, as each shard has its own entry.

    Raises:
        MdicoError: another builder changed the same metadata in the meantime, or the place cannot be written.
    """
    place = locate(location)
    if not is_icechunk(place):
        yield Change(place)
        if metadata:
            consolidate(place)
        return
    assert isinstance(place, str)
    session = icechunk_repository(place).writable_session("main")
    try:
        yield Change(place, session)
    except BaseException:
        if partial:
            with suppress(MdicoError):
                _commit(place, session, f"{message}, stopped")
        raise
    _commit(place, session, message)


def _commit(address: str, session: Any, message: str) -> None:
    if session.has_uncommitted_changes:
        with writing(address):
            session.commit(message, rebase_with=conflict_solver(address))


@contextmanager
def creating(location: Location, overwrite: bool = False) -> Iterator[Store]:
    """A store in memory for the metadata of a new cube; at the end it is put in place with the root's metadata last.

    So a cube is whole or does not exist, on stores without a rename too. With `overwrite` what stands goes last.

    Raises:
        MdicoError: the place cannot be written, or holds something that is no cube.
    """
    place, draft = locate(location), MemoryStore()
    _check_replaceable(place, overwrite)
    yield draft
    with writing(place):
        if isinstance(place, Path):
            _put_folder(draft, place, overwrite)
        elif is_icechunk(place):
            _put_commit(draft, place)
        else:
            put_objects(draft, place)


def _put_folder(draft: Store, place: Path, overwrite: bool) -> None:
    beside = place.with_name(f".{place.name}.draft")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    copy_keys(draft, open_store(beside, "w"))
    if overwrite and place.exists():
        shutil.rmtree(place)
    beside.rename(place)


def put_objects(draft: Store, address: str) -> None:
    """Put a whole cube in the place of whatever of ours lies at an address, the root's metadata last."""
    consolidate(draft)
    store = open_store(address, "w")
    sync(store.delete(ROOT))  # from here on the old cube does not exist
    write_key(store, _DRAFT, b"")
    delete_keys(store, [key for key in keys_under(store) if key != _DRAFT])
    copy_keys(draft, store)
    sync(store.delete(_DRAFT))


def _put_commit(draft: Store, address: str) -> None:
    session = icechunk_repository(address, create=True).writable_session("main")
    sync(session.store.clear())
    copy_keys(draft, session.store)
    _commit(address, session, "cube created")


def _check_replaceable(place: Location, overwrite: bool) -> None:
    """Raise MdicoError where files would go that are no cube's."""
    if isinstance(place, Path):
        strange = overwrite and place.is_dir() and any(place.iterdir()) and not (place / ROOT).exists()
        if strange or place.is_file():
            raise MdicoError(f"{place}: is no cube and is not replaced. Choose another place or remove it yourself.")
    elif not is_icechunk(place):
        with writing(place):
            store = open_store(place, "r")
            root = read_key(store, ROOT)
            keys = [] if root is not None else keys_under(store)
        ours = root is not None and "mdico_schema" in json.loads(root).get("attributes", {})
        if (root is not None and not (ours and overwrite)) or (keys and _DRAFT not in keys):
            raise MdicoError(f"{place}: holds objects that are no cube of ours. Choose another prefix or remove them.")


def copy_keys(source: Store, target: Store, names: Mapping[str, str] | None = None) -> None:
    """Copy keys, many at a time: all of them, the root's metadata last, or those named, to other names."""

    async def put(key: str, name: str, free: asyncio.Semaphore) -> None:
        async with free:
            value = await source.get(key, default_buffer_prototype())
            assert value is not None
            await target.set(name, value)

    async def put_all(batches: Sequence[Mapping[str, str]]) -> None:
        free = asyncio.Semaphore(_AT_ONCE)
        for batch in batches:
            await asyncio.gather(*(put(key, name, free) for key, name in sorted(batch.items())))

    if names is not None:
        sync(put_all([names]))
        return
    keys = keys_under(source)
    facts = {key for key in keys if key.endswith(f"/{ROOT}")}  # an icechunk array takes no chunk before them
    sync(put_all([{key: key for key in batch} for batch in (facts, {*keys} - facts - {ROOT}, {ROOT})]))


def delete_keys(store: Store, keys: Sequence[str]) -> None:
    """Remove keys, many at a time."""

    async def delete(key: str, free: asyncio.Semaphore) -> None:
        async with free:
            await store.delete(key)

    async def delete_all() -> None:
        free = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(delete(key, free) for key in keys))

    sync(delete_all())


def consolidate(target: Target) -> None:
    """Copy all metadata of a cube on an object store into the root's, so that it opens with few requests.

    On a disk it would save little, and an icechunk repository holds its metadata together anyway.
    """
    store = open_store(target, "r" if isinstance(target, Path) else "r+")
    if not isinstance(store, ObjectStore | MemoryStore):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # that consolidated metadata is not in the specification yet
        zarr.consolidate_metadata(store, zarr_format=3)
