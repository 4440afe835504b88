"""Parcels tile the region in its CRS, agree with the truth, and carry exactly the asked share of wrong labels."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio import features

from mdico_cube.demo.labels import declare, parcel_table
from mdico_cube.demo.landscape import CLASSES
from mdico_cube.demo.world import World

NAMES = [c.name for c in CLASSES]


@pytest.fixture(scope="module")
def parcels(folder: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(folder / "labels" / "parcels.gpkg", layer="parcels")


def test_parcels_tile_the_region(folder: Path, parcels: gpd.GeoDataFrame) -> None:
    assert parcels.crs.to_epsg() == 32631
    assert list(parcels.columns) == ["parcel", "crop", "area_ha", "geometry"]
    assert parcels["parcel"].is_unique
    assert set(parcels["crop"]) == set(NAMES)
    assert parcels.is_valid.all()
    with rasterio.open(folder / "labels" / "truth.tif") as file:
        region = shapely.box(*file.bounds)
    assert parcels.within(region.buffer(1e-6)).all()
    assert parcels.area.sum() == pytest.approx(parcels.union_all().area)  # no overlaps
    assert 0.85 * region.area < parcels.area.sum() <= region.area + 1e-3
    assert np.allclose(parcels["area_ha"], parcels.area / 1e4, atol=1e-3)


def test_truth_file(folder: Path, world: World) -> None:
    with rasterio.open(folder / "labels" / "truth.tif") as file:
        truth, colors = file.read(1), file.colormap(1)
        assert file.crs.to_epsg() == 32631
        assert file.nodata == 255
        assert file.dtypes[0] == "uint8"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert np.array_equal(truth, world.landscape.truth())
    assert {tuple(colors[c.value][:3]) for c in CLASSES} == {tuple(bytes.fromhex(c.color[1:])) for c in CLASSES}


def test_parcels_agree_with_the_truth(folder: Path, parcels: gpd.GeoDataFrame) -> None:
    with rasterio.open(folder / "labels" / "truth.tif") as file:
        truth, transform = file.read(1), file.transform
    inside = parcels.assign(geometry=parcels.buffer(-8))
    inside = inside[~inside.is_empty]
    values = ((shape, NAMES.index(crop) + 1) for shape, crop in zip(inside.geometry, inside["crop"], strict=True))
    burnt = features.rasterize(values, out_shape=truth.shape, transform=transform, fill=0)
    assert (burnt > 0).mean() > 0.3
    assert (burnt == truth)[burnt > 0].mean() > 0.995


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_exact_share_of_wrong_labels(noise: float) -> None:
    kind = np.random.default_rng(0).integers(0, 8, 500).astype(np.uint8)
    declared = declare(kind, 7, noise)
    assert (declared != kind).sum() == round(noise * 500)
    assert set(declared) <= set(range(8))
    assert np.array_equal(declared, declare(kind, 7, noise))


def test_noise_changes_labels_only(world: World) -> None:
    right, wrong = (parcel_table(world.landscape, 0, noise) for noise in (0.0, 0.25))
    assert (right["crop"] != wrong["crop"]).mean() == pytest.approx(0.25, abs=0.01)
    assert right.geometry.equals(wrong.geometry)
