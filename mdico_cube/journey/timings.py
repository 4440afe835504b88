"""Seconds of each stage in and out of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mdico_cube.recipe import Recipe


def timings_path(recipe: Recipe) -> Path:
    """Where the seconds of each stage stand."""
    return recipe.output / "timings.json"


def read_timings(recipe: Recipe) -> dict[str, float]:
    """Seconds of each stage so far."""
    path = timings_path(recipe)
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet, or not ours to read
