"""Windows of a fixed grid: their weights sum to one, and no block layout changes a bit of what they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mdico_cube.colearn.registry import get_method
from mdico_cube.cube.ledger import DONE, Entry, Ledger
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import Tiling, blend, tiling_of
from mdico_cube.maps.block import predict_windows
from mdico_cube.maps.gathered import Input
from mdico_cube.maps.mapstore import LAYER
from mdico_cube.maps.outputs import NODATA, Layers
from mdico_cube.maps.plan import plan_map
from mdico_cube.maps.write import open_map, write_map
from mdico_cube.recipe import ColearnSection
from mdico_cube.sensors.sentinel2 import MODALITY as SENTINEL2
from mdico_cube.spec import BandStats, InputSpec

SHAPE = (41, 53)
STEPS = ("2021-04-01", "2021-05-01", "2021-06-01")
BANDS = SENTINEL2.select(("B02", "B08"))
EXTRAS = Layers(probabilities=True, entropy=True, observations=True, abstain=0.4)


def spatial_model(encoder: str, seed: int = 0) -> nn.Module:
    section = ColearnSection(
        modalities=("a", "b"), encoder={"name": encoder, "width": 8, "hidden": 8, "dense": 8, "layers": 1, "heads": 2}
    )
    spec = InputSpec(BANDS, STEPS, BandStats((0.2, 0.3), (0.1, 0.1), 10))
    torch.manual_seed(seed)
    return get_method("mdico").build_single(spec, 3, section).eval()


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    values = rng.normal(0.25, 0.1, (3, 2, *SHAPE)).astype(np.float32)
    valid = rng.random((3, *SHAPE)) < 0.7
    valid[:, 10:15, 20:30] = False
    return values * valid[:, None], valid


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 80), st.integers(1, 60))
def test_at_every_pixel_the_weights_sum_to_one(margin, spare, begin, length):
    tiling = Tiling(4 * margin + spare, margin, margin)
    total = np.zeros(begin + length)
    for start in tiling.starts(begin, begin + length):
        for at, weight in enumerate(tiling.weights):
            if 0 <= start + at < begin + length:
                total[start + at] += weight
    assert total[begin:] == pytest.approx(1)


@given(st.integers(1, 9), st.integers(0, 200), st.integers(1, 50))
def test_windows_read_no_further_than_they_say(halo, begin, length):
    tiling = Tiling(4 * halo, halo, halo)
    found = tiling.starts(begin, begin + length)
    assert found[0] >= begin - tiling.reach or found[0] < 0
    assert found[-1] + tiling.side <= begin + length + tiling.reach + 1


@pytest.mark.parametrize("encoder", ["resnet", "unet"])
def test_blockwise_equals_whole_raster_bit_for_bit(arrays, encoder):
    """Scores as float32, for any block, read with no more than the reach around it."""
    values, valid = arrays
    model = spatial_model(encoder)
    tiling = tiling_of(model, 48)
    everything = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    seen = valid.any(axis=0)
    whole = blend(model, [Input(values, valid)], (0, 0), everything, seen, tiling)
    assert whole[:, seen].std() > 0.01

    @settings(max_examples=8, deadline=None)
    @given(st.integers(0, 40), st.integers(1, 41), st.integers(0, 52), st.integers(1, 53))
    def law(top, tall, left, wide):
        y, x = slice(top, min(top + tall, SHAPE[0])), slice(left, min(left + wide, SHAPE[1]))
        first = max(0, y.start - tiling.reach), max(0, x.start - tiling.reach)
        read = (..., slice(first[0], y.stop + tiling.reach), slice(first[1], x.stop + tiling.reach))
        part = blend(model, [Input(values[read], valid[read])], first, (y, x), seen[y, x], tiling)
        assert len(part) in (0, 3)
        if len(part):
            assert np.array_equal(part, whole[:, y, x])
        stack = predict_windows(model, [Input(values[read], valid[read])], first, (y, x), tiling, (1, 2, 4), EXTRAS)
        assert np.array_equal(stack, bytes_[:, y, x])

    bytes_ = predict_windows(model, [Input(values, valid)], (0, 0), everything, tiling, (1, 2, 4), EXTRAS)
    law()


def test_far_from_window_edges_the_blend_is_the_model_itself(arrays):
    """Where the halo covers what a pixel sees, windows agree, and their blend is what one large image gives."""
    values, valid = arrays
    model = spatial_model("resnet")
    tiling = tiling_of(model, 32)
    inner = (slice(tiling.margin, SHAPE[0] - tiling.margin), slice(tiling.margin, SHAPE[1] - tiling.margin))
    found = blend(model, [Input(values, valid)], (0, 0), inner, valid.any(axis=0)[inner], tiling)
    with torch.inference_mode():
        whole = model(torch.from_numpy(values)[None], torch.from_numpy(valid)[None])[0].numpy()
    seen = valid.any(axis=0)[inner]
    assert np.abs(found - whole[(..., *inner)])[:, seen].max() < 1e-5


def test_windows_without_a_wanted_pixel_are_left_out(arrays):
    values, valid = arrays
    asked = []

    def model(images, masks):
        asked.append(images.shape)
        return images[:, 0]

    everything = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    wanted = np.zeros(SHAPE, bool)
    tiling = Tiling(16, 2, 2)
    assert (
        predict_windows(model, [Input(values, valid)], (0, 0), everything, tiling, (1, 2), wanted=wanted).min()
        == NODATA
    )
    assert not asked
    wanted[20, 20] = True
    blend(model, [Input(values, valid)], (0, 0), everything, wanted, tiling)
    assert set(asked) == {(1, 3, 2, 16, 16)}
    assert len(asked) <= 4


def test_a_window_that_does_not_suit_the_model_is_refused():
    model = spatial_model("unet")
    halo, stride = model.encoder_unique.halo, model.encoder_unique.stride
    assert tiling_of(nn.Linear(2, 2), 8) is None
    with pytest.raises(MdicoError, match=rf"maps.window: 8 pixels .*{halo} pixels around.*Use {4 * halo}"):
        tiling_of(model, 8)
    with pytest.raises(MdicoError, match=f"multiples of {stride}"):
        tiling_of(model, 4 * halo + 1)


def test_a_map_by_an_encoder_that_sees_neighbours_is_seamless_across_shards(run):
    """The whole way: a U-Net's bundle, the cube's shards of 16 pixels, windows of 64 that reach into others."""
    run.make_bundles(run.out / "spatial", "mdico", 0, {"name": "unet", "layers": 1, "heads": 2, "hidden": 8})
    bundle, outputs = run.out / "spatial" / "sentinel2", ("probabilities", "entropy", "applicability")
    plan = plan_map(run.cube, bundle, window=48, outputs=outputs, abstain=0.5)
    assert plan.reach > run.shard
    whole = plan.predict(*run.everything)
    assert len(np.unique(whole[0])) > 1
    written = open_map(
        write_map(run.cube, bundle, run.out / "maps" / "a.zarr", window=48, outputs=outputs, abstain=0.5)
    )
    for each in plan.variables:
        assert np.array_equal(written[each.name], each.of(whole)), each.name
    Ledger(run.cube, "sentinel2", "r+").record(0, 0, Entry(DONE, digest="anew"))
    due = np.argwhere(plan.digests() != [[entry_digest(run, y, x) for x in range(4)] for y in range(3)])
    around = -(-plan.reach // run.shard)
    assert {tuple(place) for place in due.tolist()} == {
        (y, x) for y in range(3) for x in range(4) if max(y, x) <= around
    }  # what reads the new shard is stale, and no more
    auto = plan_map(run.cube, [bundle, run.bundle("sentinel1")], window=48)
    everything = auto.predict(*run.everything)
    part = auto.predict(slice(5, 20), slice(25, 50))
    assert np.array_equal(part, everything[:, 5:20, 25:50])


def entry_digest(run, row, column):
    return Ledger(run.out / "maps" / "a.zarr", LAYER).read(row, column).digest
