"""A grid in, the attributes out that GeoZarr readers look for: the conventions `proj:` and `spatial:`, version 1."""

from __future__ import annotations

from typing import Any

from odc.geo.geobox import GeoBox

_HOME = "zarr-conventions"
_CONVENTIONS = [
    {
        "name": name,
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/{_HOME}/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/{_HOME}/{repository}/blob/v1/README.md",
        "description": description,
    }
    for name, repository, uuid, description in (
        ("proj", "geo-proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information"),
        ("spatial", "spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    )
]


def grid_attrs(geobox: GeoBox) -> dict[str, Any]:
    """What a group on this grid says of its arrays; the conventions reach its direct children only."""
    crs = geobox.crs
    assert crs is not None  # every cube has one
    return {
        "zarr_conventions": _CONVENTIONS,
        "proj:code": f"EPSG:{crs.epsg}" if crs.epsg is not None else None,
        "proj:wkt2": crs.to_wkt(),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(geobox.shape),
        "spatial:transform_type": "affine",
        "spatial:transform": list(geobox.affine)[:6],
        "spatial:bbox": list(geobox.boundingbox.bbox),
        "spatial:registration": "pixel",
    }
