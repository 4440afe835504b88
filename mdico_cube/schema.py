"""What a cube must look like: groups, variables, dimensions, and one check that names the node and the way out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from mdico_cube.errors import MdicoError

VERSION = 2
"""Layout version, in the root attribute `mdico_schema`."""
TEMPORAL = ("time", "band", "y", "x")
STATIC = ("band", "y", "x")
COARSE = ("time", "band", "latitude", "longitude")
"""Dimensions of a modality that keeps its source's own grid."""
OROGRAPHY = "orography"
"""Variable (latitude, longitude) of a coarse group: metres above the sea, NaN where the source does not say."""
LAPSE_RATE = "lapse_rate"
"""Variable without dimensions of a coarse group: kelvin per kilometre by which temperatures fall with height."""
LABELS = "labels"
LEDGER = "ledger"
UNLABELLED = 255
"""Stored label of a pixel nobody labelled; class indices are 0..254."""
NO_DATE = -(2**31)
"""Stored date of a parcel's label that is not known; dates are days since 1970-01-01."""


def check_cube(tree: xr.DataTree) -> None:
    """Raise MdicoError unless the tree is a cube of this layout, every group on the root's one grid."""
    where = tree.encoding.get("source", "cube")
    version = tree.attrs.get("mdico_schema")
    if version is None:
        raise MdicoError(f"{where}: is not an mdico cube (the root has no mdico_schema). Build one with `mdico build`.")
    if version != VERSION:
        raise MdicoError(f"{where}: has layout {version}, this version reads {VERSION}. Build the cube again.")
    for axis in ("x", "y"):
        if axis not in tree.coords:
            raise MdicoError(f"{where}: the root has no coordinate {axis}. Build the cube again.")
    for name in tree.attrs.get("mdico_modalities", {}):
        if name not in tree.children:
            raise MdicoError(f"{where}: group {name} is missing. Continue the build with `mdico build --resume`.")
        _check_group(name, tree[name], tree)


def _check_group(name: str, node: xr.DataTree | xr.DataArray, tree: xr.DataTree) -> None:
    assert isinstance(node, xr.DataTree)
    for key, variable in node.data_vars.items():
        if variable.dims not in (TEMPORAL, STATIC, COARSE) and key not in (OROGRAPHY, LAPSE_RATE):
            raise MdicoError(
                f"{name}/{key}: has dimensions {variable.dims}, a cube has {TEMPORAL}, {STATIC} or {COARSE}."
            )
    for axis in ("x", "y"):
        mine, root = node.coords[axis].values, tree.coords[axis].values
        if mine.shape != root.shape or not np.array_equal(mine, root):
            raise MdicoError(
                f"{name}: {axis} starts at {mine[0]:g} with {mine.size} pixels, the grid at {root[0]:g} with "
                f"{root.size}. Build every modality from one GeoBox (grid_for)."
            )
