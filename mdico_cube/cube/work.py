"""A cube's place in, the folder beside it out where builders meet: their plans, their claims, their signs of life."""

from __future__ import annotations

import shutil
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from mdico_cube.cube.change import writing
from mdico_cube.cube.target import Location, beside, open_store


class WorkFolder:
    """Small files under `.<cube>.work`, each written whole. It goes when the last builder is done."""

    def __init__(self, cube: Location) -> None:
        self._cube = cube
        self._store: Store = open_store(beside(cube, "work"), "a")

    def read(self, key: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        found = sync(self._store.get(key, default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def write(self, key: str, content: bytes) -> None:
        """Write a file, or replace it."""
        with writing(self._cube):
            sync(self._store.set(key, self._buffer(content)))

    def create(self, key: str, content: bytes) -> bool:
        """Write a file unless it exists, as one step; False where it existed. No two callers get True."""
        with writing(self._cube):
            sync(self._store.set_if_not_exists(key, self._buffer(content)))
        return self.read(key) == content

    def delete(self, key: str) -> None:
        """Remove a file; fine where there is none."""
        with writing(self._cube):
            sync(self._store.delete(key))

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder."""
        return sorted(sync(_collect(self._store, folder)))

    def clear(self) -> None:
        """Remove everything."""
        if isinstance(self._store, LocalStore):
            shutil.rmtree(self._store.root, ignore_errors=True)
        else:
            sync(self._store.clear())

    @staticmethod
    def _buffer(content: bytes) -> Any:
        return default_buffer_prototype().buffer.from_bytes(content)


async def _collect(store: Store, folder: str) -> list[str]:
    return [name async for name in store.list_dir(folder) if not name.endswith(".partial")]
