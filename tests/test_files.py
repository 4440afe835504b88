"""The files around the package agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}
"""PyPI name -> conda-forge name, where they differ."""


def floors(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, rule = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", line).groups()  # type: ignore[union-attr]
        found[name.lower()] = rule.replace(" ", "")
    return found


def test_environment_and_pyproject_ask_for_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = floors([line for line in environment["dependencies"] if isinstance(line, str)])
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    pip = floors(PROJECT["dependencies"])
    assert conda == {CONDA_NAMES.get(name, name): rule for name, rule in pip.items()}


def test_every_dependency_is_pinned_within_its_floor() -> None:
    pins = floors((ROOT / "constraints.txt").read_text().split())
    assert pins["torch"] == "==2.13.0"
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    for name, rule in floors([line for line in wanted if not line.startswith("mdico-cube")]).items():
        pin = pins[name].removeprefix("==")
        bound = re.search(r"[\d.]+", rule)
        assert bound
        numbers = [tuple(int(part) for part in re.findall(r"\d+", version)[:3]) for version in (pin, bound.group())]
        assert numbers[0] < numbers[1] if rule.startswith("<") else numbers[0] >= numbers[1], name


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".pre-commit-config.yaml"])
def test_a_stranger_finds(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200


def test_the_readme_leads_with_a_picture_and_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    picture = re.search(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert picture
    assert (ROOT / picture.group(1)).exists()
    assert text.index("make demo") < text.index("make test") < 2500


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
