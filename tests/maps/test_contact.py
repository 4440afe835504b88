"""The contact sheet: what it shows stands where it should, and what cannot be shown is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from mdico_cube.errors import MdicoError
from mdico_cube.maps import contact
from mdico_cube.patches.extract import extract_samples
from mdico_cube.patches.samples import SampleStore, open_samples
from mdico_cube.recipe import SampleSection

NAMES = ("sentinel1", "sentinel2", "dem")


@pytest.fixture(scope="module")
def store(toy_cube: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    section = SampleSection(block=16, guard=1, per_class=30, patch=4)
    return open_samples(extract_samples(toy_cube, tmp_path_factory.mktemp("s") / "samples.zarr", NAMES, section))


def test_tiles_are_the_samples_pixels(store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pasted: list[tuple[Any, int, int]] = []
    real = contact._paste
    monkeypatch.setattr(contact, "_paste", lambda canvas, *rest: (pasted.append(rest), real(canvas, *rest)))
    path = contact.contact_sheet(store.path, tmp_path / "out.png", count=3)
    picture = imread(path)
    assert picture.shape[0] > 3 * 2 * 66
    assert picture.std() > 0.1
    steps = len(store.inputs["sentinel1"].steps)
    assert len(pasted) == 3 * (2 + 2 * steps)
    chosen = contact._chosen(store, 3, "train", None, 0)
    color = {k: [int(entry.color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for k, entry in enumerate(store.legend)}
    for i, row in enumerate(chosen):
        tile = pasted[i * (2 + 2 * steps)][0]
        target = store.array("target")[int(row)]
        for y, x in np.ndindex(4, 4):
            expected = color.get(int(target[y, x]), [0xED / 255] * 3)
            np.testing.assert_allclose(tile[y, x], expected, atol=1e-6)
        seen = np.asarray(store.array("sentinel2")[int(row)]) != 65535  # (T, C, 4, 4)
        for t in range(steps):
            tile = pasted[i * (2 + 2 * steps) + 2 + steps + t][0]
            blank = np.isclose(tile, 0.93).all(axis=-1)
            assert (blank | seen[t].all(axis=0)).all()


def test_classes_take_turns_and_can_be_chosen(store: SampleStore) -> None:
    first = contact._chosen(store, 6, "train", None, 0)
    assert np.bincount(store.label[first]).tolist() == [3, 3]
    assert (store.fold[contact._chosen(store, 4, "test", None, 0)] == 3).all()
    name = store.legend[1].name
    assert (store.label[contact._chosen(store, 4, "train", name, 1)] == 1).all()
    assert contact._chosen(store, 6, "train", None, 1).tolist() != first.tolist()


def test_pixel_series_are_drawn_as_lines_also_from_the_cube(toy_cube: Path, tmp_path: Path) -> None:
    section = SampleSection(block=16, guard=1, per_class=20)
    samples = extract_samples(toy_cube, tmp_path / "samples.zarr", NAMES, section, pixels=False)
    with pytest.raises(MdicoError, match="holds no pixels"):
        contact.contact_sheet(samples, tmp_path / "out.png")
    path = contact.contact_sheet(samples, tmp_path / "out.png", count=2, cube=toy_cube)
    assert imread(path).std() > 0.02


@pytest.mark.parametrize(
    ("options", "text"),
    [({"fold": "tests"}, "no such fold"), ({"label": "rice"}, "no such class")],
)
def test_what_is_not_there_is_named(store: SampleStore, tmp_path: Path, options: dict[str, str], text: str) -> None:
    with pytest.raises(MdicoError, match=text):
        contact.contact_sheet(store.path, tmp_path / "out.png", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out.png").exists()
