"""A Zarr map in, Cloud-Optimized GeoTIFFs of its classes and of all else it holds out, streamed block by block."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
import zarr
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from mdico_cube.errors import MdicoError
from mdico_cube.maps.mapstore import task_of
from mdico_cube.maps.outputs import MAIN, NODATA
from mdico_cube.maps.predict import windows
from mdico_cube.maps.write import open_map, read_map
from mdico_cube.spec import LabelClass

Colors = dict[int, tuple[int, int, int, int]]
TILE = 512
"""Side of a tile in pixels."""


def write_cog(source: Path, target: Path, title: str) -> Path:
    """Write `<target>` with the answer and `<stem>-NAME.tif` beside it for every other variable of the map.

    Files beside it of variables that the map lacks are of an earlier map, and are removed.

    The class file carries a colour table, nodata 255, overviews by majority and, in `<target>.aux.xml`, the class names
    that GDAL and QGIS show; so does the one that says which sensor was used. Of labels side by side it holds the bits,
    of a value the value itself (NaN = none) or its counts with their scale. Memory holds one shard at a time. (GDAL
    writes the files: the parallel writer of odc-geo knows no colour table.)

    Args:
        source: folder of a complete Zarr map.
        target: path of the class GeoTIFF; a file that is there is replaced.
        title: image description.

    Returns:
        The target.

    Raises:
        MdicoError: the map is incomplete or the folder cannot be written.
    """
    source, target = Path(source), Path(target)
    group = read_map(source)
    legend = read_legend(group)
    geobox = open_map(source).odc.geobox
    with mendable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in (name for name in EXTRAS if name not in group):  # of a map that stood here
            beside_cog(target, name).unlink(missing_ok=True)
            side_file(beside_cog(target, name)).unlink(missing_ok=True)
        for name in (name for name in EXTRAS if name in group):
            array: Any = group[name]
            beside, about = beside_cog(target, name), f"{title}: {array.attrs['long_name']}"
            entries = sensor_entries(dict(array.attrs)) if name == "sensor" else ()
            bands = tuple(item.name for item in legend) if array.ndim == 3 else ()
            _write(array, geobox, beside, about, "MODE" if name in _COUNTED else "AVERAGE", _colors(entries), bands)
            if entries:
                _write_names(entries, beside)
        main: Any = group[MAIN[task_of(group)]]
        if task_of(group) == "classes":
            _write(main, geobox, target, title, "MODE", _colors(legend))
            _write_names(legend, target)
        else:
            side_file(target).unlink(missing_ok=True)  # of a map of classes that stood here
            _write(main, geobox, target, title, _OVERVIEWS[task_of(group)], None, (str(main.attrs["long_name"]),))
    return target


EXTRAS = ("confidence", "probabilities", "entropy", "applicability", "abstain", "observations", "sensor")
"""Variables that get a GeoTIFF of their own beside the classes."""
_OVERVIEWS = {"multilabel": "MODE", "regression": "AVERAGE"}
_COUNTED = ("abstain", "sensor")
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666")


def beside_cog(target: Path, name: str) -> Path:
    """Where the GeoTIFF of another variable stands."""
    return target.with_name(f"{target.stem}-{name}.tif")


def side_file(target: Path) -> Path:
    """Where GDAL looks for a GeoTIFF's class names."""
    return target.with_name(f"{target.name}.aux.xml")


def sensor_entries(attrs: dict[str, Any]) -> tuple[LabelClass, ...]:
    """Name and colour of each value of a map's layer `sensor`, from its attributes."""
    names = str(attrs["flag_meanings"]).split(" ")
    if "flag_masks" in attrs:
        sets = [[name for bit, name in enumerate(names) if number >> bit & 1] for number in range(1 << len(names))]
        names = ["none", *(" + ".join(chosen) for chosen in sets[1:])]
    colors = ("#d9d9d9", *(_PALETTE[number % len(_PALETTE)] for number in range(len(names) - 1)))
    return tuple(LabelClass(name, value, color) for value, (name, color) in enumerate(zip(names, colors, strict=True)))


def read_legend(group: zarr.Group) -> tuple[LabelClass, ...]:
    """The classes a map names in its attributes."""
    entries: Any = group.attrs["legend"]
    return tuple(LabelClass(item["name"], int(item["value"]), item["color"]) for item in entries)


def _write(
    array: Any,
    geobox: GeoBox,
    target: Path,
    title: str,
    overviews: str,
    colors: Colors | None = None,
    bands: tuple[str, ...] = (),
) -> None:
    """One array (y, x), or (band, y, x), with names of the bands, to one COG."""
    with cog_of(target, overviews, PREDICTOR="YES" if array.dtype.itemsize > 1 else "NO") as plain:
        _write_plain(array, geobox, plain, title, colors, bands)


@contextmanager
def cog_of(target: Path, overviews: str, **options: str) -> Iterator[Path]:
    """A place for a plain tiled GeoTIFF, which then becomes a COG at `target`, whole or not at all.

    Args:
        target: a file that is there is replaced.
        overviews: how they are resampled, as GDAL calls it.
        options: more creation options of GDAL's COG driver.
    """
    mark = uuid.uuid4().hex[:8]
    plain, whole = (target.with_name(f".{target.stem}-{mark}-{kind}.tif") for kind in ("plain", "cog"))
    try:
        with rasterio.Env(GDAL_CACHEMAX=64, GDAL_NUM_THREADS="ALL_CPUS", GDAL_PAM_ENABLED="NO"):
            yield plain
            rasterio.shutil.copy(
                plain,
                whole,
                driver="COG",
                BLOCKSIZE=TILE,
                COMPRESS="DEFLATE",
                OVERVIEW_RESAMPLING=overviews,
                BIGTIFF="IF_SAFER",
                **options,
            )
        whole.replace(target)
    finally:
        plain.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def _write_plain(
    array: Any, geobox: GeoBox, path: Path, title: str, colors: Colors | None, bands: tuple[str, ...] = ()
) -> None:
    height, width = geobox.shape
    options = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "DEFLATE", "BIGTIFF": "IF_SAFER"}
    facts = {"dtype": array.dtype.name, "nodata": array.fill_value, "crs": str(geobox.crs)}
    facts |= {"transform": geobox.affine}
    facts |= {"count": len(bands) or 1, "interleave": "band"}
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, **facts, **options) as file:
        if colors is not None:
            file.write_colormap(1, colors)
        for number, name in enumerate(bands, start=1):
            file.set_band_description(number, name)
        if "scale_factor" in array.attrs:
            file.scales, file.offsets = (float(array.attrs["scale_factor"]),), (0.0,)
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=title)
        for y, x in windows(array.shape[-2:], array.shards[-1]):
            window = Window(x.start, y.start, x.stop - x.start, y.stop - y.start)
            block = np.asarray(array[..., y, x])
            file.write(block if block.ndim == 3 else block[None], window=window)


def _colors(entries: Sequence[LabelClass]) -> Colors | None:
    return {item.value: _rgba(item.color) for item in entries} | {NODATA: (0, 0, 0, 0)} if entries else None


def _write_names(legend: Sequence[LabelClass], target: Path) -> None:
    """Class names where GDAL looks for them: a PAM side file, one category per value from 0 on."""
    names = {item.value: item.name for item in legend}
    root = ElementTree.Element("PAMDataset")
    categories = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")
    side = side_file(target)
    part = side.with_name(f".{side.name}.{uuid.uuid4().hex[:8]}")
    part.write_text(ElementTree.tostring(root, encoding="unicode"), encoding="utf-8")
    part.replace(side)


def _rgba(color: str) -> tuple[int, int, int, int]:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue, 255


@contextmanager
def mendable(target: Path) -> Iterator[None]:
    """A full disk or a closed folder as a sentence."""
    try:
        yield
    except (OSError, rasterio.errors.RasterioError) as error:
        raise MdicoError(
            f"GeoTIFF {target}: cannot be written ({error}). Free some space or choose a folder you may write to."
        ) from error
