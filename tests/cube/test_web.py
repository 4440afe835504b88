"""Building over a web that fails: what passes leaves no trace in the cube, what stays is said exactly."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import PASSING, Faults, FileServer, publish, s3_service
from toy_world import toy_counts
from typer.testing import CliRunner

from mdico_cube.cli.commands import app
from mdico_cube.cube.access import Access
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.faults import Fault, judge
from mdico_cube.cube.inspect import inspect_cube
from mdico_cube.cube.lazy import lazy_scenes
from mdico_cube.cube.ledger import DONE, FAILED, GAPS, Ledger
from mdico_cube.cube.patience import _judged
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.progress import console
from mdico_cube.recipe import ReadSection, parse_recipe

Facts = dict[str, Any]
Built = Callable[[dict[str, Any]], dict[str, str]]
SECRET = "sesame-4711"


@pytest.fixture
def web(toy_catalog: Path, tmp_path: Path) -> Iterator[FileServer]:
    """The toy world over HTTP, catalog and files, undisturbed at first."""
    folder = tmp_path / "web"
    with FileServer(folder, toy_catalog.parent) as served:
        publish(toy_catalog, folder, served.address)
        yield served


@pytest.fixture
def facts(recipe_facts: Facts, web: FileServer) -> Facts:
    """A recipe that reads two shards of the toy world over HTTP."""
    recipe_facts["store"] = {"chunk": 16, "shard": 64}
    recipe_facts["modalities"] = {"sentinel1": {"bands": ["vv"]}, "sentinel2": {"bands": ["B04", "B08"]}}
    recipe_facts["href"] = f"{web.address}/catalog.json"
    recipe_facts["read"] = {"backoff": 0.002, "timeout": 2, "retries": 6}
    return recipe_facts


@pytest.fixture(scope="module")
def undisturbed(toy_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What a build from local files writes: see `pixels`."""
    kept: list[dict[str, str]] = []

    def built(facts: Facts) -> dict[str, str]:
        if not kept:
            output = str(tmp_path_factory.mktemp("undisturbed") / "out")
            kept.append(pixels(build_cube(parse_recipe({**facts, "href": str(toy_catalog), "output": output}))))
        return kept[0]

    return built


def pixels(cube: Path) -> dict[str, str]:
    """Every file of a cube's arrays, but the ledger's, with its digest."""
    files = [path for path in cube.rglob("*") if path.is_file() and "c" in path.parts and "ledger" not in path.parts]
    assert len(files) > 5
    return {str(path.relative_to(cube)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def states(cube: Path, modality: str) -> list[int]:
    return Ledger(cube, modality).states().ravel().tolist()


@pytest.fixture
def with_token(web: FileServer, tmp_path: Path, facts: Facts) -> Callable[..., Facts]:
    """The recipe with a catalog file whose token is as said, for files that are shown for it only."""
    web.secret = SECRET

    def recipe_for(**token: Any) -> Facts:
        catalog = yaml.safe_load((Path(__file__).parents[2] / "catalogs" / "local.yml").read_text())
        catalog["token"] = {"hosts": ["127.0.0.1"], **token}
        (tmp_path / "guarded.yml").write_text(yaml.safe_dump(catalog))
        return {**facts, "catalog": str(tmp_path / "guarded.yml")}

    return recipe_for


def test_a_cube_from_the_web_is_the_cube_from_disk(facts: Facts, web: FileServer, undisturbed: Built) -> None:
    cube = build_cube(parse_recipe(facts))
    assert pixels(cube) == undisturbed(facts)
    assert web.count(".tif") > 50


@pytest.mark.parametrize(
    ("seed", "kinds", "share"),
    [(0, PASSING, 0.3), (1, ("503", "429"), 0.6), (2, ("cut", "short", "reset"), 0.3)],
)
def test_passing_faults_leave_no_trace(
    facts: Facts,
    web: FileServer,
    undisturbed: Built,
    seed: int,
    kinds: tuple[str, ...],
    share: float,
) -> None:
    web.faults = Faults(share, kinds, seed)
    cube = build_cube(parse_recipe(facts))
    assert web.struck > 20
    assert pixels(cube) == undisturbed(facts)
    assert all(set(states(cube, name)) == {DONE} for name in facts["modalities"])
    assert not any(status.failed_reads for status in inspect_cube(cube))


def test_a_file_that_is_gone_stops_its_shards_only(facts: Facts, web: FileServer, undisturbed: Built) -> None:
    web.faults.paths = {"S2_20210115/B08.tif": "404"}
    with pytest.raises(MdicoError, match=r"2 of 4 shards could not be built.*S2_20210115, asset B08.*404") as caught:
        build_cube(parse_recipe(facts))
    assert "?" not in str(caught.value)
    cube = Path(facts["output"]) / "cube.zarr"
    assert states(cube, "sentinel2") == [FAILED, FAILED]
    assert states(cube, "sentinel1") == [DONE, DONE]
    assert web.count("S2_20210115/B08.tif") == 2, "what is not there is asked for once per shard"
    entry = Ledger(cube, "sentinel2").read(0, 1)
    assert [(read.item, read.asset) for read in entry.failed_reads] == [("S2_20210115", "B08")]
    assert entry.failed_reads[0].window == (700640.0, 5600000.0, 700960.0, 5600640.0)
    web.mend()
    assert pixels(build_cube(parse_recipe(facts), resume=True)) == undisturbed(facts)


def test_gaps_are_built_of_the_other_scenes_and_said_exactly(
    facts: Facts, web: FileServer, undisturbed: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: what cannot be read is missing, nothing else is, and the cube names it."""
    console.quiet = False
    facts["read"]["failed"] = "gap"
    web.faults.paths = {
        **{"S2_20210115/B08.tif": "404", "S2_20210125/SCL.tif": "410"},
        **{"sentinel-1-rtc/S1_202102": "404", "S2_202103": "500"},
    }
    cube = build_cube(parse_recipe({**facts, "read": {**facts["read"], "retries": 0}}))
    assert "4 of 4 shards have gaps: 16 reads failed for good" in " ".join(capsys.readouterr().err.split())
    assert states(cube, "sentinel2") == states(cube, "sentinel1") == [GAPS, GAPS]
    expected = {("S2_20210115", "B08"), ("S2_20210125", "SCL")}
    expected |= {(f"S2_202103{day}", "SCL") for day in ("05", "15", "25")}  # no use in asking for the bands then
    (s1, s2) = (next(s for s in inspect_cube(cube) if s.modality == name) for name in ("sentinel1", "sentinel2"))
    for shard in ("0,0", "0,1"):
        assert {(read.item, read.asset) for read in s2.failed_reads[shard]} == expected
        assert len(s1.failed_reads[shard]) == 3
    shown = CliRunner().invoke(app, ["inspect", str(cube)]).output
    assert "sentinel2: item S2_20210115, asset B08 was not read in 2 shards (0,0 0,1): HTTP response code: 404" in shown
    reader = open_reader(cube)
    assert reader.check_complete(["sentinel2"]) is None
    stored = reader.stored("sentinel2", slice(0, 64), slice(0, 96))
    assert (stored[0, 0] == toy_counts(1, 5, "B04")).all(), "January is what its only whole scene says"
    assert (stored[2] == 65535).all(), "March has no scene that could be read"
    assert reader.read("sentinel1", slice(0, 64), slice(0, 96))[1].all(axis=(1, 2)).tolist() == [True, False, True]
    web.mend()
    assert pixels(build_cube(parse_recipe(facts), resume=True)) == undisturbed(facts)
    assert not any(status.failed_reads for status in inspect_cube(cube))


def test_a_worse_try_does_not_replace_what_stands(facts: Facts, web: FileServer) -> None:
    facts["read"] |= {"failed": "gap", "retries": 0}
    web.faults.paths = {"S2_20210115/B08.tif": "404"}
    cube = build_cube(parse_recipe(facts))
    before = pixels(cube), Ledger(cube, "sentinel2").read(0, 0)
    web.faults.paths = {"sentinel-2-l2a": "404"}
    build_cube(parse_recipe(facts), resume=True)
    assert (pixels(cube), Ledger(cube, "sentinel2").read(0, 0)) == before


@pytest.mark.parametrize("send", ["query", "bearer"])
def test_expired_signatures_are_renewed(
    facts: Facts, web: FileServer, with_token: Callable[..., Facts], undisturbed: Built, send: str
) -> None:
    name = {"name": "sig"} if send == "query" else {}
    facts = with_token(url=f"{web.address}/token", answer="token", send=send, **name)
    web.expire_after = 30
    assert pixels(build_cube(parse_recipe(facts))) == undisturbed(facts)
    assert 3 <= web.tokens <= web.count(".tif") / 20


def test_signing_happens_when_a_lazy_scene_is_read(
    facts: Facts, web: FileServer, with_token: Callable[..., Facts], toy_catalog: Path
) -> None:
    """A graph outlives its signatures: the token of the planning hour opens nothing any more when pixels are wanted."""
    facts = with_token(url=f"{web.address}/token", answer="token", send="query", name="sig")
    plan = plan_build(parse_recipe(facts))
    layer = plan.layer("sentinel2")
    scenes = lazy_scenes(layer, plan.geobox, 32)
    first = scenes["B04"][0].compute()
    web.secret = "another"
    second = scenes["B04"][1].compute(scheduler="threads")
    assert (first.values == toy_counts(1, 5, "B04")).all()
    assert (second.values[8:] == toy_counts(1, 15, "B04")[8:]).all()
    assert SECRET not in repr(scenes["B04"].data.dask.to_dict())


def test_credentials_that_stay_expired_are_said_once_with_the_setting(
    facts: Facts,
    web: FileServer,
    with_token: Callable[..., Facts],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    undisturbed: Built,
) -> None:
    console.quiet = False
    facts = with_token(env="TOY_TOKEN", send="query", name="sig")
    monkeypatch.setenv("TOY_TOKEN", "expired-long-ago")
    facts["read"]["failed"] = "gap"
    cube = build_cube(parse_recipe(facts))
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("credentials are refused") == told.count("the environment variable TOY_TOKEN") == 1
    assert "expired-long-ago" not in told
    assert states(cube, "sentinel2") == [GAPS, GAPS]
    facts["read"]["failed"] = "stop"
    with pytest.raises(MdicoError, match="environment variable TOY_TOKEN"):
        build_cube(parse_recipe(facts), resume=True)
    monkeypatch.delenv("TOY_TOKEN")
    with pytest.raises(MdicoError, match="TOY_TOKEN is not set"):
        build_cube(parse_recipe(facts), resume=True)
    monkeypatch.setenv("TOY_TOKEN", SECRET)
    assert pixels(build_cube(parse_recipe(facts), resume=True)) == undisturbed(facts)


@pytest.mark.parametrize("send", [{"send": "query", "name": "sig"}, {"send": "bearer"}])
def test_no_secret_is_left_anywhere(
    send: dict[str, str],
    facts: Facts,
    web: FileServer,
    with_token: Callable[..., Facts],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cube, output, log at its most talkative, errors: none holds the token, whether reads succeed or fail."""
    console.quiet = False
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOY_TOKEN", SECRET)
    web.faults = Faults(0.2, (*PASSING, "404", "403"), 5)
    facts = with_token(env="TOY_TOKEN", **send)
    facts["href"] += f"?key={SECRET}"
    facts["read"] |= {"failed": "gap", "retries": 1}
    build_cube(parse_recipe(facts))
    facts["read"]["failed"] = "stop"
    with pytest.raises(MdicoError) as told:
        build_cube(parse_recipe(facts), resume=True)
    CliRunner().invoke(app, ["inspect", f"{facts['output']}/cube.zarr", "--json"])
    written = [path.read_bytes() for path in Path(facts["output"]).rglob("*") if path.is_file()]
    out, err = capfd.readouterr()
    assert "rasterio" in caplog.text
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.split(".")[0] not in ("uvicorn", "asyncio"))
    for text in (str(told.value), out, err, ours):
        assert SECRET not in text
    assert not any(SECRET.encode() in data for data in written)


def test_a_cube_from_an_s3_service(
    facts: Facts, toy_catalog: Path, tmp_path: Path, undisturbed: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endpoint from the catalog file, keys from variables it names; a lost object is a named gap until it is back."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOY_KEY", "testing")
    monkeypatch.setenv("TOY_SECRET", SECRET)
    bucket = f"toy-{tmp_path.name.lower().replace('_', '-')}"[:40]
    with s3_service(bucket, toy_catalog.parent) as (endpoint, client):
        catalog = yaml.safe_load((Path(__file__).parents[2] / "catalogs" / "local.yml").read_text())
        catalog["s3"] = {"endpoint": endpoint, "path_style": True, "key": "TOY_KEY", "secret": "TOY_SECRET"}
        (tmp_path / "s3.yml").write_text(yaml.safe_dump(catalog))
        publish(toy_catalog, tmp_path / "s3", f"s3://{bucket}")
        facts |= {"catalog": str(tmp_path / "s3.yml"), "href": str(tmp_path / "s3" / "catalog.json")}
        facts["read"] |= {"failed": "gap", "retries": 1}
        lost = "sentinel-2-l2a/S2_20210115/B08.tif"
        client.delete_object(Bucket=bucket, Key=lost)
        cube = build_cube(parse_recipe(facts))
        failed = Ledger(cube, "sentinel2").read(0, 0).failed_reads
        assert [(read.item, read.asset) for read in failed] == [("S2_20210115", "B08")]
        assert states(cube, "sentinel1") == [DONE, DONE]
        client.upload_file(str(toy_catalog.parent / lost), bucket, lost)
        assert pixels(build_cube(parse_recipe(facts), resume=True)) == undisturbed(facts)
        assert not any(SECRET.encode() in path.read_bytes() for path in cube.rglob("*") if path.is_file())


def test_a_file_that_was_waited_for_in_vain_is_asked_for_again(web: FileServer) -> None:
    """GDAL calls a file missing when its server was too slow for it: the server itself is asked."""
    address = f"{web.address}/sentinel-2-l2a/S2_20210115/B08.tif"
    gdal = OSError(f"'/vsicurl/{address}' does not exist in the file system, and is not recognized as a dataset name.")
    reading = ReadSection(timeout=2)
    assert _judged(gdal, address, Access(), reading, 0.0) == Fault("passing", "it could not be opened in time")
    assert _judged(gdal, f"{address}.gone", Access(), reading, 0.0).kind == "missing"
    cut = OSError("TIFFFillTile:Read error at row 4294967295, col 4294967295, tile 0; got 23944 bytes, expected 98893")
    assert judge(cut, remote=True) == Fault("passing", "its bytes break off early")
