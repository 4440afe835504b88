"""The same region gives the same bytes; a folder is whole or has no catalog; bad wishes are refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from pyproj import Transformer

from mdico_cube.demo import region as region_module
from mdico_cube.demo.region import DemoRegion, write_region
from mdico_cube.errors import MdicoError

SMALL = DemoRegion(size=48, s2_days=90, s1_days=180, landsat_days=180)


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".gpkg"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes_and_other_seed_other_pixels(tmp_path: Path) -> None:
    first, again, other = (
        digests(write_region(tmp_path / name, replace(SMALL, seed=seed)).parent)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first == again
    pictures = [name for name in first if name.endswith(".tif")]
    assert len(pictures) > 100
    same = [name for name in pictures if first[name] == other[name]]
    assert all(name.endswith("SCL.tif") or name.endswith("qa_pixel.tif") for name in same)  # closed skies look alike


def test_card_says_where_and_when(folder: Path) -> None:
    card = json.loads((folder / "region.json").read_text())
    left, bottom, right, top = card["bounds"]
    assert (right - left, top - bottom) == (960, 960)
    assert left % 60 == top % 60 == 0
    west, south, east, north = Transformer.from_crs(card["crs"], 4326, always_xy=True).transform_bounds(*card["bounds"])
    assert west < 6 < east
    assert 50 < south < north < 51
    assert card["period"] == {"start": "2021-01-01", "end": "2021-12-31"}
    assert [c["value"] for c in card["classes"]] == list(range(1, 9))
    assert card["seed"] == 0
    assert card["epsg"] == 32631


def test_complete_region_is_reused_and_another_refused(tmp_path: Path) -> None:
    region = replace(SMALL, collections=("cop-dem-glo-30",))
    catalog = write_region(tmp_path / "r", region)
    before = catalog.stat().st_mtime_ns
    assert write_region(tmp_path / "r", region) == catalog
    assert catalog.stat().st_mtime_ns == before
    with pytest.raises(MdicoError, match="holds another catalog"):
        write_region(tmp_path / "r", replace(region, seed=1))


def test_no_catalog_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(region_module, "write_labels", full)
    with pytest.raises(MdicoError, match="No space left"):
        write_region(tmp_path / "r", replace(SMALL, collections=("cop-dem-glo-30",)))
    assert not (tmp_path / "r" / "catalog.json").exists()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MdicoError, match="cannot be written"):
        write_region(tmp_path / "file" / "r", replace(SMALL, collections=("cop-dem-glo-30",)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 97}, "even number"),
        ({"size": 40}, "even number"),
        ({"seed": -1}, "seed"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"s2_days": 0}, "1 or more"),
        ({"collections": ("sentinel-3",)}, "unknown collection sentinel-3"),
        ({"collections": ()}, "at least one"),
    ],
)
def test_bad_wishes(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(MdicoError, match=words):
        write_region(tmp_path / "r", replace(SMALL, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "r").exists()
