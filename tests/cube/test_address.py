"""Which addresses may be read, and what of them may be shown."""

from __future__ import annotations

import pytest

from mdico_cube.cube.address import gdal_path, host_of, is_plain, plain, shown


@pytest.mark.parametrize(
    "address",
    [
        "https://host/a/b.tif",
        "HTTPS://host/a/b.tif",
        "https://host/a.tif?sig=a%2Fb&x=/vsicurl/",
        "s3://bucket/a.jp2",
        "gs://bucket/a.tif",
        "az://container/a.tif",
    ],
)
def test_plain_remote_files_may_be_read_from_any_catalog(address: str) -> None:
    assert is_plain(address, remote=True)
    assert is_plain(address, remote=False)


@pytest.mark.parametrize("address", ["/data/a.tif", "a.tif", "file:///data/a.tif", "C:/data/a.tif"])
def test_files_of_this_machine_are_for_its_own_catalogs_only(address: str) -> None:
    assert is_plain(address, remote=False)
    assert not is_plain(address, remote=True)


@pytest.mark.parametrize(
    "address",
    [
        "/vsicurl/https://host/a.tif",
        " /vsizip/a.zip",
        "%2Fvsicurl/file:///etc/passwd",
        "%252Fvsis3/bucket/a.tif",
        "<VRTDataset></VRTDataset>",
        "%3CVRTDataset/%3E",
        "vrt:///etc/passwd",
        "vrt://https://host/a.tif",
        "https://host/a.vrt",
        "https://host/a.VRT?x=1",
        "https://host/a%2Evrt",
        "zip+https://host/a.zip!b.tif",
        "zip:///etc/a.zip!b.tif",
        "tar+file:///etc/a.tar",
        "GTIFF_DIR:1:/etc/a.tif",
        "WMS:https://host/",
        "NETCDF:/etc/a.nc:b",
        "https://host/a.tif\n/vsicurl/x",
        "https://host/a\\b.tif",
        "https:///a.tif",
        "ftp://host/a.tif",
        "data:image/tiff;base64,AAAA",
        "https:/vsizip/a.tif",
    ],
)
def test_tricks_are_refused_whoever_asks(address: str) -> None:
    assert not is_plain(address, remote=True)
    assert not is_plain(address, remote=False)


def test_how_gdal_spells_addresses() -> None:
    assert gdal_path("https://host/a%20b.tif?sig=x%2Fy") == "/vsicurl/https://host/a%20b.tif?sig=x%2Fy"
    assert gdal_path("s3://bucket/a/b.jp2") == "/vsis3/bucket/a/b.jp2"
    assert gdal_path("gs://bucket/a.tif") == "/vsigs/bucket/a.tif"
    assert gdal_path("az://container/a.tif") == "/vsiaz/container/a.tif"
    assert gdal_path("file:///data/a%20b.tif") == "/data/a b.tif"
    assert gdal_path("/data/a.tif") == "/data/a.tif"


def test_nothing_secret_is_shown() -> None:
    assert shown("https://me:pass@host/a.tif?sig=secret#x") == "https://host/a.tif"
    assert plain("cannot open 'https://me:pass@host/a.tif?sig=secret' now") == "cannot open 'https://host/a.tif' now"
    assert host_of("https://me:pass@host:8/a.tif") == "https://host:8"
    assert host_of("/data/a.tif") == ""


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            "NameResolutionError(\"HTTPSConnection(host='host', port=443): Failed to resolve 'host' (Unknown)\")",
            "Failed to resolve 'host' (Unknown)",
        ),
        (
            "NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f>: [Errno 111] Connection refused')",
            "[Errno 111] Connection refused",
        ),
        (
            "ConnectTimeoutError(<HTTPSConnection(host='host', port=443) at 0x7f>, 'Connection to host timed out.')",
            "Connection to host timed out.",
        ),
    ],
)
def test_of_a_lost_connection_only_the_reason_is_said(cause: str, reason: str) -> None:
    pool = "HTTPSConnectionPool(host='host', port=443): Max retries exceeded with url: /v1"
    assert plain(f"{pool} (Caused by {cause})") == reason
