"""Texts of a catalog in, STAC objects out: no link leads from the web to this machine, no asset leads nowhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

import pystac
from pystac.stac_io import DefaultStacIO

from mdico_cube.cube.address import is_remote, shown
from mdico_cube.errors import MdicoError


class CatalogIO(DefaultStacIO):
    """Reads what the links of one catalog lead to."""

    def __init__(self, catalog: str) -> None:
        """For the catalog at an address."""
        super().__init__()
        self._remote = is_remote(catalog)

    def read_text_from_href(self, href: str) -> str:
        """The text behind a link.

        Raises:
            MdicoError: a catalog of the web links to something else than a web page.
        """
        if self._remote and urlparse(href).scheme.lower() not in ("http", "https"):
            raise MdicoError(
                f"the catalog links to {shown(href)}, which a remote catalog may not ask for. "
                "Only http(s) links are followed from the web."
            )
        return str(super().read_text_from_href(href))

    def stac_object_from_dict(self, d: dict[str, Any], *args: Any, **options: Any) -> pystac.STACObject:
        """The object that a text describes; see `whole`."""
        return super().stac_object_from_dict(whole(d), *args, **options)


def whole(facts: dict[str, Any]) -> dict[str, Any]:
    """An item's text without assets that have no address, as scenes of reflectance only carry for temperature."""
    assets = facts.get("assets")
    if facts.get("type") != "Feature" or not isinstance(assets, dict):
        return facts
    return {**facts, "assets": {key: asset for key, asset in assets.items() if asset.get("href")}}


def read_item(facts: dict[str, Any]) -> pystac.Item:
    """The item that an API's answer describes; see `whole`."""
    return pystac.Item.from_dict(whole(facts), preserve_dict=False)
