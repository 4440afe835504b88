"""What the page is told is what stands in the cube and its maps; wrong addresses get a sentence, strangers nothing."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import rasterio
import zarr
from odc.geo.geobox import GeoBox
from servers import Loopback
from starlette.routing import Mount

import mdico_cube as mdico
from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.cube.store import create_cube
from mdico_cube.explorer.layers import SensorLayer
from mdico_cube.explorer.pyramid import Kept
from mdico_cube.maps.write import open_map
from mdico_cube.sensors.sentinel1 import MODALITY as SENTINEL1


def get(address: str, host: str | None = None) -> HTTPResponse:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    return urllib.request.urlopen(request, timeout=60)  # type: ignore[no-any-return]


def ask(address: str) -> Any:
    with get(address) as answer:
        return json.load(answer)


def refused(address: str, host: str | None = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as found:
        get(address, host)
    with found.value as error:
        return error.code, error.read().decode()


def picture(address: str) -> np.ndarray:
    with get(address) as answer:
        return matplotlib.image.imread(io.BytesIO(answer.read()), format="png")


def test_the_facts_name_every_layer(address: str, out: Path) -> None:
    facts = ask(f"{address}/api/facts")
    cube = mdico.open_cube(out / "cube.zarr")
    assert [layer["key"] for layer in facts["layers"]] == [
        *("sentinel1", "sentinel2", "dem", "label"),
        *("map0", "map0-confidence", "map1", "map1-confidence"),
    ]
    assert facts["shape"] == [cube.sizes["y"], cube.sizes["x"]]
    assert facts["layers"][1]["steps"] == [str(day)[:10] for day in cube["sentinel2"].time.values]
    assert facts["layers"][3]["legend"] == [
        {"name": e["name"], "color": e["color"]} for e in cube["labels"].attrs["legend"]
    ]


def test_a_label_tile_is_the_labels_in_their_colours(address: str, out: Path) -> None:
    tile, cube = picture(f"{address}/tiles/label/0/0/0.png"), mdico.open_cube(out / "cube.zarr")
    labels = cube["labels"].label.values
    height, width = labels.shape
    assert tile.shape == (256, 256, 4)
    assert (tile[:height, :width, 3] == 1).all()
    assert tile[height:].max() == tile[:, width:].max() == 0, "outside the cube it is transparent"
    for k, entry in enumerate(cube["labels"].attrs["legend"]):
        color = [int(entry["color"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert np.allclose(tile[:height, :width, :3][labels == k], color, atol=1e-3)


def test_a_map_tile_is_the_map(address: str, maps: list[Path]) -> None:
    stored = open_map(maps[0])["class"].values
    tile = picture(f"{address}/tiles/map0/0/0/0.png")[: stored.shape[0], : stored.shape[1], :3]
    colors = [np.unique(tile[stored == value], axis=0) for value in np.unique(stored)]
    assert all(len(found) == 1 for found in colors), "one class, one colour"
    assert len({tuple(found[0]) for found in colors}) == len(colors)


def test_a_sensor_s_steps_and_bands_differ(address: str) -> None:
    tiles = [
        picture(f"{address}/tiles/sentinel2/0/0/0.png?look={look}&step={step}")
        for look in ("rgb:B04,B03,B02", "difference:B08,B04")
        for step in (0, 2)
    ]
    assert len({tile.tobytes() for tile in tiles}) == 4
    for look in ("radar:vv,vh", "one:vv"):
        assert picture(f"{address}/tiles/sentinel1/0/0/0.png?look={look}")[:44, :52, :3].std() > 0.02
    assert picture(f"{address}/tiles/dem/0/0/0.png?look=relief:elevation")[:44, :52, :3].std() > 0.005
    legend = ask(f"{address}/api/legend/sentinel1?look=one:vv")
    assert legend["unit"] == "dB"
    assert legend["limits"][0][0] < -12 < legend["limits"][0][1]


def test_the_range_of_colours_is_that_of_what_was_built(tmp_path: Path, grid: GeoBox) -> None:
    """One shard of 24 x 24 stands: its values, not the emptiness around it, say what is dark and what is bright."""
    path = tmp_path / "cube.zarr"
    create_cube(
        path, GeoBox((768, 768), grid.affine, grid.crs), [Layer(SENTINEL1, ("2021-05-01",))], 16, 32, {}, (24, 24)
    )
    array = zarr.open_group(path, mode="r+")["sentinel1/backscatter"]
    array[:, :, 64:96, 32:64] = SENTINEL1.storage.pack(np.linspace(-20, -10, 2 * 32 * 32).reshape(1, 2, 32, 32))
    Ledger(path, "sentinel1", "r+").record(2, 1, Entry(DONE, digest="00" * 32))
    layer = SensorLayer(mdico.open_reader(path), "sentinel1", Kept())
    assert np.allclose(layer.limits("one:vv"), [(-20, -15)], atol=0.2)
    assert np.allclose(layer.limits("one:vh"), [(-15, -10)], atol=0.2)


def test_a_pixel_is_its_series_its_label_and_its_probabilities(address: str, out: Path, maps: list[Path]) -> None:
    row, column = 20, 31
    facts = ask(f"{address}/api/pixel/{row}/{column}")
    cube = mdico.open_cube(out / "cube.zarr")
    radar = cube["sentinel1"].backscatter.isel(y=row, x=column).values
    (panel,) = [one for one in facts["series"] if one["title"].startswith("Sentinel-1")]
    assert np.allclose([band["values"] for band in panel["bands"]], radar.T, atol=1e-5)
    assert panel["times"] == [int(t) for t in cube["sentinel1"].time.values.astype("datetime64[s]").astype(int)]
    legend = cube["labels"].attrs["legend"]
    assert facts["label"]["name"] == legend[int(cube["labels"].label[row, column])]["name"]
    assert {one["band"] for one in facts["fixed"]} == {"elevation", "slope", "northness", "eastness"}
    for told, path in zip(facts["maps"], maps, strict=True):
        stored = open_map(path).isel(y=row, x=column)
        value = int(stored["class"])
        assert told["class"]["name"] == next(e["name"] for e in stored.attrs["legend"] if e["value"] == value)
        assert told["confidence"] == int(stored.confidence) == max(one["percent"] for one in told["probabilities"])
        assert 97 <= sum(one["percent"] for one in told["probabilities"]) <= 103
    kept = open_map(maps[0]).probabilities.isel(y=row, x=column).values
    assert [one["percent"] for one in facts["maps"][0]["probabilities"]] == kept.tolist()
    assert [one["source"] for one in facts["maps"]] == ["the map's probabilities", "the map's bundle"]


def test_a_pixel_never_seen_has_no_prediction(address: str) -> None:
    facts = ask(f"{address}/api/pixel/6/35")
    (panel,) = [one for one in facts["series"] if one["title"].startswith("Sentinel-2")]
    assert {value for band in panel["bands"] for value in band["values"]} == {None}
    assert [one["class"] is None for one in facts["maps"]] == [False, True]
    assert facts["maps"][1]["probabilities"] is None


def test_the_downloads_are_the_values(address: str, out: Path, maps: list[Path]) -> None:
    with get(f"{address}/download/series-20-31.csv") as answer:
        rows = list(csv.DictReader(io.TextIOWrapper(answer, "utf-8")))
    cube = mdico.open_cube(out / "cube.zarr")
    series = cube.mdico.series(float(cube.x[31]), float(cube.y[20]))
    assert [row["band"] for row in rows] == series.band.tolist()
    window = "row0=-5&row1=30&column0=10&column1=9999"
    with (
        get(f"{address}/download/sentinel2.tif?step=1&{window}") as answer,
        rasterio.MemoryFile(answer.read()) as memory,
        memory.open() as file,
    ):
        values = np.where(file.read() == file.nodata, np.nan, file.read() * file.scales[0])
        wanted = cube["sentinel2"].reflectance.isel(time=1, y=slice(0, 30), x=slice(10, None))
        assert np.allclose(values, wanted.values, atol=1e-6, equal_nan=True)
        x, y = file.xy(0, 0)
        assert (x, y) == (float(wanted.x[0]), float(wanted.y[0]))
        assert file.descriptions == ("B02", "B03", "B04", "B08")
    with (
        get(f"{address}/download/map1-confidence.tif?{window}") as answer,
        rasterio.MemoryFile(answer.read()) as memory,
        memory.open() as file,
    ):
        assert np.array_equal(file.read(1), open_map(maps[1]).confidence.values[:30, 10:])


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("tiles/landsat/0/0/0.png", "no layer 'landsat'"),
        ("tiles/sentinel2/0/0/0.png?look=rgb:B99,B03,B02", "is no picture"),
        ("tiles/sentinel2/0/0/0.png?look=one:B04&step=9", "no step 9"),
        ("tiles/label/-9/0/0.png", "zoom -9"),
        ("tiles/label/zero/0/0.png", "not understood"),
        ("api/pixel/44/0", "outside the cube"),
        ("api/legend/label", "is no sensor"),
        ("download/label.tif?row0=90&row1=99&column0=0&column1=5", "nothing of the cube"),
    ],
)
def test_a_wrong_address_gets_a_sentence(address: str, path: str, says: str) -> None:
    status, body = refused(f"{address}/{path}")
    assert status == 400
    assert says in json.loads(body)["error"]


def test_no_file_beside_the_page_is_handed_out(address: str) -> None:
    for path in ("page/../server.py", "page/%2e%2e/server.py", "page/..%2f..%2ferrors.py"):
        assert refused(f"{address}/{path}")[0] == 404


def test_another_name_of_this_machine_is_not_answered(address: str) -> None:
    assert refused(f"{address}/api/facts", host="evil.example.org")[0] == 400


def test_the_page_loads_nothing_from_elsewhere(address: str) -> None:
    with get(f"{address}/") as answer:
        policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert policy.startswith("default-src 'self'")
    assert "http" not in page.replace("http-equiv", "")


def test_a_map_of_another_cube_is_refused(out: Path, maps: list[Path], toy_cube: Path) -> None:
    with pytest.raises(mdico.MdicoError, match="does not stand on the grid"):
        mdico.explorer_app(toy_cube, maps)
    with pytest.raises(mdico.MdicoError, match=r"cannot be read as a map \(it has no layer 'class'\)"):
        mdico.explorer_app(out / "cube.zarr", [out / "cube.zarr"])
    with pytest.raises(mdico.MdicoError, match=r"none\.zarr: does not exist\. Give the folder"):
        mdico.explorer_app(out / "cube.zarr", [out / "none.zarr"])
    with pytest.raises(mdico.MdicoError, match=r"Give .*m\.zarr, the Zarr beside it"):
        mdico.explorer_app(out / "cube.zarr", [out / "m.tif"])


def test_a_bundle_gives_probabilities_without_a_map(out: Path) -> None:
    teller = mdico.explorer_app(out / "cube.zarr", [], [out / "bundles" / "mdico" / "seed-0" / "sentinel2"])
    assert teller is not None


def test_the_bundle_of_a_map_is_told_once(out: Path, maps: list[Path]) -> None:
    bundles = [out / "bundles" / "mdico" / "seed-0" / name for name in ("sentinel1", "sentinel2")]
    with Loopback(Mount("/", mdico.explorer_app(out / "cube.zarr", maps[:1], bundles))) as server:
        told = ask(f"{server.address}/api/pixel/20/31")["maps"]
    assert [one["source"] for one in told] == ["the map's probabilities", "bundle"]
    assert len({one["title"] for one in told}) == 2


def test_a_map_of_several_sensors_says_which_it_took(out: Path) -> None:
    bundles = [out / "bundles" / "mdico" / "seed-0" / name for name in ("sentinel2", "sentinel1")]
    target = out / "maps" / "mdico-auto-seed0.zarr"
    path = mdico.write_map(
        out / "cube.zarr", bundles, target, overwrite=True, outputs=["entropy"], abstain=0.5, least=3
    )
    stored = open_map(path)
    with Loopback(Mount("/", mdico.explorer_app(out / "cube.zarr", [path]))) as server:
        for row, column in ((20, 31), (6, 35)):
            (told,) = ask(f"{server.address}/api/pixel/{row}/{column}")["maps"]
            pixel = stored.isel(y=row, x=column)
            sensor = pixel.sensor.attrs["flag_meanings"].split()[int(pixel.sensor)]
            assert f"sensor: {sensor}" in told["extras"]
            assert f"entropy: {int(pixel.entropy)} %" in told["extras"]
            assert any(extra.startswith("abstain: unsure") for extra in told["extras"]) == bool(int(pixel.abstain) & 1)
            assert max(one["percent"] for one in told["probabilities"]) == int(pixel.confidence)
            assert told["source"] == "the map's bundle"
    assert sensor == "sentinel1", "Sentinel-2 never saw the second pixel"


def test_attributes_of_a_map_lead_nowhere_else(out: Path, maps: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "run" / "maps" / "m.zarr"
    shutil.copytree(maps[1], copy)
    (tmp_path / "run" / "bundles").mkdir()
    zarr.open_group(copy, mode="r+").attrs["method"] = f"../../../{out.name}/bundles/mdico"
    with Loopback(Mount("/", mdico.explorer_app(out / "cube.zarr", [copy]))) as server:
        (told,) = ask(f"{server.address}/api/pixel/20/31")["maps"]
    assert told["probabilities"] is None
    assert "away" in told["source"]


def test_a_taken_port_is_a_sentence(out: Path) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        with pytest.raises(mdico.MdicoError, match=f"port {port} cannot be used"):
            mdico.explore(out / "cube.zarr", port=port, show=False)


def test_without_its_packages_the_way_out_is_named(out: Path) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        f"import mdico_cube as m\ntry: m.explorer_app({str(out / 'cube.zarr')!r})\n"
        "except m.MdicoError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'mdico-cube[explore]'" in done.stdout
