"""The same acquisition from a second catalog: found by what it is, read by that catalog's rules, told in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import yaml
from odc.geo.geobox import GeoBox
from servers import FileServer, publish
from toy_world import S2_BANDS, STEPS, World, toy_counts
from typer.testing import CliRunner

from mdico_cube.cli.commands import app
from mdico_cube.cube.acquisition import same_acquisition
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.ledger import DONE, FAILED, Ledger
from mdico_cube.cube.plan_file import dump_plan, load_plan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe

WHOLE = (slice(0, 64), slice(0, 96))
LOST = ("S2_20210105/B08.tif", "S2_20210215/SCL.tif", "S2_20210325/B04.tif")


@pytest.fixture(scope="module")
def other_world(tmp_path_factory: pytest.TempPathFactory, grid: GeoBox) -> Path:
    """The toy world's Sentinel-2 scenes as another catalog has them: other names, offsets taken off, none of March."""
    world = World(tmp_path_factory.mktemp("other"), grid)
    scenes = world.collection("s2-cogs")
    for month in range(1, STEPS):
        for day in (5, 15, 25):
            scl = np.full((64, 96), 4, dtype=np.uint8)
            counts = [toy_counts(month, day, band).astype(np.uint16) for band in S2_BANDS]
            if day == 15:
                scl[:8] = 9
            properties = {"s2:processing_baseline": "05.00", "grid:code": "MGRS-31UGS", "platform": "Sentinel-2A"}
            when = f"2021-{month:02d}-{day:02d}T10:30:00.3Z"
            assets = {"red": counts[0], "nir": counts[1], "classes": scl}
            world.item(scenes, f"tile_{month}_{day}", when, assets, properties)
            properties = {**properties, "grid:code": "MGRS-31UGT"}  # the neighbour, of other ground
            world.item(
                scenes, f"next_{month}_{day}", when, {key: 0 * value for key, value in assets.items()}, properties
            )
    return world.save()


@pytest.fixture
def two(toy_catalog: Path, other_world: Path, tmp_path: Path) -> Iterator[tuple[FileServer, FileServer]]:
    """Both catalogs on servers of their own; the second wants a token."""
    first, second = tmp_path / "first", tmp_path / "second"
    with FileServer(first, toy_catalog.parent) as one, FileServer(second, other_world.parent) as other:
        publish(toy_catalog, first, one.address)
        publish(other_world, second, other.address)
        other.secret = "only-for-the-second"
        yield one, other


@pytest.fixture
def facts(
    recipe_facts: dict[str, Any], two: tuple[FileServer, FileServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("SECOND_TOKEN", "only-for-the-second")
    source = {"collection": "s2-cogs", "quality": "classes", "nodata": 0, "assets": {"B04": "red", "B08": "nir"}}
    second = {
        "name": "second",
        "title": "The second",
        "href": f"{two[1].address}/catalog.json",
        "token": {"env": "SECOND_TOKEN", "hosts": ["127.0.0.1"]},
        "modalities": {"sentinel2": source},
    }
    (tmp_path / "second.yml").write_text(yaml.safe_dump(second))
    return {
        **recipe_facts,
        "store": {"chunk": 16, "shard": 64},
        "modalities": {"sentinel1": {"bands": ["vv"]}, "sentinel2": {"bands": list(S2_BANDS)}},
        "href": f"{two[0].address}/catalog.json",
        "read": {"backoff": 0.002, "retries": 1},
        "fallback": [{"catalog": str(tmp_path / "second.yml")}],
    }


def test_a_lost_scene_is_read_from_the_other_catalog(
    facts: dict[str, Any], two: tuple[FileServer, FileServer], toy_catalog: Path, tmp_path: Path
) -> None:
    """Law: the cube is the one that the first catalog would have given, and the ledger says whose file was read."""
    first, _ = two
    local = {**facts, "href": str(toy_catalog), "output": str(tmp_path / "local"), "fallback": []}
    whole = open_reader(build_cube(parse_recipe(local))).stored("sentinel2", *WHOLE)
    first.faults.paths = dict.fromkeys(LOST[:2], "404")
    cube = build_cube(parse_recipe(facts))
    np.testing.assert_array_equal(open_reader(cube).stored("sentinel2", *WHOLE), whole)
    entry = Ledger(cube, "sentinel2").read(0, 0)
    assert entry.state == DONE
    assert entry.failed_reads == ()
    assert entry.stand_ins == {
        "S2_20210105": "second/s2-cogs/tile_1_5",
        "S2_20210215": "second/s2-cogs/tile_2_15",
    }
    assert "tile_1_5" in entry.offsets
    shown = CliRunner().invoke(app, ["inspect", str(cube)]).output
    assert "sentinel2: item S2_20210105 was read as second/s2-cogs/tile_1_5" in shown


def test_what_the_other_catalog_lacks_fails_and_says_so(
    facts: dict[str, Any], two: tuple[FileServer, FileServer]
) -> None:
    two[0].faults.paths = dict.fromkeys(LOST, "404")
    with pytest.raises(MdicoError, match=r"S2_20210325, asset B04 .*404; second does not have it"):
        build_cube(parse_recipe(facts))
    cube = Path(facts["output"]) / "cube.zarr"
    entry = Ledger(cube, "sentinel2").read(0, 0)
    assert entry.state == FAILED
    assert [(read.item, read.asset) for read in entry.failed_reads] == [("S2_20210325", "B04")]


def test_where_both_catalogs_fail_both_reasons_are_told(
    facts: dict[str, Any], two: tuple[FileServer, FileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    two[0].faults.paths = {LOST[0]: "404"}
    monkeypatch.setenv("SECOND_TOKEN", "expired")
    with pytest.raises(MdicoError, match=r"404; second: .*credentials are refused.*SECOND_TOKEN"):
        build_cube(parse_recipe(facts))


def test_a_plan_with_a_second_catalog_travels(facts: dict[str, Any]) -> None:
    plan = plan_build(parse_recipe(facts))
    assert load_plan(dump_plan(plan)).layer("sentinel2").fallbacks == plan.layer("sentinel2").fallbacks != ()
    assert plan.layer("sentinel1").fallbacks == ()


def item(name: str, when: str, **properties: Any) -> pystac.Item:
    moment = pystac.utils.str_to_datetime(when)
    return pystac.Item(name, None, None, moment, {key.replace("__", ":"): value for key, value in properties.items()})


S2_HERE = item(
    "S2A_MSIL2A_20200403T173901_R098_T13SCA_20200929T011211",
    "2020-04-03T17:39:01.024Z",
    platform="Sentinel-2A",
    s2__mgrs_tile="13SCA",
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            S2_HERE,
            item(
                "S2A_13SCA_20200403_0_L2A",
                "2020-04-03T17:53:57.251Z",
                platform="sentinel-2a",
                grid__code="MGRS-13SCA",
                s2__product_uri="S2A_MSIL2A_20200403T173901_N0214_R098_T13SCA_20200403T220105.SAFE",
            ),
            True,
        ),
        (
            S2_HERE,
            item(
                "S2A_MSIL2A_20200403T173901_N0500_R098_T13SCA_20230508T033416",
                "2020-04-03T17:39:01.024Z",
                grid__code="MGRS-13SCA",
                eopf__datatake_id="GS2A_20200403T173901_024977_N05.00",
            ),
            True,
        ),
        (S2_HERE, item("S2A_MSIL2A_20200403T173901_R098_T13SCB_2", "2020-04-03T17:39:01Z"), False),
        (S2_HERE, item("S2B_MSIL2A_20200403T173901_R098_T13SCA_2", "2020-04-03T17:39:01Z"), False),
        (S2_HERE, item("S2A_MSIL2A_20200406T174901_R098_T13SCA_2", "2020-04-06T17:49:01Z"), False),
        (
            item("LC08_L2SP_033032_20231008_02_T1", "2023-10-08T17:37:26.656958Z", platform="landsat-8"),
            item("LC08_L2SP_033032_20231008_20231017_02_T1", "2023-10-08T00:00:00Z", landsat__wrs_path="033"),
            True,
        ),
        (
            item("LC08_L2SP_033032_20231008_02_T1", "2023-10-08T17:37:26Z"),
            item("LC09_L2SP_033032_20231008_02_T1", "2023-10-08T17:37:26Z"),
            False,
        ),
        (
            item("S1A_IW_GRDH_1SDV_20240419T045749_20240419T045814_053498_067DF2_rtc", "2024-04-19T04:58:01Z"),
            item("S1A_IW_GRDH_1SDV_20240419T045749_20240419T045814_053498_067DF2_9E0C", "2024-04-19T04:57:49Z"),
            True,
        ),
        (
            item("Copernicus_DSM_COG_10_N50_00_E005_00_DEM", "2021-04-22T00:00:00Z"),
            item("Copernicus_DSM_COG_10_N50_00_E006_00_DEM", "2021-04-22T00:00:00Z"),
            False,
        ),
        (
            item("a", "2021-01-05T10:30:00Z", platform="sentinel-2a", s2__mgrs_tile="31UGS"),
            item("b", "2021-01-05T10:30:00.9Z", platform="Sentinel-2A", grid__code="MGRS-31UGS"),
            True,
        ),
        (
            item("a", "2021-01-05T10:30:00Z", platform="sentinel-2a", s2__mgrs_tile="31UGS"),
            item("b", "2021-01-05T10:30:01.1Z", platform="sentinel-2a", s2__mgrs_tile="31UGS"),
            False,
        ),
        (item("S1_20210105", "2021-01-05T06:00:00Z"), item("S1_20210105", "2021-01-05T06:00:00Z"), True),
        (item("S1_20210105", "2021-01-05T06:00:00Z"), item("S1_x", "2021-01-05T06:00:00Z"), False),
    ],
)  # fmt: skip
def test_the_same_acquisition_is_known_across_catalogs(one: pystac.Item, other: pystac.Item, same: bool) -> None:
    assert same_acquisition(one, other) is same
    assert same_acquisition(other, one) is same
