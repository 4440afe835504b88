"""Building a cube from a catalog of known pixels: values, gaps, resume, faults."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any, get_args

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from toy_world import S2_BANDS, SIZE, World, toy_counts

from mdico_cube.cube import build as build_module
from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.ledger import DONE, FAILED, GAPS, MISSING, FailedRead, Ledger
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import CubeReader, open_cube, open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Recipe, Reducer, parse_recipe

WHOLE = (slice(0, SIZE[0]), slice(0, SIZE[1]))


def expected_counts(month: int, band: str) -> np.ndarray[Any, Any]:
    """Median of three scenes, the middle one cloudy in the first eight rows and so hidden in four more."""
    scenes = np.stack([toy_counts(month, day, band) for day in (5, 15, 25)]).astype(float)
    scenes[1, : 8 + 4] = np.nan
    return np.floor(np.nanmedian(scenes, axis=0) + 0.5)


def test_the_cube_holds_what_the_scenes_say(standing: Path) -> None:
    reader = open_reader(standing)
    for month in (1, 2, 3):
        for i, band in enumerate(S2_BANDS):
            stored = reader.stored("sentinel2", *WHOLE)[month - 1, i]
            assert (stored == expected_counts(month, band)).all(), (month, band)


def test_radar_is_averaged_as_power_and_stored_as_decibels(standing: Path, toy_catalog: Path) -> None:
    reader = open_reader(standing)
    power = [
        rasterio.open(toy_catalog.parent / f"sentinel-1-rtc/S1_202102{day}/vv.tif").read(1).astype(np.float64)
        for day in ("05", "15", "25")
    ]
    values, observed = reader.read("sentinel1", *WHOLE)
    assert observed.all()
    np.testing.assert_allclose(values[1, 0], 10 * np.log10(np.mean(power, axis=0)), atol=0.0051)


def test_terrain_is_exact_across_shard_edges(standing: Path) -> None:
    values, observed = open_reader(standing).read("dem", *WHOLE)
    assert observed.all()
    np.testing.assert_allclose(values[0, 1], np.degrees(np.arctan(np.hypot(0.05, 0.02))), atol=1e-3)


def test_any_block_computes_the_same_as_the_whole(recipe: Recipe) -> None:
    """Blockwise equals whole raster, for every modality."""
    plan = plan_build(recipe)
    for layer in plan.layers:
        whole = compute_block(layer, plan.geobox)
        for y, x in ((slice(0, 20), slice(0, 33)), (slice(17, 64), slice(31, 96)), (slice(63, 64), slice(95, 96))):
            part = compute_block(layer, plan.geobox[y, x])
            np.testing.assert_array_equal(part, whole[..., y, x])


def test_the_number_of_threads_does_not_matter(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    for layer in plan.layers:
        np.testing.assert_array_equal(compute_block(layer, plan.geobox, 1), compute_block(layer, plan.geobox, 4))


def test_a_month_without_scenes_is_missing_and_said(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["period"]["end"] = "2021-05-31"
    recipe = parse_recipe(recipe_facts)
    assert plan_build(recipe).gaps() == {
        "sentinel1": ("2021-04-01", "2021-05-01"),
        "sentinel2": ("2021-04-01", "2021-05-01"),
    }
    reader = open_reader(build_cube(recipe))
    values, observed = reader.read("sentinel2", *WHOLE)
    assert not observed[3:].any()
    assert observed[:3].all()
    assert (values[3:] == 0).all()


@pytest.mark.parametrize("reducer", get_args(Reducer))
def test_what_was_not_observed_is_missing_never_zero(recipe_facts: dict[str, Any], reducer: Reducer) -> None:
    """A step without a scene, and a pixel that no scene of a step saw, under every reducer."""
    recipe_facts["period"] = {
        "windows": [["2021-01-01", "2021-01-10"], ["2021-01-14", "2021-01-16"], ["2021-05-01", "2021-05-31"]]
    }
    recipe_facts["modalities"] = {
        "sentinel2": {"bands": ["B04"], "reducer": reducer},
        "sentinel1": {"reducer": reducer},
    }
    plan = plan_build(parse_recipe(recipe_facts))
    for layer, never in zip(plan.layers, (12, 0), strict=True):  # rows under the cloud of the second window
        stored = compute_block(layer, plan.geobox)
        storage = layer.modality.storage
        assert stored.dtype == storage.dtype
        missing = ~storage.observed(stored)
        assert not missing[0].any()
        assert missing[1, :, :never].all()
        assert not missing[1, :, never:].any()
        assert missing[2].all()
        assert (stored[~missing] != 0).all()


def test_counting_observations(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["modalities"]["sentinel2"]["reducer"] = "count"
    reader = open_reader(build_cube(parse_recipe(recipe_facts)))
    values, observed = reader.read("sentinel2", *WHOLE)
    assert reader.modalities["sentinel2"].band_names == ("count",)
    assert observed.all()
    assert (values[:, 0, :12] == 2).all()
    assert (values[:, 0, 12:] == 3).all()
    recipe_facts["modalities"]["dem"] = {"reducer": "count"}
    with pytest.raises(MdicoError, match="Terrain has no time steps to reduce"):
        plan_build(parse_recipe(recipe_facts))


def test_counts_stand_beside_a_composite(recipe_facts: dict[str, Any], standing: Path) -> None:
    """One band is enough to count by, and the count is that of the composite's own scenes."""
    alone = open_reader(standing).stored("sentinel2", *WHOLE)
    recipe_facts["modalities"]["sentinel2_count"] = {}
    reader = open_reader(build_cube(parse_recipe(recipe_facts)))
    np.testing.assert_array_equal(reader.stored("sentinel2", *WHOLE), alone)
    values, observed = reader.read("sentinel2_count", *WHOLE)
    assert reader.modalities["sentinel2_count"].band_names == ("count",)
    assert observed.all()
    assert (values[:, 0, :12] == 2).all()
    assert (values[:, 0, 12:] == 3).all()


def test_steps_carry_their_start_and_their_end(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["period"] = {"windows": [["2021-01-01", "2021-01-16"], ["2021-02-20", "2021-03-31"]]}
    recipe = parse_recipe(recipe_facts)
    group = open_cube(build_cube(recipe))["sentinel2"]
    assert group["time"].encoding["bounds"] == "time_bounds"
    bounds = group["time_bounds"].values.astype("datetime64[D]").astype(str).tolist()
    assert bounds == [["2021-01-01", "2021-01-17"], ["2021-02-20", "2021-04-01"]]
    assert group["time"].values.astype("datetime64[D]").astype(str).tolist() == [start for start, _ in bounds]
    assert len(plan_build(recipe).layers[1].scenes) == 2 + 1 + 3
    recipe_facts["period"]["windows"][1][1] = "2021-03-30"
    with pytest.raises(MdicoError, match="other bands or steps of sentinel1, sentinel2"):
        build_cube(parse_recipe(recipe_facts), resume=True)


def test_the_ledger_tells_items_and_offsets(standing: Path) -> None:
    entry = Ledger(standing, "sentinel2").read(0, 0)
    assert entry.state == DONE
    assert len(entry.items) == 9
    assert entry.offsets["S2_20210105"].startswith("+0 ")
    assert entry.offsets["S2_20210305"].startswith("-0.1 ")
    assert entry.valid_fraction == 1
    assert (Ledger(standing, "sentinel1").states() == DONE).all()
    assert Ledger(standing, "sentinel1").states().shape == (2, 3)


def test_people_see_physical_values_and_coordinates(standing: Path) -> None:
    tree = open_cube(standing)
    reflectance = tree["sentinel2/reflectance"]
    value = reflectance.sel(band="B08", time="2021-02-01").isel(x=10, y=20).compute().item()
    assert value == pytest.approx(expected_counts(2, "B08")[20, 10] * 1e-4)
    assert tree["sentinel2"].to_dataset().odc.geobox == open_reader(standing).geobox


def test_an_existing_cube_is_refused_resumed_or_replaced(
    recipe: Recipe, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MdicoError, match=r"exists already\. Use --resume"):
        build_cube(recipe)
    runs: list[str] = []
    run = build_module.run_job
    monkeypatch.setattr(build_module, "run_job", lambda *a: (runs.append(a[1].layer.modality.name), run(*a))[1])
    build_cube(recipe, resume=True)
    assert runs == []
    build_cube(recipe, overwrite=True)
    assert len(runs) == 18
    assert copied.exists()


@pytest.mark.parametrize("stop_after", [0, 1, 7])
def test_resume_after_a_stop_gives_the_same_cube(
    recipe: Recipe, standing: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    run, count = build_module.run_job, [0]

    def stopping(*args: Any) -> str:
        if count[0] == stop_after:
            raise KeyboardInterrupt
        count[0] += 1
        return run(*args)

    monkeypatch.setattr(build_module, "run_job", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_cube(recipe)
    monkeypatch.setattr(build_module, "run_job", lambda *a: (count.__setitem__(0, count[0] + 1), run(*a))[1])
    path = build_cube(recipe, resume=True)
    assert count[0] == 18, "no finished shard is built again"
    first, second = open_reader(standing), open_reader(path)
    for name in first.modalities:
        np.testing.assert_array_equal(first.stored(name, *WHOLE), second.stored(name, *WHOLE))
        np.testing.assert_array_equal(Ledger(standing, name).states(), Ledger(path, name).states())


def test_a_stop_between_pixels_and_ledger_leaves_no_wrong_shard(
    recipe: Recipe, copied: Path, recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild under another rule is stopped after the pixels; going back to the old rule must build them again."""
    before = open_reader(copied).stored("sentinel2", *WHOLE)
    recipe_facts["modalities"]["sentinel2"]["reducer"] = "first"
    record = Ledger.record

    def stop(self: Ledger, *args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "record", stop)
    with pytest.raises(KeyboardInterrupt):
        build_cube(parse_recipe(recipe_facts), resume=True)
    monkeypatch.setattr(Ledger, "record", record)
    build_cube(recipe, resume=True)
    np.testing.assert_array_equal(open_reader(copied).stored("sentinel2", *WHOLE), before)


def test_unbuilt_shards_are_not_sampled(copied: Path) -> None:
    Ledger(copied, "sentinel1", mode="r+").forget(1, 1)
    with pytest.raises(MdicoError, match="lacks 1 shard of sentinel1"):
        open_reader(copied).check_complete(["sentinel1"])
    open_reader(copied).check_complete(["sentinel2", "dem"])


def test_a_corrected_baseline_makes_a_shard_stale(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    (layer,) = [layer for layer in plan.layers if layer.modality.name == "sentinel2"]
    before = layer.digest(plan.geobox)
    layer.scenes[0].item.properties["s2:processing_baseline"] = "05.00"
    assert replace(layer).digest(plan.geobox) != before


@pytest.mark.usefixtures("copied")
def test_resume_on_another_grid_or_other_bands_is_refused(recipe_facts: dict[str, Any]) -> None:
    recipe_facts["modalities"]["sentinel2"]["bands"] = ["B04"]
    with pytest.raises(MdicoError, match="other bands or steps of sentinel2"):
        build_cube(parse_recipe(recipe_facts), resume=True)
    recipe_facts["area"]["bounds"][2] -= 100
    with pytest.raises(MdicoError, match="another grid"):
        build_cube(parse_recipe(recipe_facts), resume=True)


@pytest.fixture
def breakable(toy_catalog: Path, recipe_facts: dict[str, Any], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the toy catalog whose files may be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(toy_catalog.parent, folder)
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(str(toy_catalog.parent), str(folder)))
    return folder, {**recipe_facts, "href": str(folder / "catalog.json")}


def test_a_truncated_file_is_named_and_the_rest_is_built(breakable: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = breakable
    broken = folder / "sentinel-2-l2a/S2_20210215/B08.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    recipe = parse_recipe(facts)
    with pytest.raises(MdicoError, match=r"item S2_20210215, asset B08 cannot be read.*--resume"):
        build_cube(recipe)
    path = recipe.output / "cube.zarr"
    assert (Ledger(path, "sentinel1").states() == DONE).all()
    states = Ledger(path, "sentinel2").states()
    assert (states == FAILED).any()
    assert not (states == MISSING).any()
    broken.write_bytes(whole)
    build_cube(recipe, resume=True)
    assert (Ledger(path, "sentinel2").states() == DONE).all()
    assert (open_reader(path).stored("sentinel2", *WHOLE)[1, 1] == expected_counts(2, "B08")).all()


def test_a_missing_asset_is_named_before_anything_is_written(breakable: tuple[Path, dict[str, Any]]) -> None:
    _, facts = breakable
    facts["modalities"]["sentinel2"] = {"bands": ["B04", "B11"]}
    recipe = parse_recipe(facts)
    with pytest.raises(MdicoError, match="has no asset B11: it has B04, B08, SCL"):
        build_cube(recipe)
    assert not recipe.output.exists()


def test_an_unwritable_folder_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(MdicoError, match=r"cannot be written .*choose another place"):
        build_cube(recipe.model_copy(update={"output": blocker / "out"}))


def test_a_full_disk_keeps_what_was_finished(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    record, count = Ledger.record, [0]

    def full(self: Ledger, *args: Any) -> None:
        count[0] += 1
        if count[0] == 5:
            raise OSError(28, "No space left on device")
        record(self, *args)

    monkeypatch.setattr(Ledger, "record", full)
    with pytest.raises(MdicoError, match=r"No space left on device.*--resume"):
        build_cube(recipe)
    monkeypatch.setattr(Ledger, "record", record)
    path = build_cube(recipe, resume=True)
    for name in ("sentinel1", "sentinel2", "dem"):
        assert (Ledger(path, name).states() == DONE).all()


def test_two_granules_in_two_zones_count_as_one_overpass(
    tmp_path: Path, grid: GeoBox, recipe_facts: dict[str, Any]
) -> None:
    """The overlap of two granules of one pass is one observation, not two; each granule keeps its own offset."""
    world = World(tmp_path / "zones", grid)
    collection = world.collection("sentinel-2-l2a")
    left, right = grid[:, :64], grid[:, 32:]
    facts = {"platform": "sentinel-2a"}
    for name, part, counts, baseline in (("A", left, 1500, "03.01"), ("B", right, 2600, "04.00")):
        scene = np.full(part.shape, counts, dtype=np.uint16)
        assets = {"B04": scene, "B08": scene, "SCL": np.full(part.shape, 4, np.uint8)}
        properties = {**facts, "s2:processing_baseline": baseline, "s2:mgrs_tile": name}
        world.item(collection, name, "2021-01-05T10:30:00Z", assets, properties, grid=part)
    later = np.full(SIZE, 1700, dtype=np.uint16)
    assets = {"B04": later, "B08": later, "SCL": np.full(SIZE, 4, np.uint8)}
    world.item(collection, "C", "2021-01-15T10:30:00Z", assets, {**facts, "s2:processing_baseline": "03.01"})
    recipe_facts |= {"href": str(world.save()), "modalities": {"sentinel2": {"bands": list(S2_BANDS)}, "sentinel1": {}}}
    recipe_facts["period"]["end"] = "2021-01-31"
    recipe = parse_recipe(recipe_facts)
    layer = plan_build(recipe.model_copy(update={"modalities": {"sentinel2": recipe.modalities["sentinel2"]}})).layers[
        0
    ]
    stored = compute_block(layer, grid)[0, 0]
    assert (stored[:, :64] == 1600).all(), "median of 1500 and 1700; the overlap takes the first granule"
    assert (stored[:, 64:] == 1650).all(), "median of 2600 - 1000 and 1700"


def test_newest_processing_wins(tmp_path: Path, grid: GeoBox, recipe_facts: dict[str, Any]) -> None:
    world = World(tmp_path / "twice", grid)
    collection = world.collection("sentinel-2-l2a")
    for name, when, baseline, counts in (
        ("old", "2021-01-05T10:30:00.000Z", "02.14", 111),
        ("new", "2021-01-05T10:30:00.001Z", "05.00", 3000),
    ):
        scene = np.full(SIZE, counts, dtype=np.uint16)
        assets = {"B04": scene, "B08": scene, "SCL": np.full(SIZE, 4, np.uint8)}
        properties = {"s2:processing_baseline": baseline, "s2:mgrs_tile": "31UGS", "platform": "sentinel-2a"}
        world.item(collection, name, when, assets, properties)
    recipe_facts |= {"href": str(world.save())}
    recipe = parse_recipe(recipe_facts)
    layer = plan_build(recipe.model_copy(update={"modalities": {"sentinel2": recipe.modalities["sentinel2"]}})).layers[
        0
    ]
    assert [scene.item.id for scene in layer.scenes] == ["new"]
    assert (compute_block(layer, grid)[0] == 2000).all()


def test_a_changed_item_makes_its_shards_stale(recipe: Recipe) -> None:
    plan = plan_build(recipe)
    layer = plan.layers[0]
    fewer = replace(layer, scenes=layer.scenes[1:])
    other = replace(layer, reducer="first")
    assert len({one.digest(plan.geobox) for one in (layer, fewer, other)}) == 3
    assert layer.digest(plan.geobox) == plan_build(recipe).layers[0].digest(plan.geobox)


@pytest.mark.parametrize(
    ("retry", "wanted"),
    [
        (("failed",), [(0, 1)]),
        (("gaps",), [(0, 2)]),
        (("stale",), [(1, 0)]),
        (("failed", "stale"), [(0, 1), (1, 0)]),
        ((), [(0, 0), (0, 1), (0, 2), (1, 0)]),
    ],
)
def test_retry_takes_only_the_kind_that_is_asked_for(recipe: Recipe, retry: Any, wanted: list[tuple[int, int]]) -> None:
    """Six shards of terrain: one missing, one failed, one with gaps, one stale, two done."""
    recipe = recipe.model_copy(update={"modalities": {"dem": recipe.modalities["dem"]}})
    path = build_cube(recipe)
    ledger = Ledger(path, "dem", mode="r+")
    ledger.forget(0, 0)
    gap = FailedRead("DEM", "data", (0, 0, 1, 1), "gone")
    changes: dict[tuple[int, int], dict[str, Any]] = {
        (0, 1): {"state": FAILED},
        (0, 2): {"state": GAPS, "failed_reads": (gap,)},
        (1, 0): {"digest": "0" * 64},
    }
    for place, change in changes.items():
        ledger.record(*place, replace(ledger.read(*place), **change))
    before = {place: ledger.read(*place) for place in np.ndindex(2, 3)}
    build_cube(recipe, resume=not retry, retry=retry)
    assert [place for place, entry in before.items() if ledger.read(*place) != entry] == wanted
    assert all(ledger.read(*place).state == DONE for place in wanted)


def test_only_the_steps_that_changed_are_read_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scene of February is gone: January and March stand, February is read, the cube is that of a new build."""
    path = build_cube(recipe)
    plan = plan_build(recipe)
    layers = tuple(
        replace(layer, scenes=tuple(s for s in layer.scenes if s.item.id != "S2_20210225")) for layer in plan.layers
    )
    fewer = replace(plan, layers=layers)
    read: list[tuple[str, set[int]]] = []
    compute = build_module.compute_block

    def noting(layer: Any, *rest: Any) -> Any:
        read.append((layer.modality.name, {scene.step for scene in layer.scenes}))
        return compute(layer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "compute_block", noting)
        build_cube(recipe, resume=True, plan=fewer)
    assert read == [("sentinel2", {1})] * 6
    new = build_cube(recipe.model_copy(update={"output": tmp_path / "new"}), plan=fewer)
    for name in open_reader(new).modalities:
        np.testing.assert_array_equal(CubeReader(path).stored(name, *WHOLE), CubeReader(new).stored(name, *WHOLE))
        np.testing.assert_array_equal(Ledger(path, name).digests(), Ledger(new, name).digests())
    one, other = Ledger(path, "sentinel2").read(0, 1), Ledger(new, "sentinel2").read(0, 1)
    assert (one.items, one.offsets, one.floors, one.steps) == (other.items, other.offsets, other.floors, other.steps)
    assert one.valid_fraction == other.valid_fraction


@pytest.mark.parametrize("layout", ["sharded", "plain"])
def test_a_shard_is_on_the_disk_before_its_entry(
    recipe_facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """A power cut after any entry finds the shard's bytes: its files and their folders were synchronised before."""
    by_thread: dict[int, list[Path]] = defaultdict(list)  # a shard is written and recorded by one thread
    record, seen = Ledger.record, []

    def syncing(file: int) -> None:
        by_thread[get_ident()].append(Path(f"/proc/self/fd/{file}").readlink())

    def recording(ledger: Ledger, row: int, column: int, entry: Any) -> None:
        synced = by_thread.pop(get_ident(), [])
        files = [path for path in synced if path.is_file()]
        assert {path.parent for path in files} <= set(synced), "a new name is kept with its folder"
        seen.append({path.as_posix().partition("cube.zarr/")[2] for path in files})
        record(ledger, row, column, entry)

    monkeypatch.setattr("mdico_cube.cube.block.os.fsync", syncing)
    monkeypatch.setattr(Ledger, "record", recording)
    store = {"chunk": 16, "shard": 32, "layout": layout}
    build_cube(parse_recipe({**recipe_facts, "store": store}))
    folder, per = "sentinel1/backscatter/c/0/0", 1 if layout == "sharded" else 2
    places = [(row, column) for row in range(2) for column in range(3)]
    for row, column in places:
        parts = np.ndindex(per, per)
        assert {f"{folder}/{per * row + y}/{per * column + x}" for y, x in parts} in seen
    assert len(seen) == 3 * len(places)
    assert all(seen), "no entry without its pixels"
