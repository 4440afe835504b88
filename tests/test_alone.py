"""A folder that one process holds is refused to the next, with nothing changed, until the first is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from mdico_cube.alone import alone
from mdico_cube.errors import MdicoError


def test_a_folder_is_held_by_one_process_until_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "map.zarr"
    script = f"""
import sys, time
from pathlib import Path
from mdico_cube.alone import alone
with alone(Path({str(folder)!r}), "writes a map"):
    print("holds", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds\n"
        with (
            pytest.raises(MdicoError, match=r"map.zarr: another process writes a map there. Wait"),
            alone(folder, "writes a map"),
        ):
            pass
        with alone(folder.with_name("other.zarr"), "writes a map"):
            pass
        other.kill()
    with alone(folder, "writes a map"):
        assert not folder.exists()
    assert not list(folder.parent.iterdir())


def test_a_disk_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", cannot)
    with alone(tmp_path / "map.zarr", "writes a map"):
        pass
