"""What holds for every command: a help with an example, clean pipes, JSON alone on standard output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import mdico_cube
from mdico_cube import cli
from mdico_cube.cli.door import print_json, share


def mdico(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a pipe."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "COLUMNS")}
    command = [sys.executable, "-W", "ignore", "-m", "mdico_cube.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, **variables})


def commands() -> Iterator[tuple[str, Any]]:
    def walk(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield " ".join((*path, name)), command
            if getattr(command, "commands", None):
                yield from walk(command, (*path, name))

    return walk(typer.main.get_command(cli.app), ())


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_of_its_own_and_explains_its_options(name: str) -> None:
    command = COMMANDS[name]
    assert "Example: `mdico " in command.help
    first = command.help.split("Example: `mdico ")[1]
    assert first.startswith(name.split()[0]), "the example shows this command"
    for option in command.params:
        if option.param_type_name == "option" and option.name not in ("help", "folds", "seeds", "epochs"):
            assert option.help, f"--{option.name} is not explained"


def test_a_pipe_gets_no_colours_and_no_cut_lines() -> None:
    done = mdico("catalogs")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert "https://planetarycomputer.microsoft.com/api/stac/v1" in done.stdout


def test_json_is_all_that_machines_see() -> None:
    found = {one["name"]: one for one in json.loads(mdico("catalogs", "--json").stdout)}
    assert found["earth-search"]["modalities"] == ["sentinel2", "landsat", "landsat_st", "dem"]
    assert "mdico" in json.loads(mdico("methods", "--json").stdout)


def test_what_is_not_a_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"f1": [float("nan"), 0.5], "out": Path("bench")})
    assert json.loads(capsys.readouterr().out) == {"f1": [None, 0.5], "out": "bench"}


def test_a_map_s_status_is_a_table_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"done": 3, "failed": 1, "missing": 0, "errors": {"0,2": "a damaged file"}}
    monkeypatch.setattr(mdico_cube, "map_status", lambda path: facts, raising=False)
    runner = CliRunner()
    table = runner.invoke(cli.app, ["maps", "status", str(tmp_path)])
    assert (table.exit_code, "shard 0,2 failed: a damaged file" in table.output) == (0, True)
    assert json.loads(runner.invoke(cli.app, ["maps", "status", str(tmp_path), "--json"]).output) == facts
    assert runner.invoke(cli.app, ["maps", "status", str(tmp_path / "nowhere.zarr")]).exit_code == 2


def test_a_check_that_fails_is_json_and_exit_status_2(toy_catalog: Path) -> None:
    done = mdico("catalogs", "check", "local", "--href", str(toy_catalog), "--json")
    assert done.returncode == 2
    checks = json.loads(done.stdout)
    assert {one["passed"] for one in checks} == {True, False}, "the toy catalog has no Landsat"
    assert done.stderr.startswith("error: catalog local: ")


def test_a_fault_is_one_sentence_unless_more_is_wanted(tmp_path: Path) -> None:
    short = mdico("inspect", str(tmp_path))
    assert (short.returncode, short.stdout, short.stderr.count("\n")) == (2, "", 1)
    long = mdico("--verbose", "inspect", str(tmp_path))
    assert long.returncode == 2
    assert "Traceback" in long.stderr
    assert long.stderr.endswith(short.stderr)


def test_an_unknown_command_is_exit_status_2() -> None:
    assert mdico("bild").returncode == 2


def test_a_shell_completes_commands() -> None:
    done = mdico(_MDICO_COMPLETE="complete_bash", COMP_WORDS="mdico cat", COMP_CWORD="1")
    assert done.stdout.split() == ["catalogs"]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0.0, "0%"),
        (0.002, "under 1%"),
        (0.009, "under 1%"),
        (0.01, "1%"),
        (0.37, "37%"),
        (0.99, "99%"),
        (0.998, "over 99%"),
        (1.0, "100%"),
    ],
)
def test_a_share_that_is_not_quite_nothing_or_everything_says_so(part: float, text: str) -> None:
    assert share(part) == text
