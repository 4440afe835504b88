"""Commands about the program itself."""

from __future__ import annotations

import json
import sys

import mdico_cube as mdico
from mdico_cube.cli.door import app, out
from mdico_cube.recipe import Recipe


@app.command(rich_help_panel="Help")
def schema() -> None:
    """The recipe's JSON schema, for editors that complete and check YAML.

    Example: `mdico schema > recipe.schema.json`
    """
    sys.stdout.write(json.dumps(Recipe.model_json_schema(), indent=1) + "\n")


@app.command(rich_help_panel="Help")
def version() -> None:
    """The version of mdico_cube."""
    out.print(mdico.__version__)
