"""A cube, its maps and bundles in; a page in the browser out, served on this machine alone until Ctrl-C."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Any

from mdico_cube.cube.reader import open_reader
from mdico_cube.cube.target import Location
from mdico_cube.errors import MdicoError
from mdico_cube.explorer.pixel import open_bundles
from mdico_cube.progress import say

LOOPBACK = "127.0.0.1"


def explorer_app(cube: Location, maps: Sequence[Path] = (), bundles: Sequence[Path] = ()) -> Any:
    """The explorer as an ASGI application, for a server of your own.

    Args:
        cube: where the cube lies.
        maps: Zarr maps of that cube.
        bundles: folders of bundles that give class probabilities where no map does.

    Raises:
        MdicoError: no cube, a map or a bundle that does not fit it, or the extra `explore` is not installed.
    """
    reader = open_reader(cube)
    server = _library("mdico_cube.explorer.server")
    return server.make_app(reader, [Path(path) for path in maps], open_bundles(reader, [Path(one) for one in bundles]))


def explore(
    cube: Location, maps: Sequence[Path] = (), bundles: Sequence[Path] = (), port: int = 0, show: bool = True
) -> None:
    """Serve the explorer on this machine's loopback address until Ctrl-C.

    Args:
        cube: where the cube lies.
        maps: Zarr maps of that cube.
        bundles: folders of bundles that give class probabilities where no map does.
        port: 0 takes a free one.
        show: open the page in this machine's browser.

    Raises:
        MdicoError: what `explorer_app` raises, or the port is taken.
    """
    app, uvicorn = explorer_app(cube, maps, bundles), _library("uvicorn")
    with _listening(port) as door:
        address = f"http://{LOOPBACK}:{door.getsockname()[1]}/"
        say(f"explorer: {address} (Ctrl-C ends it)")
        opening = Timer(0.5, webbrowser.open, (address,))
        if show:
            opening.start()
        config = uvicorn.Config(app, log_level="error", lifespan="off", access_log=False)
        try:
            uvicorn.Server(config).run(sockets=[door])
        except KeyboardInterrupt:
            say("explorer: ended")
        finally:
            opening.cancel()


def _listening(port: int) -> socket.socket:
    """A socket that nobody but this machine reaches."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((LOOPBACK, port))
    except OSError as error:
        door.close()
        raise MdicoError(f"port {port} cannot be used ({error.strerror}). Give another --port, or none.") from error
    return door


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mdico_cube"):
            raise
        raise MdicoError(f"the explorer needs {error.name}: pip install 'mdico-cube[explore]'.") from error


__all__ = ["explore", "explorer_app"]
