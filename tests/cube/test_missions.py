"""Landsat of every mission, radar of both directions, other elevation models: scenes of known pixels through a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from toy_world import SIZE, World

from mdico_cube.cube.build import build_cube
from mdico_cube.cube.compute import compute_block
from mdico_cube.cube.plan import BuildPlan, LayerPlan
from mdico_cube.cube.planning import plan_build
from mdico_cube.cube.reader import open_reader
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import parse_recipe

CLEAR, CLOUD, FILL = 21824, 22280, 1
SR = ("blue", "green", "red", "nir08", "swir16", "swir22")


def planned(facts: dict[str, Any], href: Path, modalities: dict[str, Any], **change: Any) -> BuildPlan:
    names = [name for name in modalities if name != "dem"]
    colearn = {**facts["colearn"], "modalities": names if len(names) > 1 else [*names, "dem"]}
    return plan_build(
        parse_recipe({**facts, "href": str(href), "modalities": modalities, "colearn": colearn, **change})
    )


def layer_of(plan: BuildPlan, name: str) -> LayerPlan:
    return next(layer for layer in plan.layers if layer.modality.name == name)


def full(value: float, dtype: str = "uint16") -> np.ndarray[Any, Any]:
    return np.full(SIZE, value, dtype=dtype)


@pytest.fixture
def landsat(tmp_path: Path, grid: GeoBox) -> Path:
    """Five missions' scenes, a month each but for the last two; the thermal band's name differs by mission."""
    world = World(tmp_path / "landsat", grid)
    collection = world.collection("landsat-c2-l2")
    terrain = world.collection("cop-dem-glo-30")
    world.item(terrain, "DEM", "2021-01-01T00:00:00Z", {"data": full(5, "float32")}, nodata=-32767)
    missions = (
        ("LC09", "2021-01-05", "L2SP", "lwir11"),
        ("LC08", "2021-02-05", "L2SP", "lwir11"),
        ("LE07", "2021-03-05", "L2SP", "lwir"),
        ("LT05", "2021-04-05", "L2SP", "lwir"),
        ("LC08_SR", "2021-04-15", "L2SR", None),  # reflectance only
    )
    for number, (name, day, level, thermal) in enumerate(missions, start=1):
        quality = full(CLEAR)
        assets = {band: full(10000 + 1000 * number + i) for i, band in enumerate(SR)}
        if thermal:
            assets[thermal] = full(40000 + 1000 * number)
        if name == "LE07":  # the scan line corrector is off: stripes without data
            for values in assets.values():
                values[:, 10:14] = 0
            quality[:, 10:14] = FILL
            quality[:, 40:44] = CLOUD
        world.item(collection, name, f"{day}T10:00:00Z", {**assets, "qa_pixel": quality}, {"landsat:correction": level})
    return world.save()


def test_every_mission_of_landsat_gives_reflectance_and_temperature(
    recipe_facts: dict[str, Any], landsat: Path
) -> None:
    period = {"start": "2021-01-01", "end": "2021-04-30"}
    plan = planned(recipe_facts, landsat, {"landsat": {}, "landsat_st": {}}, period=period)
    thermal = layer_of(plan, "landsat_st")
    assert thermal.per_step == (1, 1, 1, 1)
    assert thermal.left_out == {"LC08_SR": "has no asset lwir11 or lwir"}
    assert layer_of(plan, "landsat").per_step == (1, 1, 1, 2), "a scene without temperature still has reflectance"
    kelvin, seen = thermal.modality.storage.unpack(compute_block(thermal, plan.geobox))
    for step, number in enumerate((1, 2, 3, 4)):
        expected = (40000 + 1000 * number) * 0.00341802 + 149
        np.testing.assert_allclose(kelvin[step, 0][seen[step, 0]], expected, atol=0.0051)
    reflectance, _ = layer_of(plan, "landsat").modality.storage.unpack(
        compute_block(layer_of(plan, "landsat"), plan.geobox)
    )
    np.testing.assert_allclose(reflectance[0, :, 0, 0], (11000 + np.arange(6)) * 2.75e-5 - 0.2, atol=5.1e-5)
    both = np.array([14000, 15000])  # the median of a scene with and one without temperature
    np.testing.assert_allclose(reflectance[3, 0, 0, 0], both.mean() * 2.75e-5 - 0.2, atol=1.01e-4)


def test_stripes_of_a_broken_scanner_stay_gaps_in_both(recipe_facts: dict[str, Any], landsat: Path) -> None:
    period = {"start": "2021-03-01", "end": "2021-03-31"}
    plan = planned(recipe_facts, landsat, {"landsat": {}, "landsat_st": {}}, period=period)
    for name in ("landsat", "landsat_st"):
        layer = layer_of(plan, name)
        missing = ~layer.modality.storage.observed(compute_block(layer, plan.geobox))[0, 0]
        assert np.flatnonzero(missing.all(axis=0)).tolist() == [10, 11, 12, 13, 40, 41, 42, 43], name
        assert missing.sum() == 8 * SIZE[0], "not widened, not filled in from beside"


def test_a_cube_with_temperature_is_built_and_read_in_kelvin(recipe_facts: dict[str, Any], landsat: Path) -> None:
    recipe_facts["colearn"]["modalities"] = ["landsat", "landsat_st"]
    facts = {**recipe_facts, "href": str(landsat), "modalities": {"landsat": {"bands": ["red"]}, "landsat_st": {}}}
    facts |= {"period": {"start": "2021-01-01", "end": "2021-01-31"}, "store": {"chunk": 32, "shard": 128}}
    reader = open_reader(build_cube(parse_recipe(facts)))
    assert reader.modalities["landsat_st"].units == ("K",)
    values, seen = reader.read("landsat_st", slice(0, 4), slice(0, 4))
    assert seen.all()
    np.testing.assert_allclose(values, 41000 * 0.00341802 + 149, atol=0.0051)


def test_without_any_thermal_band_the_asset_is_named(recipe_facts: dict[str, Any], landsat: Path) -> None:
    section = {"landsat": {}, "landsat_st": {"source": {"assets": {"surface_temperature": ["ST_B10", "ST_B6"]}}}}
    with pytest.raises(MdicoError, match="has no asset ST_B10"):
        planned(recipe_facts, landsat, section)


POWER = {"ascending": (0.04, 0.16), "descending": (0.01, 0.03)}


@pytest.fixture
def radar(tmp_path: Path, grid: GeoBox) -> Path:
    """Two passes of each direction in January; the descending ones see a hole, the first ascending one too."""
    world = World(tmp_path / "radar", grid)
    collection, terrain = (world.collection(name) for name in ("sentinel-1-rtc", "cop-dem-glo-30"))
    world.item(terrain, "DEM", "2021-01-01T00:00:00Z", {"data": full(5, "float32")}, nodata=-32767)
    for direction, powers in POWER.items():
        for number, power in enumerate(powers):
            vv, vh = full(power, "float32"), full(power / 4, "float32")
            vv[:, 0] = -32768 if number == 0 or direction == "descending" else power
            vv[0, :] = 0  # shadow: no logarithm
            day = 4 + 12 * number + 6 * (direction == "descending")
            when = f"2021-01-{day:02d}T06:00:00Z"
            world.item(
                collection, f"{direction}-{number}", when, {"vv": vv, "vh": vh}, {"sat:orbit_state": direction},
                nodata=-32768,
            )  # fmt: skip
    return world.save()


@pytest.mark.parametrize(
    ("orbit", "groups"),
    [
        ("both", {"sentinel1": ("ascending", "descending")}),
        ("ascending", {"sentinel1": ("ascending",)}),
        ("descending", {"sentinel1": ("descending",)}),
        ("split", {"sentinel1_ascending": ("ascending",), "sentinel1_descending": ("descending",)}),
    ],
)
def test_orbit_directions(
    recipe_facts: dict[str, Any], radar: Path, orbit: str, groups: dict[str, tuple[str, ...]]
) -> None:
    """The mean is of linear power, over the directions asked for, and only then becomes decibels."""
    recipe_facts["colearn"]["modalities"] = ["sentinel1", "dem"]
    facts = {**recipe_facts, "href": str(radar), "modalities": {"sentinel1": {"orbit": orbit}, "dem": {}}}
    plan = plan_build(parse_recipe({**facts, "period": {"start": "2021-01-01", "end": "2021-01-31"}}))
    assert [layer.modality.name for layer in plan.layers] == [*groups, "dem"]
    for name, directions in groups.items():
        layer = layer_of(plan, name)
        stored = compute_block(layer, plan.geobox)
        powers = [power for direction in directions for power in POWER[direction]]
        expected = round(1000 * np.log10(np.mean(np.float32(powers), dtype=np.float64)))
        assert abs(int(stored[0, 0, 9, 9]) - expected) <= 1
        assert abs(int(stored[0, 1, 9, 9]) - (expected - round(1000 * np.log10(4)))) <= 1
        edge = [0.16] if "ascending" in directions else []
        assert stored[0, 0, 9, 0] == (round(1000 * np.log10(edge[0])) if edge else -32768)
        assert (stored[0, :, 0] == -32768).all()


def test_a_direction_named_twice_or_elsewhere_is_refused(recipe_facts: dict[str, Any], radar: Path) -> None:
    with pytest.raises(MdicoError, match=r"sentinel1_ascending.orbit is descending, but only sentinel1"):
        planned(recipe_facts, radar, {"sentinel1_ascending": {"orbit": "descending"}})
    plan = planned(recipe_facts, radar, {"sentinel1_descending": {}, "dem": {}})
    assert {scene.item.id for scene in plan.layers[0].scenes} == {"descending-0", "descending-1"}


@pytest.mark.parametrize(
    ("collection", "asset", "nodata"),
    [("cop-dem-glo-30", "data", -32767), ("cop-dem-glo-90", "data", -32767), ("nasadem", "elevation", -32768)],
)
def test_elevation_models_are_named_by_their_collection(
    recipe_facts: dict[str, Any], tmp_path: Path, collection: str, asset: str, nodata: int
) -> None:
    """In degrees, as all three are; a catalog's `also` knows the assets, so the recipe needs the collection only."""
    world = World(tmp_path / "dem", GeoBox.from_bbox((5.81, 50.51, 5.85, 50.53), "EPSG:4326", resolution=1 / 3600))
    rows, columns = np.mgrid[0 : world.grid.shape.y, 0 : world.grid.shape.x]
    height = (200 + 0.5 * rows).astype(np.float32)  # falls northwards
    height[columns == 45] = nodata
    world.item(world.collection(collection), "tile", "2021-01-01T00:00:00Z", {asset: height}, nodata=nodata)
    here = GeoBox.from_bbox((700000, 5600000, 700960, 5600640), "EPSG:32631", resolution=10)
    power = {"vv": full(0.1, "float32"), "vh": full(0.1, "float32")}
    radar = world.collection("sentinel-1-rtc")
    world.item(radar, "S1", "2021-01-10T06:00:00Z", power, {"sat:orbit_state": "ascending"}, -32768, here)
    section = {"source": {"collection": collection}}
    plan = planned(recipe_facts, world.save(), {"sentinel1": {}, "dem": section})
    terrain = compute_block(layer_of(plan, "dem"), plan.geobox)[0]
    inner = terrain[:, 4:-4, 30:-4]
    assert np.isfinite(inner).all()
    metres = 1 / 3600 * 111_250  # a second of latitude here
    np.testing.assert_allclose(np.median(inner[1]), np.degrees(np.arctan(0.5 / metres)), rtol=0.02)
    np.testing.assert_allclose(np.median(inner[2]), 1, atol=0.02)
    assert np.nanmin(terrain[0]) > 190, "no data never becomes a height"


def test_a_scale_in_the_file_itself_is_not_applied_as_well(
    recipe_facts: dict[str, Any], tmp_path: Path, grid: GeoBox
) -> None:
    """The rule is applied once, whatever scale and offset the GeoTIFF and the item declare."""
    world = World(tmp_path / "scaled", grid)
    optical, terrain = world.collection("sentinel-2-l2a"), world.collection("cop-dem-glo-30")
    world.item(terrain, "DEM", "2021-01-01T00:00:00Z", {"data": full(5, "float32")}, nodata=-32767)
    assets = {"B04": full(3000), "SCL": full(4, "uint8")}
    item = world.item(optical, "S2", "2021-01-10T10:30:00Z", assets, {"s2:processing_baseline": "05.00"})
    item.assets["B04"].extra_fields["raster:bands"] = [{"scale": 1e-4, "offset": -0.1}]
    with rasterio.open(item.assets["B04"].href, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    facts = {**recipe_facts, "colearn": {**recipe_facts["colearn"], "modalities": ["sentinel2", "dem"]}}
    for policy in ("baseline", "declared"):
        section = {"bands": ["B04"], "source": {"offset": policy}}
        plan = planned(facts, world.save(), {"sentinel2": section, "dem": {}})
        stored = compute_block(layer_of(plan, "sentinel2"), plan.geobox)
        assert np.unique(stored[0]).tolist() == [2000]
