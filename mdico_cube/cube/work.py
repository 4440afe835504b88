"""A cube's place in, the folder beside it out where builders meet: their plans, their claims, their signs of life."""

from __future__ import annotations

import shutil

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore

from mdico_cube.cube.change import writing
from mdico_cube.cube.target import Location, beside, create_key, delete_key, open_store, read_key, write_key


class WorkFolder:
    """Small files under `.<cube>.work`, each written whole. It goes when the last builder is done."""

    def __init__(self, cube: Location) -> None:
        self._cube = cube
        self._store: Store = open_store(beside(cube, "work"), "a")

    def read(self, key: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        return read_key(self._store, key)

    def write(self, key: str, content: bytes) -> None:
        """Write a file, or replace it."""
        with writing(self._cube):
            write_key(self._store, key, content)

    def create(self, key: str, content: bytes) -> bool:
        """Write a file unless it exists, as one step; False where it existed. No two callers get True."""
        with writing(self._cube):
            create_key(self._store, key, content)
        return self.read(key) == content

    def delete(self, key: str) -> None:
        """Remove a file; fine where there is none."""
        with writing(self._cube):
            delete_key(self._store, key)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder."""
        return sorted(sync(_collect(self._store, folder)))

    def clear(self) -> None:
        """Remove everything."""
        if isinstance(self._store, LocalStore):
            shutil.rmtree(self._store.root, ignore_errors=True)
        else:
            sync(self._store.clear())


async def _collect(store: Store, folder: str) -> list[str]:
    return [name async for name in store.list_dir(folder) if not name.endswith(".partial")]
