"""A planned weather layer in, the layer on disk out: written whole, recorded last."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import zarr
from odc.geo.geobox import GeoBox

from mdico_cube import __version__
from mdico_cube.cube.block import settle
from mdico_cube.cube.change import writing
from mdico_cube.cube.job import Built
from mdico_cube.cube.ledger import DONE, FAILED, Entry, Ledger
from mdico_cube.cube.reader import forget_readers
from mdico_cube.cube.target import Target, open_group
from mdico_cube.cube.weather import WeatherPlan
from mdico_cube.cube.weather_read import read_weather
from mdico_cube.cube.weather_standin import read_elsewhere
from mdico_cube.errors import MdicoError
from mdico_cube.schema import LAPSE_RATE, OROGRAPHY
from mdico_cube.spec import Array


def run_weather(
    path: Target, plan: WeatherPlan, geobox: GeoBox, holds: Callable[[], bool] = lambda: True, durable: bool = False
) -> Built:
    """Read one coarse modality, write it whole, record it last.

    Where its stores cannot be read, it is read from the first of the plan's other catalogs that has the same cells.

    Args:
        path: the cube.
        plan: what to read.
        geobox: the whole grid of the cube.
        holds: asked just before writing; False where another builder took the job over.
        durable: wait until the values are on the disk before they are recorded.
    """
    start, name, origin = time.monotonic(), plan.modality.name, plan.origin
    ledger, items = Ledger(path, name, mode="r+"), tuple(item.id for item in plan.items)
    stand_ins: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    lapse_rate = plan.lapse_rate
    try:
        try:
            layer = read_weather(plan, geobox)
        except MdicoError as error:
            layer, other, whose = read_elsewhere(plan, geobox, error)
            lapse_rate, stand_ins = other.lapse_rate, dict.fromkeys(items, whose)
            notes = (f"{name}: {error} It is taken from {whose} instead.",)
    except MdicoError as error:
        with writing(path):
            if not holds():
                return Built(lost=True)
            ledger.record(0, 0, Entry(FAILED, origin.digest, items, error=str(error)))
        return Built(str(error))
    seen = (~np.isnan(layer.values)).all(axis=1).mean(axis=(1, 2))  # (T,)
    with writing(path):
        if not holds():
            return Built(lost=True)
        group = open_group(path, "r+", name)
        ledger.forget(0, 0)
        written: dict[str, Array | float] = {
            plan.modality.variable: layer.values,
            OROGRAPHY: layer.heights,
            LAPSE_RATE: lapse_rate,
        }
        for variable, values in written.items():
            array = group[variable]
            assert isinstance(array, zarr.Array)
            array[...] = values
            if durable:
                settle(array)
        entry = Entry(
            DONE,
            origin.digest,
            items,
            stand_ins=stand_ins,
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
    return Built(bytes_written=entry.bytes_written, stand_ins=tuple(stand_ins), notes=notes)
