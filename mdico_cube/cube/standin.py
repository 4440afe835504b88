"""A scene that cannot be read and another catalog in; the same acquisition there, under that catalog's rules, out."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pystac
from odc.geo.geom import Geometry

from mdico_cube.cube.acquisition import same_acquisition
from mdico_cube.cube.catalog import Fallback
from mdico_cube.cube.duplicates import item_time
from mdico_cube.cube.plan import LayerPlan, Scene
from mdico_cube.cube.planning import usable
from mdico_cube.cube.read import check_assets
from mdico_cube.cube.search import find_items

_NEAR = timedelta(minutes=30)
"""Catalogs give one acquisition times that differ by minutes."""
_FOUND: dict[tuple[str, str, str], pystac.Item | None] = {}
"""(catalog, collection, item) -> its stand-in, as far as this process has asked."""
_ASKING = threading.Lock()


def stand_in(layer: LayerPlan, fallback: Fallback, scene: Scene) -> LayerPlan | None:
    """The layer with the one scene of another catalog that shows the same; None where that catalog has none.

    Assets, offset, no-data value and signing are the other catalog's; what hides the ground stays the recipe's.

    Raises:
        MdicoError: the other catalog cannot be asked, or its item cannot be used.
    """
    key = (fallback.href, fallback.source.collection, scene.item.id)
    with _ASKING:  # the scenes of a block fail together: one asks, the others wait
        if key not in _FOUND:
            _FOUND[key] = _ask(layer, fallback, scene.item)
    item = _FOUND[key]
    if item is None:
        return None
    other = replace(
        layer,
        source=fallback.source,
        access=fallback.catalog.access,
        scenes=(replace(scene, item=item),),
        fallbacks=(),
    )
    check_assets([item], (*other.assets, *other.quality_assets))
    return other


def _ask(layer: LayerPlan, fallback: Fallback, item: pystac.Item) -> pystac.Item | None:
    assert item.geometry is not None
    moment = item_time(item)
    spans = [(moment - _NEAR, moment + _NEAR)] if layer.modality.temporal else None
    area = Geometry(item.geometry, "EPSG:4326")
    found = find_items(fallback.catalog, fallback.href, fallback.source, area, spans, layer.reading)
    same = [other for other in found if same_acquisition(item, other)]
    kept, _ = usable(same, fallback.source, layer.sensor, layer.bands) if same else ([], {})
    return kept[-1] if kept else None
