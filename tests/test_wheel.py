"""A wheel holds all that a run needs: installed beside its dependencies, it works in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), *options], check=True, capture_output=True)
    (path,) = folder.glob("mdico_cube-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are those of this one."""
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # its own .pth files are not read
    options = ["--no-deps", "--no-index", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)], check=True)
    return python


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_what_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("catalogs", "pipelines"):
        for path in (ROOT / folder).rglob("*"):
            assert path.is_dir() or f"mdico_cube/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "mdico_cube").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.startswith(("tests", "docs", "notebooks", "benchmarks"))]


def test_it_runs_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    where = run(python, "-c", "import mdico_cube; print(mdico_cube.__file__)", cwd=tmp_path)
    assert where.startswith(str(python.parents[1]))
    command = python.with_name("mdico")
    assert run(command, "version", cwd=tmp_path).strip()
    catalogs = {one["name"] for one in json.loads(run(command, "catalogs", "--json", cwd=tmp_path))}
    assert catalogs == {path.stem for path in (ROOT / "catalogs").glob("*.yml")}
    code = (
        "import mdico_cube as m; r = m.prepare_demo('demo', m.DemoRegion(size=48, s2_days=60, s1_days=90));"
        "m.explorer_app(m.build(r))"
    )
    run(python, "-W", "ignore", "-c", code, cwd=tmp_path)
    plan = json.loads(run(command, "plan", "demo/demo.yml", "--json", cwd=tmp_path))
    assert plan["shape"] == [48, 48]
    assert (tmp_path / "demo" / "cube.zarr").is_dir()
