"""The picture of a cube's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import zarr
from matplotlib.colors import to_rgb
from odc.geo.geobox import GeoBox

from mdico_cube.cube.layer import Layer
from mdico_cube.cube.ledger import DONE, FAILED, GAPS, Entry, Ledger
from mdico_cube.cube.store import create_cube
from mdico_cube.errors import MdicoError
from mdico_cube.maps.ledger_picture import ledger_figure, ledger_picture
from mdico_cube.sensors.registry import SENSORS

STEPS = ("2021-01-01", "2021-02-01")


@pytest.fixture
def cube(tmp_path: Path, grid: GeoBox) -> Path:
    path = tmp_path / "cube.zarr"
    layers = [Layer(SENSORS["sentinel1"].modality, STEPS), Layer(SENSORS["dem"].modality, ("",))]
    create_cube(path, grid, layers, 16, 32, {"mdico_recipe": "{}"}, (2, 3))
    array: Any = zarr.open_group(path, mode="r+")["sentinel1/backscatter"]
    array[..., :32, :64] = 1
    ledger = Ledger(path, "sentinel1", "r+")
    ledger.record(0, 0, Entry(DONE, valid_fraction=0.9, step_fractions={STEPS[0]: 0.8, STEPS[1]: 1.0}))
    ledger.record(0, 1, Entry(GAPS, valid_fraction=0.2, step_fractions={STEPS[0]: 0.4, STEPS[1]: 0.0}))
    ledger.record(1, 2, Entry(FAILED, error="no file"))
    return path


def test_it_tells_shards_and_steps(cube: Path) -> None:
    figure = ledger_figure(cube)
    shards, steps = figure.axes[:2]
    written = [text.get_text() for text in shards.texts]
    assert [text for text in written if text and "shards" not in text] == ["90", "20", "failed"]
    assert any("1 built, 1 with gaps, 1 failed, 3 missing" in text for text in written)
    assert [bar.get_height() for bar in steps.patches] == pytest.approx([60, 50])
    assert shards.get_xlim() == (700000, 700960)


def test_the_file_shows_the_colours(cube: Path, tmp_path: Path) -> None:
    image = matplotlib.image.imread(ledger_picture(cube, tmp_path / "deep" / "shards.png"))[..., :3]
    for color in ("#d55e00", "#e6e6e6"):
        assert (np.abs(image - to_rgb(color)).max(axis=-1) < 0.01).sum() > 500, color


def test_no_cube(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="is no cube"):
        ledger_picture(tmp_path / "nothing", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
