"""Checking a catalog: what is fine, and what is said when it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mdico_cube.cli import app
from mdico_cube.cube.catalog import catalog_folder
from mdico_cube.cube.check import check_catalog, list_catalogs
from mdico_cube.errors import MdicoError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The local catalog as far as the toy has it."""
    text = """
name: mine
title: Mine
modalities:
  sentinel2: {collection: sentinel-2-l2a, quality: SCL, offset: baseline, assets: {%s}}
  dem: {collection: cop-dem-glo-30, assets: {elevation: data}}
"""
    others = ", ".join(f"{band}: B04" for band in ("B02", "B03", "B05", "B06", "B07", "B8A", "B11", "B12"))
    path = tmp_path / "mine.yml"
    path.write_text(text % others)
    return path


@pytest.fixture
def copy(toy_catalog: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_catalog.parent, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_catalog_that_works(mine: Path, toy_catalog: Path) -> None:
    checks = check_catalog(str(mine), str(toy_catalog), items=9)
    assert [check.name for check in checks if not check.passed] == []
    found = {check.name: check.detail for check in checks}
    assert found["sentinel2: rules"] == "6 x +0 (processing baseline 03.01); 3 x -0.1 (processing baseline 04.00)"
    assert found["sentinel2: CRS"] == "9 x EPSG:32631"
    assert found["dem: collection"] == "cop-dem-glo-30, 1 item looked at"


def changed(folder: Path, change: dict[str, Any], assets: dict[str, Any]) -> None:
    """Change every Sentinel-2 item of a catalog."""
    for path in folder.glob("sentinel-2-l2a/*/*.json"):
        item = json.loads(path.read_text())
        item["properties"] |= change
        item["assets"] |= assets
        path.write_text(json.dumps(item))


@pytest.mark.parametrize(
    ("change", "assets", "name", "sentence"),
    [
        ({"s2:processing_baseline": None}, {}, "rules", "the offset rule needs a number"),
        ({"proj:code": "EPSG:3995", "proj:bbox": [7e5, 56e5, 7e5, 56e5]}, {}, "rules", "says EPSG:3995"),
        ({}, {"B08": {"href": "x.zarr", "type": "application/vnd+zarr"}}, "rules", "asset B08 is no raster file"),
        ({}, {"B08": {"href": "/data/x.vrt"}}, "addresses", "may not ask for"),
    ],
)
def test_what_is_wrong_with_the_items_is_said(
    mine: Path, copy: Path, change: dict[str, Any], assets: dict[str, Any], name: str, sentence: str
) -> None:
    changed(copy, change, assets)
    checks = {check.name: check for check in check_catalog(str(mine), str(copy / "catalog.json"))}
    assert not checks[f"sentinel2: {name}"].passed
    assert sentence in checks[f"sentinel2: {name}"].detail
    assert checks["dem: rules"].passed, "the others are still looked at"


def test_missing_assets_collections_and_catalogs(mine: Path, toy_catalog: Path, tmp_path: Path) -> None:
    mine.write_text(mine.read_text().replace("quality: SCL", "quality: scl").replace("cop-dem-glo-30", "dem"))
    mine.write_text(mine.read_text() + f"href: {toy_catalog}\n")
    checks = {check.name: check for check in check_catalog(str(mine))}
    assert "lacks scl" in checks["sentinel2: assets"].detail
    assert not checks["sentinel2: assets"].passed
    assert not checks["dem: collection"].passed
    assert "has no collection 'dem'" in checks["dem: collection"].detail
    broken = tmp_path / "catalog.json"
    broken.write_text("{}")
    assert not any(check.passed for check in check_catalog(str(mine), str(broken)))
    with pytest.raises(MdicoError, match="has no address of its own"):
        check_catalog("local")


def test_a_file_without_an_address_describes_what_may_be_there(toy_catalog: Path, tmp_path: Path) -> None:
    """`local` knows landsat and three elevation models; lacking some is fine, lacking all is not."""
    checks = {check.name: check for check in check_catalog("local", str(toy_catalog))}
    assert (checks["landsat: collection"].passed, checks["landsat: collection"].detail) == (
        True,
        "landsat-c2-l2 is not here",
    )
    assert checks["dem from nasadem: collection"].passed
    assert not checks["sentinel2: assets"].passed, "the toy has two bands of ten"
    empty = tmp_path / "catalog.json"
    empty.write_text(json.dumps(json.loads(toy_catalog.read_text()) | {"links": []}))
    checks = {check.name: check for check in check_catalog("local", str(empty))}
    assert not checks["collections"].passed


@pytest.mark.parametrize(
    ("baseline", "offset", "doubt"),
    [
        ("04.00", 0, "S2_20210105: its processing adds an offset, and none"),
        ("03.01", -0.1, "S2_20210105: an offset is"),
    ],
)
def test_an_offset_against_the_items_own_processing_is_doubted(
    mine: Path, copy: Path, baseline: str, offset: float, doubt: str
) -> None:
    band = {"href": "B04.tif", "raster:bands": [{"scale": 1e-4, "offset": offset}]}
    changed(copy, {"s2:processing_baseline": baseline}, {"B04": band})
    mine.write_text(mine.read_text().replace("offset: baseline", "offset: declared"))
    checks = {check.name: check for check in check_catalog(str(mine), str(copy / "catalog.json"))}
    assert not checks["sentinel2: offsets"].passed
    assert doubt in checks["sentinel2: offsets"].detail


def test_the_commands(mine: Path, toy_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = CliRunner().invoke(app, ["catalogs"])
    assert listed.exit_code == 0
    for path in catalog_folder().glob("*.yml"):
        assert path.stem in listed.output
    assert [one.name for one in list_catalogs()] == sorted(one.name for one in list_catalogs())
    nowhere = CliRunner().invoke(app, ["catalogs", "check", "local"])
    assert nowhere.exit_code == 2
    assert "`mdico catalogs check local --href" in nowhere.output
    fine = CliRunner().invoke(app, ["catalogs", "check", str(mine), "--href", str(toy_catalog)])
    assert fine.exit_code == 0
    assert "ok     sentinel2: assets" in fine.output
    mine.write_text(mine.read_text().replace("quality: SCL", "quality: scl"))
    failing = CliRunner().invoke(app, ["catalogs", "check", str(mine), "--href", str(toy_catalog)])
    assert failing.exit_code == 2
    assert "FAILED sentinel2: assets" in failing.output


def test_every_catalog_says_where_its_optical_counts_come_from() -> None:
    """A catalog of Sentinel-2 must state its offset policy and a mask."""
    for catalog in list_catalogs():
        source = catalog.modalities.get("sentinel2")
        if source is not None:
            assert source.offset in ("baseline", "declared"), catalog.name
            assert source.quality, catalog.name
