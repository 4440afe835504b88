"""The written catalog is STAC 1.1, its items tell the truth about their files, and odc-stac reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import zarr
from jsonschema import Draft7Validator
from odc.geo.geobox import GeoBox
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.warp import transform_bounds
from referencing import Registry, Resource
from referencing.exceptions import NoSuchResource
from shapely.geometry import box, shape

REQUIRED = {
    "projection": {"proj:code"},
    "sar": {"sar:instrument_mode", "sar:frequency_band", "sar:polarizations", "sar:product_type"},
    "sat": {"sat:orbit_state", "sat:relative_orbit"},
    "view": {"view:off_nadir", "view:sun_azimuth", "view:sun_elevation"},
    "eo": {"eo:cloud_cover"},
    "datacube": {"cube:dimensions", "cube:variables"},
}
"""Item properties that each extension asks for (all of them, or one of those we promise)."""
IN_ASSETS = {
    "raster": "raster:bands",
    "eo": "eo:bands",
    "projection": "proj:transform",
    "xarray-assets": "xarray:open_kwargs",
}
"""Asset fields of which at least one asset must carry one."""
DTYPES = {
    "sentinel-2-l2a": "uint16",
    "landsat-c2-l2": "uint16",
    "sentinel-1-rtc": "float32",
    "cop-dem-glo-30": "float32",
}


def refuse(uri: str) -> Resource[Any]:
    raise NoSuchResource(uri)


def documents(folder: Path) -> list[dict[str, Any]]:
    paths = [*folder.glob("*/*/*.json"), *folder.glob("*/collection.json"), folder / "catalog.json"]
    return [json.loads(path.read_text()) for path in paths if ".zarr" not in str(path)]


def test_core_schemas_offline(folder: Path) -> None:
    schemas = get_local_schema_cache()
    pairs = [(uri, Resource.from_contents(body)) for uri, body in schemas.items()]
    registry: Registry[Any] = Registry(retrieve=refuse).with_resources(pairs)
    kinds = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}
    checks = {
        kind: Draft7Validator(
            schemas[f"https://schemas.stacspec.org/v1.1.0/{name}-spec/json-schema/{name}.json"], registry=registry
        )
        for kind, name in kinds.items()
    }
    found = documents(folder)
    assert {body["type"] for body in found} == set(kinds)
    for body in found:
        errors = [error.message for error in checks[body["type"]].iter_errors(body)]
        assert not errors, (body["id"], errors)
    broken = next(body for body in found if body["type"] == "Feature")
    assert list(checks["Feature"].iter_errors({k: v for k, v in broken.items() if k != "assets"}))


def test_every_declared_extension_has_its_fields(items: dict[str, list[pystac.Item]]) -> None:
    seen = set()
    for item in (item for group in items.values() for item in group):
        for uri in item.stac_extensions:
            name = uri.split("/")[3]
            seen.add(name)
            missing = REQUIRED.get(name, set()) - set(item.properties)
            assert not missing, (item.id, missing)
            if name in IN_ASSETS:
                assert any(IN_ASSETS[name] in asset.extra_fields for asset in item.assets.values()), (item.id, name)
        prefixes = {key.split(":")[0] for key in item.properties if ":" in key} - {"s2", "landsat"}
        declared = {
            {"projection": "proj", "datacube": "cube"}.get(u.split("/")[3], u.split("/")[3])
            for u in item.stac_extensions
        }
        assert prefixes <= declared, item.id
    assert seen == set(REQUIRED) | set(IN_ASSETS)


def test_items_agree_with_their_files(folder: Path, items: dict[str, list[pystac.Item]]) -> None:
    for collection, group in items.items():
        assert group
        for item in group:
            for key, asset in item.assets.items():
                assert asset.href.startswith("./")
                assert Path(asset.get_absolute_href() or "").exists()
                if collection == "era5":  # a web server lists no folders
                    assert zarr.open_group(asset.get_absolute_href(), mode="r").metadata.consolidated_metadata
                    continue
                with rasterio.open(asset.get_absolute_href()) as file:
                    assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                    assert file.profile["tiled"]
                    assert file.compression.name == "deflate"
                    assert file.crs == rasterio.CRS.from_user_input(item.properties["proj:code"])
                    assert list(file.shape) == asset.extra_fields["proj:shape"]
                    assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
                    declared = asset.extra_fields["raster:bands"][0]
                    assert file.dtypes[0] == declared["data_type"] == ("uint8" if key == "SCL" else DTYPES[collection])
                    assert file.nodata == declared.get("nodata")
                    inside = box(*transform_bounds(file.crs, 4326, *file.bounds, densify_pts=2))
                    assert shape(item.geometry).buffer(1e-5).contains(inside.centroid)
                    assert np.allclose(item.bbox, inside.bounds, atol=5e-5)


def test_collections_span_their_items(
    folder: Path, catalog: pystac.Catalog, items: dict[str, list[pystac.Item]]
) -> None:
    assert set(items) == {"sentinel-2-l2a", "sentinel-1-rtc", "landsat-c2-l2", "era5", "cop-dem-glo-30"}
    for child in catalog.get_children():
        assert isinstance(child, pystac.Collection)
        boxes = np.array([item.bbox for item in items[child.id]])
        assert child.extent.spatial.bboxes[0] == [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        assert child.license == "CC0-1.0"
        assert child.providers
        assert set(child.item_assets) == set(items[child.id][0].assets)
    for path in folder.rglob("*.json"):
        assert str(folder) not in path.read_text()


@pytest.fixture(scope="module")
def geobox(folder: Path) -> GeoBox:
    card = json.loads((folder / "region.json").read_text())
    return GeoBox.from_bbox(tuple(card["bounds"]), crs=card["crs"], resolution=10)


@pytest.mark.filterwarnings("ignore:The .shapely.ops.transform:DeprecationWarning")
def test_odc_stac_fills_the_region_from_both_zones(items: dict[str, list[pystac.Item]], geobox: GeoBox) -> None:
    pair = items["sentinel-2-l2a"][:2]
    cube = odc.stac.load(pair, bands=["B04", "B11", "SCL"], geobox=geobox, groupby="solar_day", resampling="nearest")
    assert cube.sizes["time"] == 1
    assert all(bool((cube[band] > 0).all()) for band in cube.data_vars)
    radar = odc.stac.load(items["sentinel-1-rtc"][:1], bands=["vv"], geobox=geobox)
    assert bool((radar.vv > 0).all())
    dem = odc.stac.load(items["cop-dem-glo-30"], geobox=geobox, groupby="solar_day", resampling="bilinear")
    assert bool(((dem.data > 50) & (dem.data < 400)).all())
