"""A cube opened with xarray in; pictures, availability, series, samples, maps and the ledger out, as `cube.mdico`."""

from mdico_cube.accessor.cube import CubeAccessor, GroupAccessor
from mdico_cube.cube.reader import open_cube

__all__ = ["CubeAccessor", "GroupAccessor", "open_cube"]
