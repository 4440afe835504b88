"""Footprints: shares add up, stand symmetric about the pixel, and place another zone's pixels where they are."""

from __future__ import annotations

import numpy as np
from pyproj import Transformer

from mdico_cube.demo.landscape import CRS
from mdico_cube.demo.sampling import footprints, grid_over, positions
from mdico_cube.demo.world import World


def test_grid_edges_stand_on_the_anchor() -> None:
    grid = grid_over((101.0, 203.0, 299.0, 387.0), CRS, 30, 15, 30)
    assert grid.bounds == (75.0, 195.0, 315.0, 405.0)
    assert grid.shape == (7, 8)
    assert grid.coarser(2).step == 60


def test_shares_add_up_and_are_symmetric(world: World) -> None:
    land = world.landscape
    grid = grid_over(land.frame.bounds, CRS, 10, 0, 10)
    prints = footprints(land, grid)
    assert np.allclose(np.asarray(prints.shares.sum(axis=1)), 1, atol=1e-5)
    assert np.allclose(np.asarray(prints.sky.sum(axis=1)), 1, atol=1e-5)
    assert prints.inside.all()
    _, col = np.indices(land.parcel.shape)
    mean_col = np.bincount(land.parcel.ravel(), weights=col.ravel())
    assert mean_col.size == land.parcels
    steps = np.indices(land.parcel.shape)[1].astype(np.float32)  # a ramp must be read at the pixel's centre
    ramp = footprints(type(land)(land.frame, land.elevation, land.parcel, land.kind, land.labelled, steps, steps), grid)
    expected = 2 * land.frame.margin + 2 * (np.arange(grid.cols) + 0.5) - 0.5
    assert np.allclose(ramp.vigour.reshape(grid.shape)[5], expected, atol=1e-3)


def test_positions_of_the_other_zone(world: World) -> None:
    frame = world.landscape.frame
    x, y = Transformer.from_crs(CRS, "EPSG:32632", always_xy=True).transform(frame.left + 37.5, frame.top - 82.5)
    row, col = positions(world.landscape, "EPSG:32632", np.array([x]), np.array([y]))
    assert np.allclose([row[0], col[0]], [2 * frame.margin + 16.5, 2 * frame.margin + 7.5], atol=1e-3)
