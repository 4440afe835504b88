"""Every group of commands in, one program out."""

from __future__ import annotations

import mdico_cube.cli.about
import mdico_cube.cli.catalogs
import mdico_cube.cli.explore
import mdico_cube.cli.lab
import mdico_cube.cli.look
import mdico_cube.cli.maps
import mdico_cube.cli.plan
import mdico_cube.cli.samples
import mdico_cube.cli.stages
import mdico_cube.cli.study
import mdico_cube.cli.tune  # noqa: F401 - each registers its commands
from mdico_cube.cli.door import app


def main() -> None:
    """Run a command."""
    app(prog_name="mdico")
