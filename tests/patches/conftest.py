"""The toy world's cube, for every test of the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cube(toy_cube: Path) -> Path:
    return toy_cube
