"""A planned weather layer in, the layer on disk out: written whole, recorded last."""

from __future__ import annotations

import time

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube import __version__
from mdico_cube.cube.change import writing
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger
from mdico_cube.cube.reader import forget_readers
from mdico_cube.cube.target import Target, open_group
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_read import read_weather
from mdico_cube.errors import MdicoError
from mdico_cube.schema import LAPSE_RATE, OROGRAPHY
from mdico_cube.spec import Array


def run_weather(path: Target, plan: WeatherPlan, geobox: GeoBox) -> tuple[str, int]:
    """Read one coarse modality, write it whole, record it last.

    Args:
        path: the cube.
        plan: what to read.
        geobox: the whole grid of the cube.

    Returns:
        Why it could not be read, or an empty text; and the bytes written.
    """
    start, name, origin = time.monotonic(), plan.modality.name, plan.origin
    ledger, items = Ledger(path, name, mode="r+"), tuple(item.id for item in plan.items)
    try:
        layer = read_weather(plan, geobox)
    except MdicoError as error:
        with writing(path):
            ledger.record(0, 0, Entry(FAILED, origin.digest, items, error=str(error)))
        return str(error), 0
    seen = (~np.isnan(layer.values)).all(axis=1).mean(axis=(1, 2))  # (T,)
    with writing(path):
        group = open_group(path, "r+", name)
        ledger.forget(0, 0)
        written: dict[str, Array | float] = {
            plan.modality.variable: layer.values,
            OROGRAPHY: layer.heights,
            LAPSE_RATE: plan.lapse_rate,
        }
        for variable, values in written.items():
            array = group[variable]
            assert isinstance(array, zarr.Array)
            array[...] = values
        entry = Entry(
            DONE,
            origin.digest,
            items,
            valid_fraction=float(seen.mean()),
            step_fractions={step: float(share) for step, share in zip(plan.steps, seen, strict=True)},
            seconds=round(time.monotonic() - start, 3),
            bytes_written=layer.values.nbytes + layer.heights.nbytes,
            version=__version__,
            settings=origin.settings,
            grid=origin.grid,
            steps=origin.steps,
        )
        ledger.record(0, 0, entry)
    forget_readers()
    return "", entry.bytes_written
