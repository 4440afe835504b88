"""One file, one read: what is opened, what is tried again and how long, what the caller's process notices."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.env
from odc.geo.geobox import GeoBox
from odc.loader import _rio
from odc.loader.types import RasterLoadParams, RasterSource, is_reader_driver
from servers import Faults, FileServer
from toy_world import toy_counts, write_tiff

from mdico_cube.cube import patience
from mdico_cube.cube.access import Access, S3Section, s3_options
from mdico_cube.cube.driver import FileDriver, file_env
from mdico_cube.cube.patience import ReadError
from mdico_cube.cube.tokens import TokenSection
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ReadSection

QUICK = ReadSection(retries=3, backoff=0.002, timeout=1)


@pytest.fixture
def web(tmp_path: Path, grid: GeoBox) -> Iterator[FileServer]:
    write_tiff(tmp_path / "a.tif", toy_counts(1, 5, "B04").astype(np.uint16), grid, 0)
    (tmp_path / "vrt.tif").write_text('<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>')
    (tmp_path / "login.tif").write_text("<html>Please log in</html>" * 99)
    with FileServer(tmp_path) as served:
        yield served


def read(address: str, grid: GeoBox, reading: ReadSection = QUICK) -> Any:
    driver = FileDriver(reading=reading)
    with driver.restore_env({}, None):
        return driver.open(RasterSource(address), None).read(RasterLoadParams(dtype="uint16", fill_value=0), grid)[1]


def test_the_private_parts_of_odc_loader_are_as_we_know_them() -> None:
    """FileDriver stands in for odc-loader's own driver and uses two of its functions: a change there shows here."""
    assert is_reader_driver(FileDriver())
    assert [*signature(_rio.RioReader.read).parameters][1:] == ["cfg", "dst_geobox", "dst", "selection"]
    assert [*signature(_rio.RioDriver.open).parameters][1:] == ["src", "ctx"]
    assert [*signature(_rio.RioDriver.restore_env).parameters][1:] == ["env", "load_state"]


@pytest.mark.parametrize("kind", ["503", "429", "500", "cut", "short", "reset", "slow"])
def test_every_passing_fault_is_waited_out(web: FileServer, grid: GeoBox, kind: str) -> None:
    web.faults = Faults(0.5, (kind,), seed=1, in_a_row=1)
    assert (
        read(f"{web.address}/a.tif", grid, ReadSection(retries=6, backoff=0.002, timeout=1)) == toy_counts(1, 5, "B04")
    ).all()
    assert web.struck >= 1


@pytest.mark.parametrize(("kind", "requests"), [("404", 1), ("410", 1), ("400", 1), ("to file:///etc/passwd", 1)])
def test_what_stays_is_asked_for_once(web: FileServer, grid: GeoBox, kind: str, requests: int) -> None:
    web.faults = Faults(paths={"a.tif": kind})
    with pytest.raises(ReadError):
        read(f"{web.address}/a.tif", grid)
    assert len(web.asked) == requests


@pytest.mark.parametrize("name", ["vrt.tif", "login.tif"])
def test_only_rasters_are_opened_whatever_their_name(web: FileServer, tmp_path: Path, grid: GeoBox, name: str) -> None:
    with pytest.raises(ReadError, match="it is no GeoTIFF and no JPEG 2000 file"):
        read(f"{web.address}/{name}", grid)
    assert len(web.asked) <= 3, "not tried again"
    with pytest.raises(ReadError, match="it is no GeoTIFF and no JPEG 2000 file"):
        read(str(tmp_path / name), grid)


@pytest.mark.parametrize("places", [1, 8])
def test_a_host_is_read_from_so_many_at_a_time(web: FileServer, tmp_path: Path, grid: GeoBox, places: int) -> None:
    reading = ReadSection(per_host=places)
    names = [f"copy{i}.tif" for i in range(8)]
    for name in names:
        shutil.copy(tmp_path / "a.tif", tmp_path / name)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: read(f"{web.address}/{name}", grid, reading), names))
    assert len(found) == 8
    assert web.most == 1 if places == 1 else web.most > 1


def test_pauses_double_and_vary(monkeypatch: pytest.MonkeyPatch, web: FileServer, grid: GeoBox) -> None:
    paused: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", paused.append)
    web.faults = Faults(paths={"a.tif": "503"})
    with pytest.raises(ReadError, match="503"):
        read(f"{web.address}/a.tif", grid, ReadSection(retries=4, backoff=0.001))
    assert len(paused) == 4
    assert all(0.0005 * 2**i <= pause <= 0.001 * 2**i for i, pause in enumerate(paused))
    assert len({pause / 2**i for i, pause in enumerate(paused)}) == 4, "no two by the same share"


def test_the_callers_gdal_settings_are_left_alone(web: FileServer, grid: GeoBox) -> None:
    before = dict(os.environ)
    with rasterio.Env(GDAL_HTTP_TIMEOUT="77", VSI_CACHE="TRUE"):
        settings = rasterio.env.getenv()
        read(f"{web.address}/a.tif", grid)
        assert rasterio.env.getenv() == settings
    found: list[bool] = []
    thread = threading.Thread(target=lambda: (read(f"{web.address}/a.tif", grid), found.append(rasterio.env.hasenv())))
    thread.start()
    thread.join()
    assert found == [False]
    assert dict(os.environ) == before


def test_reading_local_files_costs_hardly_more_than_odc(tmp_path: Path, web: FileServer, grid: GeoBox) -> None:
    """No overhead worth naming: an order of magnitude would show here; the figures are in benchmarks/."""
    source, options = RasterSource(str(tmp_path / "a.tif")), RasterLoadParams(dtype="uint16", fill_value=0)

    def seconds(driver: Any) -> float:
        with driver.restore_env(driver.capture_env(), driver.new_load(grid)) as context:
            start = time.process_time()
            for _ in range(20):
                driver.open(source, context).read(options, grid)
            return time.process_time() - start

    pairs = [(seconds(FileDriver()), seconds(_rio.RioDriver())) for _ in range(5)]
    assert min(ours / theirs for ours, theirs in pairs) < 3


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("shift", [0, 5, 4000])
def test_a_local_file_is_read_again_as_it_was(tmp_path: Path, grid: GeoBox, method: str, shift: float) -> None:
    """The second time it is not asked where it lies: off the grid, beside it and far from it alike."""
    path = tmp_path / "a.tif"
    write_tiff(path, toy_counts(1, 5, "B04").astype(np.uint16), grid, 0)
    other = GeoBox(grid.shape, grid.affine.translation(shift, 0) * grid.affine, grid.crs)
    options = RasterLoadParams(dtype="uint16", fill_value=0, resampling=method)
    reader = FileDriver(reading=QUICK).open(RasterSource(str(path)), None)
    with file_env():
        first, second = (reader.read(options, other)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.any() == (shift < 4000)


def test_a_local_file_that_was_replaced_is_placed_anew(tmp_path: Path, grid: GeoBox) -> None:
    path, counts = tmp_path / "a.tif", toy_counts(1, 5, "B04").astype(np.uint16)
    write_tiff(path, counts, grid, 0)
    assert (read(str(path), grid) == counts).all()
    write_tiff(tmp_path / "b.tif", counts, grid.translate_pix(0, 3), 0)
    (tmp_path / "b.tif").replace(path)
    np.testing.assert_array_equal(read(str(path), grid)[3:], counts[:-3])


def test_a_token_goes_to_its_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "hush")
    access = Access(token=TokenSection(env="MINE", hosts=("example.org",)))
    for address, sent in {
        "https://example.org/a.tif": True,
        "https://data.example.org:8080/a.tif": True,
        "https://badexample.org/a.tif": False,
        "https://example.org.evil.com/a.tif": False,
        "https://evil.com/example.org/a.tif": False,
        "https://example.org@evil.com/a.tif": False,
    }.items():
        reach = access.reach(address, QUICK)
        assert ("hush" in reach.options.get("GDAL_HTTP_HEADERS", "")) is sent, address
        assert "hush" not in repr(reach)


def test_s3_settings_come_from_the_catalog_file_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    assert s3_options(S3Section()) == {"AWS_NO_SIGN_REQUEST": "YES"}, "no credentials here: read as anyone"
    assert s3_options(S3Section(unsigned=False, requester_pays=True)) == {"AWS_REQUEST_PAYER": "requester"}
    with pytest.raises(MdicoError, match="the environment variable KEY is not set"):
        s3_options(S3Section(key="KEY", secret="SECRET"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    assert s3_options(S3Section()) == {}, "GDAL finds them itself"
    found = s3_options(S3Section(endpoint="http://127.0.0.1:9000", path_style=True, region="default"))
    assert found == {
        **{"AWS_S3_ENDPOINT": "127.0.0.1:9000", "AWS_HTTPS": "NO"},
        **{"AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "default"},
    }
