"""Zarr assets from folders, web servers and buckets; and every trick of a catalog that is not played along with."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from servers import Faults, FileServer, s3_service
from toy_weather import RULES, hourly_weather, save_weather, weather_catalog, weather_item, write_store
from typer.testing import CliRunner

from mdico_cube.cli.door import app
from mdico_cube.cube.access import Access, S3Section
from mdico_cube.cube.cells import Cells, CoarseStore
from mdico_cube.cube.check import check_catalog
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.stores import open_store
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ReadSection, StoreRules, parse_recipe
from mdico_cube.spec import Array

READ = ReadSection(backoff=0.001, timeout=5)
TIMES = pd.date_range("2021-01-01", "2021-01-03", freq="h")
AREA = GeoBox.from_bbox((5.3, 50.1, 6.4, 50.9), "EPSG:4326", resolution=0.1)
"""All that the toy stores cover."""


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return hourly_weather("2021-01-01", "2021-01-03")


@pytest.fixture(scope="module")
def folder(data: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "w.zarr", data, hours=12)
    return folder


def item_at(href: str, **fields: Any) -> pystac.Item:
    item = weather_item("w", href, TIMES, **fields)
    item.collection_id = "era5"
    return item


def temperatures(item: pystac.Item, access: Access | None = None, reading: ReadSection = READ) -> Array:
    """Every t2m of a store, as a build reads it."""
    store = CoarseStore(item, "data", StoreRules.model_validate(RULES), access or Access(), reading)
    sizes = [len(store.window(store.around(AREA))[name]) for name in ("latitude", "longitude")]
    everywhere = (Cells(np.arange(sizes[0]), ()), Cells(np.arange(sizes[1]), ()))
    return store.read(StoreRules.model_validate(RULES).variables["t2m"], "K", np.arange(len(TIMES)), everywhere)


def same(came: Array, data: xr.Dataset) -> None:
    np.testing.assert_allclose(came, data.t2m.values.reshape(len(TIMES), -1), rtol=1e-6)


def test_over_http_with_a_server_that_stumbles(folder: Path, data: xr.Dataset) -> None:
    with FileServer(folder) as server:
        server.faults = Faults(share=0.5, kinds=("503", "429", "500"), seed=3)
        same(temperatures(item_at(f"{server.address}/w.zarr")), data)
        assert server.struck > 5
        server.mend()
        server.faults = Faults(paths={"t2m/c/": "503"})
        with pytest.raises(MdicoError, match=r"t2m: the Zarr store http://127.* cannot be read \(503"):
            temperatures(item_at(f"{server.address}/w.zarr?sig=hush"), reading=ReadSection(retries=1, backoff=0.001))


def test_a_web_server_shows_only_what_is_consolidated(data: xr.Dataset, tmp_path: Path) -> None:
    write_store(tmp_path / "w.zarr", data, consolidated=False)
    same(temperatures(item_at(str(tmp_path / "w.zarr"))), data)
    with FileServer(tmp_path) as server, pytest.raises(MdicoError, match=r"no variable.*consolidated metadata"):
        temperatures(item_at(f"{server.address}/w.zarr"))


def test_a_token_in_netrc_opens_the_store(folder: Path, data: xr.Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine elsewhere login a password b\n")
    with FileServer(folder) as server:
        server.secret = "Basic " + base64.b64encode(b"edh:hush").decode()
        href = f"{server.address}/w.zarr"
        with pytest.raises(
            MdicoError, match=r"127.0.0.1 refuses access \(HTTP 403\). Write your access token into ~/.netrc"
        ):
            temperatures(item_at(href))
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login edh password hush\n")
        same(temperatures(item_at(href)), data)


def test_from_a_bucket(folder: Path, data: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    with s3_service("weather", folder) as (endpoint, client):
        for path in (folder / "w.zarr").rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "weather", str(path.relative_to(folder)))
        access = Access(s3=S3Section(endpoint=endpoint, region="us-east-1", path_style=True))
        same(temperatures(item_at("s3://weather/w.zarr"), access), data)
        with pytest.raises(MdicoError, match=r"the Zarr store s3://weather/none\.zarr cannot be read"):
            temperatures(item_at("s3://weather/none.zarr"), access)


FINE = [
    {},
    {"xarray:open_kwargs": {"engine": "zarr", "chunks": {}, "consolidated": True}},
    {
        "xarray:open_kwargs": {"engine": "zarr", "chunks": {}, "zarr_format": 3},
        "xarray:storage_options": {"client_kwargs": {"trust_env": True}},
    },
    {"xarray:open_kwargs": {"chunks": {}, "storage_options": {"account_name": "cpdataeuwest"}}},
]


@pytest.mark.parametrize("fields", FINE)
def test_what_archives_really_say_is_heeded(folder: Path, data: xr.Dataset, fields: dict[str, Any]) -> None:
    same(temperatures(item_at(str(folder / "w.zarr"), **fields)), data)


TRICKS: dict[str, tuple[dict[str, Any], str]] = {
    "another engine": (
        {"xarray:open_kwargs": {"engine": "kerchunk"}},
        "asks for engine 'kerchunk'. Only zarr is opened",
    ),
    "an engine of its own": ({"xarray:open_kwargs": {"engine": {"a": 1}}}, "engine is .* wrong type"),
    "backend options": (
        {"xarray:open_kwargs": {"backend_kwargs": {"storage_options": {}}}},
        "asks for 'backend_kwargs', which a catalog may not decide",
    ),
    "a chunk manager": ({"xarray:open_kwargs": {"chunked_array_type": "evil"}}, "asks for 'chunked_array_type'"),
    "dropped variables": ({"xarray:open_kwargs": {"drop_variables": ["tp"]}}, "asks for 'drop_variables'"),
    "another file": ({"xarray:open_kwargs": {"filename_or_obj": "/etc/passwd"}}, "asks for 'filename_or_obj'"),
    "another file system": (
        {"xarray:storage_options": {"fo": "/etc/passwd", "target_protocol": "file"}},
        "asks for 'fo'",
    ),
    "nested": ({"xarray:storage_options": {"client_kwargs": {"auth": "evil"}}}, "asks for 'auth'"),
    "a script": ({"xarray:storage_options": {"get_client": "os.system"}}, "asks for 'get_client'"),
    "an open endpoint": (
        {"xarray:storage_options": {"endpoint_url": "http://169.254.169.254"}},
        "endpoint that is not https",
    ),
    "a number as text": ({"xarray:open_kwargs": {"consolidated": "yes"}}, "consolidated is 'yes'"),
    "options that are none": ({"xarray:open_kwargs": ["engine"]}, "wrong type"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_a_catalog_decides_nothing_but_how_to_read(folder: Path, name: str) -> None:
    fields, says = TRICKS[name]
    with pytest.raises(MdicoError, match=says):
        open_store(item_at(str(folder / "w.zarr"), **fields), "data", Access(), READ)


@pytest.mark.parametrize(
    ("href", "kind", "says"),
    [
        ("x.tif", "image/tiff; application=geotiff", "is no Zarr store .image/tiff"),
        ("x.nc", None, r"is no Zarr store \(x.nc\)"),
        ("nowhere.zarr", None, "is no folder"),
        (".", "application/vnd+zarr", "the Zarr store .* cannot be read"),
        ("reference::s3://x/y.zarr", "application/vnd+zarr", "is no folder"),
    ],
)
def test_what_is_no_store(tmp_path: Path, href: str, kind: str | None, says: str) -> None:
    item = item_at(href if "::" in href else str(tmp_path / href))
    item.assets["data"].media_type = kind
    with pytest.raises(MdicoError, match=says):
        open_store(item, "data", Access(), READ)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/the-store-has-run"),))


@pytest.mark.parametrize("where", ["compressor", "filters", "unknown", "version 3"])
def test_a_store_cannot_run_code(tmp_path: Path, data: xr.Dataset, where: str) -> None:
    """Pickle is a way of packing that numcodecs knows; a chunk packed so would run when it is read."""
    marker = Path("/tmp/the-store-has-run")
    marker.unlink(missing_ok=True)
    write_store(tmp_path / "w.zarr", data, zarr_format=3 if where == "version 3" else 2, consolidated=False)
    if where == "version 3":
        path = tmp_path / "w.zarr" / "latitude" / "zarr.json"
        facts = json.loads(path.read_text())
        facts["codecs"] = [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}]
        chunk = tmp_path / "w.zarr" / "latitude" / "c" / "0"
    else:
        path = tmp_path / "w.zarr" / "latitude" / ".zarray"
        facts = json.loads(path.read_text())
        codec = {"id": "base64" if where == "unknown" else "pickle"}
        facts["filters" if where == "filters" else "compressor"] = [codec] if where == "filters" else codec
        chunk = tmp_path / "w.zarr" / "latitude" / "0"
    path.write_text(json.dumps(facts))
    chunk.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(MdicoError, match=r"cannot be read|is packed by"):
        temperatures(item_at(str(tmp_path / "w.zarr")))
    assert not marker.exists()


def test_a_remote_catalog_cannot_make_us_read_a_local_store(folder: Path, tmp_path: Path, recipe_facts: Any) -> None:
    weather_catalog(tmp_path, [weather_item("w", (folder / "w.zarr").as_uri(), TIMES)])
    with FileServer(tmp_path) as server:
        era5 = {"source": {"collection": "era5", "zarr": RULES}, "href": f"{server.address}/catalog.json"}
        recipe_facts["modalities"] = {"era5": era5, "dem": {}}
        recipe_facts["colearn"]["modalities"] = ["era5", "dem"]
        recipe_facts["period"] = {"start": "2021-01-01", "end": "2021-01-02", "step": "1D"}
        with pytest.raises(
            MdicoError, match=r"asset data points to file://.*w\.zarr, which a remote catalog may not ask for"
        ):
            plan_build(parse_recipe(recipe_facts))


def test_catalogs_check_opens_the_stores(tmp_path: Path, data: xr.Dataset) -> None:
    href = save_weather(tmp_path / "here", data)
    mine = tmp_path / "mine.yml"
    rules = json.dumps({"collection": "era5", "zarr": RULES})
    mine.write_text(f"name: mine\ntitle: Mine\nkind: static\nmodalities:\n  era5: {rules}\n")
    checks = check_catalog(str(mine), str(href))
    assert all(check.passed for check in checks), checks
    assert any("t2m to 2021-01-03" in check.detail for check in checks)
    mine.write_text(mine.read_text().replace('"name": "tp"', '"name": "rain"'))
    shown = CliRunner().invoke(app, ["catalogs", "check", str(mine), "--href", str(href)])
    assert shown.exit_code != 0
    assert "no variable 'rain'" in " ".join(shown.output.split())
