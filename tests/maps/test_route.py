"""Maps of several sensors: each pixel takes the best that was observed there, or all of them, and says so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mdico_cube.colearn.bundle import CONFIG
from mdico_cube.colearn.joint import load_joint
from mdico_cube.cube.reader import forget_readers
from mdico_cube.errors import MdicoError
from mdico_cube.maps.outputs import NODATA
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.predict import predict_map
from mdico_cube.maps.route import assign
from mdico_cube.maps.write import open_map, write_map

EXTRAS = ("probabilities", "observations", "applicability")
CLOUD = (slice(10, 30), slice(8, 40))


def both(run):
    return [run.bundle("sentinel1"), run.bundle("sentinel2")]


@pytest.fixture
def cloudy(run):
    """A field of cloud that the optical sensor never saw through, and a corner without radar."""
    root = zarr.open_group(run.cube, mode="r+")
    optical, radar = root["sentinel2/reflectance"], root["sentinel1/backscatter"]
    cloud = optical[:, :, *CLOUD]
    cloud[...] = optical.fill_value
    optical[:, :, *CLOUD] = cloud
    corner = radar[:, :, 40:, :]
    corner[...] = radar.fill_value
    radar[:, :, 40:, :] = corner
    optical[:, :, 42:, 48:] = np.full_like(optical[:, :, 42:, 48:], optical.fill_value)
    forget_readers()
    return run


def test_a_cloud_is_mapped_by_radar_and_says_so(cloudy):
    run = cloudy
    found = open_map(write_map(run.cube, both(run), run.out / "maps" / "auto.zarr", outputs=EXTRAS))
    alone = {name: open_map(write_map(run.cube, run.bundle(name), run.out / "maps" / f"{name}.zarr", outputs=EXTRAS))
             for name in ("sentinel1", "sentinel2")}  # fmt: skip
    sensor = found["sensor"]
    assert sensor.attrs["flag_meanings"] == "none sentinel2 sentinel1"  # sentinel2 has the better validation score
    assert sensor.attrs["flag_values"] == [0, 1, 2]
    optical = run.reader.read("sentinel2", *run.everything)[1].any(axis=0)
    radar = run.reader.read("sentinel1", *run.everything)[1].any(axis=0)
    assert np.array_equal(sensor, np.where(optical, 1, np.where(radar, 2, 0)))
    assert (sensor.values[CLOUD] == 2).all()
    assert (sensor.values[42:, 48:] == 0).all()
    for name in ("class", "confidence", "observations", "applicability"):
        expected = np.where(optical, alone["sentinel2"][name], alone["sentinel1"][name])
        assert np.array_equal(found[name], expected)
    assert (found["class"].values == NODATA).sum() == ((~optical) & (~radar)).sum() > 0
    assert found.attrs["modality"] == "auto"
    assert found.attrs["modalities"] == ["sentinel2", "sentinel1"]


def test_the_order_is_that_of_the_validation_scores_not_of_the_arguments(run):
    assert plan_map(run.cube, both(run)).modalities == ("sentinel2", "sentinel1")
    assert plan_map(run.cube, both(run)[::-1]).modalities == ("sentinel2", "sentinel1")
    path = run.bundle("sentinel1") / CONFIG
    facts = json.loads(path.read_text())
    facts["training"]["val_f1"] = 0.9
    path.write_text(json.dumps(facts))
    assert plan_map(run.cube, both(run)).modalities == ("sentinel1", "sentinel2")


def test_blockwise_equals_whole_for_several_sensors(cloudy):
    run = cloudy
    for bundle in (both(run), run.bundle("fused")):
        outputs = () if bundle == run.bundle("fused") else EXTRAS
        plan = plan_map(run.cube, bundle, pixels=50, outputs=outputs, abstain=0.6, least=3)
        whole = plan.predict(*run.everything)
        for y, x in ((slice(3, 17), slice(9, 31)), (slice(40, 44), slice(0, 52)), (slice(11, 12), slice(11, 12))):
            assert np.array_equal(plan.predict(y, x), whole[:, y, x])


@given(
    hnp.arrays(bool, (3, 4, 5)), hnp.arrays(bool, (1, 4, 5)), hnp.arrays(bool, (4, 5)), st.integers(1, 4)
)  # fmt: skip
def test_the_first_with_enough_is_taken_else_the_first_with_any(series, single, wanted, least):
    chosen = assign([series, single], wanted, least)
    for y, x in np.ndindex(4, 5):
        counts, sides = (int(series[:, y, x].sum()), int(single[0, y, x])), (3, 1)
        enough = [n for n in (0, 1) if counts[n] >= min(least, sides[n])]
        some = [n for n in (0, 1) if counts[n]]
        expected = -1 if not wanted[y, x] else (enough or some or [-1])[0]
        assert chosen[y, x] == expected


def test_a_sensor_with_too_few_steps_gives_way(run):
    plain, strict = (predict_map(run.cube, both(run), least=least).compute() for least in (1, 4))
    seen = run.reader.read("sentinel2", *run.everything)[1].sum(axis=0)
    assert np.array_equal(strict["sensor"] == 1, seen >= 4)
    assert np.array_equal(plain["sensor"] == 1, seen >= 1)
    assert 0 < (seen >= 4).mean() < (seen >= 1).mean()


def test_sensors_that_no_pixel_needs_are_not_read(run, monkeypatch):
    plan = plan_map(run.cube, both(run))
    assert len(plan.gather(slice(20, 30), slice(0, 9)).inputs) == 1 + (
        not run.reader.read("sentinel2", slice(20, 30), slice(0, 9))[1].any(axis=0).all()
    )
    assert len(plan.gather(slice(5, 9), slice(30, 44)).inputs) == 2  # never seen by the optical sensor


def test_fused_takes_what_is_there(cloudy):
    run = cloudy
    joint = load_joint(run.bundle("fused"))
    written = open_map(write_map(run.cube, run.bundle("fused"), run.out / "maps" / "fused.zarr", pixels=64))
    assert written["sensor"].attrs["flag_masks"] == [1, 2]
    assert written["sensor"].attrs["flag_meanings"] == "sentinel1 sentinel2"
    images, valid = {}, {}
    for name in ("sentinel1", "sentinel2"):
        values, mask = run.reader.read(name, *run.everything)
        images[name], valid[name] = torch.from_numpy(values)[None], torch.from_numpy(mask)[None]
    with torch.inference_mode():
        logits = joint.model.fused(images, valid)[0]
    seen = {name: mask[0].any(dim=0).numpy() for name, mask in valid.items()}
    bits = seen["sentinel1"] + 2 * seen["sentinel2"]
    assert np.array_equal(written["sensor"], bits)
    values = np.array([item.value for item in run.classes])
    expected = np.where(bits > 0, values[logits.argmax(dim=0).numpy()], NODATA)
    assert (written["class"].values != expected).mean() < 0.001
    alone = open_map(write_map(run.cube, run.bundle("sentinel1"), run.out / "maps" / "radar.zarr", pixels=64))
    only = bits == 1
    assert only[CLOUD].all()
    assert np.array_equal(written["class"].values[only], alone["class"].values[only])
    assert written.attrs["modality"] == "fused"


def test_what_cannot_be_chosen_among_is_refused(run):
    with pytest.raises(MdicoError, match="two of them map with sentinel1"):
        plan_map(run.cube, [run.bundle("sentinel1"), run.bundle("sentinel1", "independent")])
    with pytest.raises(MdicoError, match="fuses sensors and cannot be chosen among"):
        plan_map(run.cube, [run.bundle("sentinel1"), run.bundle("fused")])
    with pytest.raises(MdicoError, match="a map needs a bundle"):
        plan_map(run.cube, [])
    with pytest.raises(MdicoError, match="fuses sensors, and the distance"):
        plan_map(run.cube, run.bundle("fused"), outputs=("applicability",))
    path = run.bundle("sentinel1") / CONFIG
    facts = json.loads(path.read_text())
    facts["classes"][0]["name"] = "barley"
    path.write_text(json.dumps(facts))
    with pytest.raises(MdicoError, match="has other classes"):
        plan_map(run.cube, both(run))


def test_applicability_tells_strange_pixels_and_abstain_marks_them(run):
    root = zarr.open_group(run.cube, mode="r+")
    array = root["sentinel2/reflectance"]
    patch = array[:, :, 20:28, 20:28]
    array[:, :, 20:28, 20:28] = np.where(patch == array.fill_value, patch, 60000)  # a reflectance of 6
    found = open_map(
        write_map(run.cube, run.bundle(), run.out / "maps" / "a.zarr", outputs=("applicability",), abstain=0.5)
    )
    plain = open_map(write_map(run.cube, run.bundle(), run.out / "maps" / "b.zarr"))
    assert np.array_equal(found["class"], plain["class"])  # asking for the distance changes no class
    seen = found["class"].values != NODATA
    strange = np.zeros(seen.shape, bool)
    strange[20:28, 20:28] = True
    assert (found["applicability"].values[strange & seen] == 254).all()
    assert np.median(found["applicability"].values[~strange & seen]) < 150
    bits = (found["applicability"].values > 100) * 2
    near = np.abs(found["applicability"].values.astype(int) - 100) <= 1
    unsure = found["confidence"].values < 50
    close = np.abs(found["confidence"].values.astype(int) - 50) <= 1
    clear = seen & ~near & ~close
    assert np.array_equal(found["abstain"].values[clear], (bits + unsure)[clear])
    assert found["abstain"].attrs["flag_masks"] == [1, 2]
    assert len(np.unique(found["abstain"].values[clear])) > 1


def test_a_bundle_without_a_reference_refuses_the_distance(run):
    path = run.bundle() / CONFIG
    facts = json.loads(path.read_text())
    facts["applicability"] = None
    path.write_text(json.dumps(facts))
    with pytest.raises(MdicoError, match="knows nothing of its training data's reach"):
        plan_map(run.cube, run.bundle(), outputs=("applicability",))


def test_a_damaged_joint_bundle_is_one_sentence(run):
    folder = run.bundle("fused")
    (folder / "joint.json").write_text("{}")
    with pytest.raises(MdicoError, match=r"joint.json is missing or damaged"):
        plan_map(run.cube, folder)
    shutil.copytree(run.bundle("fused", "independent"), run.out / "other")
    weights = run.out / "other" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(MdicoError, match="checksum differs"):
        plan_map(run.cube, run.out / "other")
