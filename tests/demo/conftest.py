"""One tiny region written once, and the world behind it."""

from __future__ import annotations

from pathlib import Path

import pystac
import pytest

from mdico_cube.demo.region import DemoRegion, write_region
from mdico_cube.demo.world import World, build_world

TINY = DemoRegion(size=96, s2_days=15, s1_days=30, landsat_days=40)


@pytest.fixture(scope="session")
def world() -> World:
    return build_world(TINY.seed, TINY.size, TINY.year)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_region(tmp_path_factory.mktemp("embedded") / "region", TINY).parent


@pytest.fixture(scope="session")
def catalog(folder: Path) -> pystac.Catalog:
    return pystac.Catalog.from_file(str(folder / "catalog.json"))


@pytest.fixture(scope="session")
def items(catalog: pystac.Catalog) -> dict[str, list[pystac.Item]]:
    return {
        child.id: sorted(child.get_items(), key=lambda item: (item.datetime, item.id))
        for child in catalog.get_children()
    }
