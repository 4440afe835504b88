"""The door: one sub-command per stage; parses, calls, prints."""

from __future__ import annotations

from mdico_cube.cli.commands import main
from mdico_cube.cli.door import app

__all__ = ["app", "main"]
