"""Texts of a catalog in, STAC objects out: no asset leads nowhere."""

from __future__ import annotations

from typing import Any

import pystac


def whole(facts: dict[str, Any]) -> dict[str, Any]:
    """An item's text without assets that have no address, as scenes of reflectance only carry for temperature."""
    assets = facts.get("assets")
    if facts.get("type") != "Feature" or not isinstance(assets, dict):
        return facts
    return {**facts, "assets": {key: asset for key, asset in assets.items() if asset.get("href")}}


def read_item(facts: dict[str, Any]) -> pystac.Item:
    """The item that an API's answer describes; see `whole`."""
    return pystac.Item.from_dict(whole(facts), preserve_dict=False)
