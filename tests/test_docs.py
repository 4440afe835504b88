"""The pages of docs/: the recipe reference is fresh, commands exist, links and anchors lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
import yaml

import mdico_cube as mdico
from mdico_cube import cli
from mdico_cube.colearn.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipe", DOCS / "make_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_reference_is_fresh() -> None:
    page = made().page()
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == page, "run python docs/make_recipe.py"
    unsaid = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not unsaid, "give each key of the recipe a docstring"
    for key in ("`bbox`", "`discriminate`", "`shard`", "## labels.classes[]", "## modalities.SENSOR.source"):
        assert key in page


def test_every_page_is_in_the_menu() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert {name for entry in site["nav"] for name in entry.values()} == {page.name for page in PAGES}


def test_every_command_is_documented() -> None:
    commands = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `mdico ([a-z-]+)", (DOCS / "cli.md").read_text(), re.MULTILINE)) == commands


def test_every_method_is_documented() -> None:
    assert {name for name in METHODS if f"`{name}`" not in (DOCS / "methods.md").read_text()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_table_has_a_head(page: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [table for table in tables if not re.search(r"^.*\n\|[-:| ]+\|$", table, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_anchors_exist(page: Path) -> None:
    for name, anchor in re.findall(r"\]\(([a-z-]*\.md)?#([a-z-]+)\)", page.read_text()):
        headings = re.findall(r"^#+ (.+)$", (DOCS / (name or page.name)).read_text(), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{page.name}: {name}#{anchor}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "recipe" / "index.html").exists()
    page = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in mdico.__all__:
        assert name == "__version__" or re.search(rf'id="mdico_cube\.[a-z_.]*\b{name}"', page), (
            f"{name} is not on the page"
        )
    assert 'id="mdico_cube.accessor.CubeAccessor.series"' in page


@pytest.mark.network
def test_links_to_elsewhere_answer() -> None:
    """Only links that people follow; examples and service addresses are not asked."""
    for page in PAGES:
        for address in re.findall(r"\]\((https?://[^)]+)\)", page.read_text()):
            request = urllib.request.Request(
                address, method="HEAD", headers={"User-Agent": "mdico-cube documentation test"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status < 400, f"{page.name}: {address}"
