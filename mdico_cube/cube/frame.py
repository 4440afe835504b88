"""An open raster file in, where its pixels lie out; of local files it is remembered until they are written again."""

from __future__ import annotations

from pathlib import Path
from sys import intern
from threading import Lock
from typing import NamedTuple

from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import CRSError
from rasterio.io import DatasetReader

from mdico_cube.cube.align import scale

COARSER = 0.95
"""Grid pixels per source pixel below which the kernel is widened to all source pixels that it covers."""


class Frame(NamedTuple):
    """Where a file's pixels lie."""

    crs: str
    """WKT."""
    transform: Affine
    shape: tuple[int, int]

    def warps(self, geobox: GeoBox, method: str) -> bool:
        """True where GDAL must place the values on a grid, as neither nearest nor bilinear ones are looked up."""
        return method not in ("nearest", "bilinear") or (method == "bilinear" and min(self.wide(geobox)) < COARSER)

    def wide(self, geobox: GeoBox) -> tuple[float, float]:
        """Grid pixels per pixel of the file, along columns and rows."""
        return scale(*self, str(geobox.crs), geobox.resolution.xy)

    def shrinks(self, geobox: GeoBox) -> int:
        """Whole pixels of the file per grid pixel, along the side where there are fewer."""
        return int(1 / max(self.wide(geobox)) + 0.01)


def frame_of(file: DatasetReader) -> Frame:
    """Where an open file says that it lies.

    Raises:
        CRSError: it does not say so.
    """
    if file.crs is None:
        raise CRSError(f"{file.name} has no CRS")
    return Frame(intern(file.crs.to_wkt()), file.transform, file.shape)


Stamp = tuple[str, int, int, int]
"""Path, inode, time of change and size of a file: another one means that it was written again."""


class Frames:
    """Where the local files that were opened last lie: the next shards read them again."""

    def __init__(self, most: int) -> None:
        self._most, self._known, self._lock = most, dict[Stamp, Frame](), Lock()

    def get(self, stamp: Stamp | None) -> Frame | None:
        """None where it is not known."""
        return None if stamp is None else self._known.get(stamp)

    def put(self, stamp: Stamp, frame: Frame) -> None:
        """Remember one; the one that was put first makes room for it."""
        with self._lock:
            self._known[stamp] = frame
            if len(self._known) > self._most:
                self._known.pop(next(iter(self._known)))


FRAMES = Frames(4096)
"""This process's."""


def stamp_of(path: str) -> Stamp | None:
    """What tells one writing of a file from the next; None for what does not lie on this machine, or is not there."""
    if path.startswith("/vsi"):
        return None
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return path, facts.st_ino, facts.st_mtime_ns, facts.st_size
