"""Layers and a pixel teller in, a web application out: one page, its scripts, tiles, pixels and downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mdico_cube.cube.reader import CubeReader
from mdico_cube.cube.target import name_of
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.layers import Shown, layers_of, open_maps, png
from mdico_cube.explorer.overview import Maker
from mdico_cube.explorer.pixel import PixelTeller
from mdico_cube.explorer.pyramid import TILE, levels
from mdico_cube.explorer.sensor_layers import SensorLayer
from mdico_cube.explorer.window import window_tif
from mdico_cube.maps.plan import MapPlan

PAGE = Path(__file__).resolve().parent / "page"
HOSTS = ["127.0.0.1", "localhost"]
"""Names under which the page answers: a page elsewhere cannot ask it by a name of its own."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Answer = Callable[[Request], Response]


@dataclass
class Explorer:
    """What the page is about."""

    reader: CubeReader
    layers: dict[str, Shown]
    teller: PixelTeller
    maker: Maker
    """Of overviews."""

    def facts(self) -> dict[str, Any]:
        """What the page has to know before it draws anything."""
        geobox = self.reader.geobox
        height, width = self.reader.shape
        return {
            "title": name_of(self.reader.path),
            "shape": [height, width],
            "source": _source(self.reader),
            "crs": f"EPSG:{geobox.crs.epsg}" if geobox.crs and geobox.crs.epsg else "the cube's own CRS",
            "transform": list(geobox.affine)[:6],
            "metric": bool(geobox.crs and not geobox.crs.geographic),
            "tile": TILE,
            "levels": levels(self.reader.shape),
            "layers": [layer.facts() for layer in self.layers.values()],
        }

    def layer(self, request: Request) -> Shown:
        """The layer that an address names.

        Raises:
            MdicoError: there is none of that name.
        """
        key = request.path_params["layer"]
        if key not in self.layers:
            raise MdicoError(f"there is no layer {key!r}, only {', '.join(self.layers)}.")
        return self.layers[key]


def _source(reader: CubeReader) -> str:
    """Which catalogs the cube was built from."""
    recipe = json.loads(str(reader.attrs.get("mdico_recipe", "{}")))
    sections = (section or {} for section in recipe.get("modalities", {}).values())
    names = [recipe.get("catalog"), *(section.get("catalog") for section in sections)]
    found = dict.fromkeys(name_of(name).removesuffix(".yml") for name in names if name)
    return f"catalog {', '.join(found)}" if found else "an unknown catalog"


def make_app(reader: CubeReader, maps: list[Path], bundles: list[MapPlan]) -> Starlette:
    """The web application of one cube.

    Raises:
        MdicoError: a map does not fit the cube.
    """
    opened = open_maps(reader, maps)
    maker = Maker()
    return application(Explorer(reader, layers_of(reader, opened, maker), PixelTeller(reader, opened, bundles), maker))


def application(explorer: Explorer) -> Starlette:
    """Routes of the page."""
    routes = [
        Route("/", _answer(lambda _: FileResponse(PAGE / "index.html"))),
        Route("/api/facts", _answer(lambda _: _json(explorer.facts()))),
        Route("/api/legend/{layer}", _answer(lambda request: _legend(explorer, request))),
        Route("/api/overviews", _answer(lambda _: _json({"left": explorer.maker.left}))),
        Route("/api/pixel/{row:int}/{column:int}", _answer(lambda request: _pixel(explorer, request))),
        Route("/tiles/{layer}/{zoom}/{column}/{row}.png", _answer(lambda request: _tile(explorer, request))),
        Route("/download/series-{row:int}-{column:int}.csv", _answer(lambda request: _csv(explorer, request))),
        Route("/download/{layer}.tif", _answer(lambda request: _tif(explorer, request))),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)])


def _answer(make: Answer) -> Answer:
    """A handler whose mendable faults are answered with 400 and their sentence."""

    @wraps(make)
    def handler(request: Request) -> Response:
        try:
            response = make(request)
        except MdicoError as error:
            response = _json({"error": str(error)}, 400)
        except ValueError:
            response = _json({"error": "this address is not understood."}, 400)
        response.headers.update(_HEADERS)
        return response

    return handler


def _json(facts: Any, status: int = 200) -> Response:
    return Response(json.dumps(facts, allow_nan=False), status, media_type="application/json")


def _tile(explorer: Explorer, request: Request) -> Response:
    place = tuple(int(request.path_params[name]) for name in ("zoom", "column", "row"))
    query = request.query_params
    zoom, column, row = place
    if not -levels(explorer.reader.shape) <= zoom <= 0:
        raise MdicoError(f"zoom {zoom} is none of {-levels(explorer.reader.shape)} to 0.")
    image = explorer.layer(request).image((zoom, column, row), query.get("look", ""), int(query.get("step", 0)))
    return Response(status_code=204) if image is None else Response(png(image), media_type="image/png")


def _legend(explorer: Explorer, request: Request) -> Response:
    layer = explorer.layer(request)
    if not isinstance(layer, SensorLayer):
        raise MdicoError(f"{layer.key}: is no sensor; its legend stands in /api/facts.")
    query = request.query_params
    return _json(layer.legend(query.get("look", ""), int(query.get("step", 0))))


def _pixel(explorer: Explorer, request: Request) -> Response:
    return _json(explorer.teller.facts(request.path_params["row"], request.path_params["column"]))


def _csv(explorer: Explorer, request: Request) -> Response:
    table = explorer.teller.table(request.path_params["row"], request.path_params["column"])
    return Response(table.to_csv(index=False), media_type="text/csv", headers=_saved("series.csv"))


def _tif(explorer: Explorer, request: Request) -> Response:
    query = request.query_params
    rows, columns = ((int(query[f"{name}0"]), int(query[f"{name}1"])) for name in ("row", "column"))
    layer = explorer.layer(request)
    content = window_tif(explorer.reader, layer, int(query.get("step", 0)), rows, columns)
    return Response(content, media_type="image/tiff", headers=_saved(f"{layer.key}.tif"))


def _saved(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
