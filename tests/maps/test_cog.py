from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube.cube.ledger import Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.cog import _write, sensor_entries, write_cog
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.write import map_path, open_map, write_map


@pytest.fixture
def source(run):
    return write_map(run.cube, run.bundle(), map_path(run.out, "mdico", "sentinel2", 0))


def test_the_cog_opens_where_it_lies_with_colours_and_nodata(run, source):
    target = write_cog(source, source.with_suffix(".tif"), "wheat & more")
    with rasterio.open(target) as file:
        assert file.crs.to_epsg() == 32631
        assert file.transform == run.reader.geobox.affine
        assert (file.nodata, file.dtypes) == (255, ("uint8",))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "wheat & more"
        colors = file.colormap(1)
        assert colors[1][:3] == (0xE8, 0xC5, 0x47)
        assert colors[4][:3] == (0x2E, 0x7D, 0x32)
        assert np.array_equal(file.read(1), open_map(source)["class"])
    with rasterio.open(target.with_name(f"{target.stem}-confidence.tif")) as file:
        assert file.nodata == 255
        assert np.array_equal(file.read(1), open_map(source)["confidence"])
    assert sorted(path.name for path in target.parent.iterdir() if not path.name.endswith(".zarr")) == [
        "mdico-sentinel2-seed0-confidence.tif",
        "mdico-sentinel2-seed0.tif",
        "mdico-sentinel2-seed0.tif.aux.xml",
    ]


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="gdalinfo is not installed")
def test_gdal_shows_the_class_names(source):
    target = write_cog(source, source.with_suffix(".tif"), "map")
    band = json.loads(subprocess.run(["gdalinfo", "-json", target], capture_output=True, check=True).stdout)["bands"][0]
    text = subprocess.run(["gdalinfo", target], capture_output=True, check=True, text=True).stdout
    assert band["noDataValue"] == 255
    assert band["colorTable"]["entries"][2][:3] == [0xF0, 0x8A, 0x24]
    assert "1: wheat\n      2: maize & beet\n      3: \n      4: forest" in text


def test_a_larger_map_gets_overviews_by_majority(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(1300, 900), dtype="uint8", chunks=(64, 64), shards=(256, 256))
    values = np.kron(np.random.default_rng(0).integers(1, 4, (13, 9)), np.ones((100, 100))).astype(np.uint8)
    array[...] = values
    geobox = GeoBox.from_bbox((0, 0, 9000, 13000), "EPSG:32631", resolution=10)
    _write(array, geobox, tmp_path / "a.tif", "a", "MODE", {k: (k, 0, 0, 255) for k in range(4)})
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.overviews(1)[:1] == [2]
        assert np.array_equal(file.read(1), values)
        assert set(np.unique(file.read(1, out_shape=(325, 225)))) <= {1, 2, 3}


def test_an_incomplete_map_is_refused(run, source):
    Ledger(source, LAYER, "r+").forget(0, 0)
    with pytest.raises(MdicoError, match="lacks 1 shard:"):
        write_cog(source, source.with_suffix(".tif"), "map")
    assert not source.with_suffix(".tif").exists()


def test_an_unwritable_place_is_one_sentence(run, source):
    (run.out / "file").write_text("")
    with pytest.raises(MdicoError, match="cannot be written"):
        write_cog(source, run.out / "file" / "map.tif", "map")


def test_a_failed_copy_leaves_nothing(source, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rasterio.shutil.copy", full)
    with pytest.raises(MdicoError, match="No space left"):
        write_cog(source, source.parent / "cogs" / "map.tif", "map")
    assert not list((source.parent / "cogs").iterdir())


def test_every_variable_gets_a_file_and_the_sensor_has_names_and_colours(run):
    bundles = [run.bundle("sentinel1"), run.bundle("sentinel2")]
    outputs = ("probabilities", "entropy", "observations", "applicability")
    source = write_map(run.cube, bundles, map_path(run.out, "mdico", "auto", 0), outputs=outputs, abstain=0.5)
    target = write_cog(source, source.with_suffix(".tif"), "map")
    map_ = open_map(source)
    for name in ("confidence", *outputs, "abstain", "sensor"):
        with rasterio.open(target.with_name(f"{target.stem}-{name}.tif")) as file:
            assert (file.nodata, file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]) == (255, "COG")
            stored = map_[name].values
            assert np.array_equal(file.read(), stored if stored.ndim == 3 else stored[None])
            if name == "probabilities":
                assert file.descriptions == tuple(item.name for item in run.classes)
            if name == "sensor":
                assert len({file.colormap(1)[value] for value in (0, 1, 2)}) == 3
    side = target.with_name(f"{target.stem}-sensor.tif.aux.xml").read_text()
    assert side.index("none") < side.index("sentinel2") < side.index("sentinel1")


def test_layers_of_an_earlier_map_do_not_stay_beside_a_new_one(run):
    bundle, path = run.bundle("sentinel1"), map_path(run.out, "mdico", "again", 0)
    target = write_cog(write_map(run.cube, bundle, path, abstain=0.5), path.with_suffix(".tif"), "map")
    old = target.with_name(f"{target.stem}-abstain.tif")
    assert old.exists()
    write_cog(write_map(run.cube, bundle, path, overwrite=True), target, "map")
    assert not old.exists()
    assert target.with_name(f"{target.stem}-confidence.tif").exists()


def test_fused_sensors_have_a_name_for_each_set():
    entries = sensor_entries({"flag_masks": [1, 2], "flag_meanings": "radar optical"})
    assert [item.name for item in entries] == ["none", "radar", "optical", "radar + optical"]
    assert [item.value for item in entries] == [0, 1, 2, 3]
