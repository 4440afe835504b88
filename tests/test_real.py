"""The whole chain on real Sentinel-1 and Sentinel-2 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import mdico_cube as mdico

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "real-region"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real region is not at {DATA}"),
]
WHOLE = (slice(0, 100), slice(0, 100))


def real_recipe(output: Path) -> mdico.Recipe:  # type: ignore[name-defined]
    recipe = mdico.load_recipe(Path(__file__).with_name("real-region.yml"))
    return recipe.model_copy(
        update={
            "output": output,
            "href": str(DATA / "catalog.json"),
            "labelling": recipe.labels.model_copy(
                update={"path": DATA / "worldcereal-2021/WORLDCEREAL_31UFS_2021/cropland.tif"}
            ),
        }
    )


def test_train_with_both_and_map_with_each(tmp_path: Path) -> None:
    recipe = real_recipe(tmp_path)
    reader = mdico.open_reader(mdico.build(recipe))
    red = rasterio.open(DATA / "sentinel-2-l2a/S2_31UFS_2021-06/B04.tif").read(1)
    values, observed = reader.read("sentinel2", *WHOLE)
    np.testing.assert_allclose(values[7, 2], np.where(red == 65535, 0, red) * 1e-4, atol=1e-6)
    assert not observed[1:3].any(), "December and January were never seen"
    assert observed[[0, *range(3, 12)]].all()
    power = rasterio.open(DATA / "sentinel-1-rtc/S1_31UFS_2021-06/vh.tif").read(1)
    np.testing.assert_allclose(reader.read("sentinel1", *WHOLE)[0][7, 1], 10 * np.log10(power), atol=0.0051)
    mdico.sample(recipe)
    mdico.train(recipe)
    maps = mdico.predict(recipe)
    assert len(maps) == 4
    for result in mdico.evaluate(recipe).to_dict()["maps"]:
        assert result["f1_macro"] > 0.8, result


def test_weather_of_the_one_cell_that_covers_the_region(tmp_path: Path) -> None:
    """AgERA5 by months, Zarr v2: the same everywhere, sampled like any other sensor."""
    rules = {
        "asset": "zarr",
        "every": "MS",
        "variables": {
            "t2m": {"name": "t2m", "kind": "mean", "unit": "K", "missing": 0},
            "tp": {"name": "tp", "kind": "sum", "unit": "mm"},
        },
    }
    recipe = real_recipe(tmp_path)
    facts = recipe.model_dump(mode="json", exclude_unset=True)
    facts["modalities"]["era5"] = {"source": {"collection": "agera5", "zarr": rules}}
    facts["modalities"].pop("sentinel2")
    facts["colearn"]["modalities"] = ["sentinel1", "era5"]
    recipe = mdico.parse_recipe(facts)
    reader = mdico.open_reader(mdico.build(recipe))
    values, observed = reader.read("era5", *WHOLE)
    store = zarr.open_group(DATA / "agera5" / "agera5.zarr", mode="r")
    for band, name in enumerate(("t2m", "tp")):
        want = np.asarray(store[name]).ravel()
        np.testing.assert_array_equal(values[:, band], np.broadcast_to(want[:, None, None], (12, 100, 100)))
    assert observed.all()
    assert reader.rests_on("era5") == ("era5",), "the source does not know its height"
    mdico.sample(recipe)
    stats = mdico.open_samples(tmp_path / "samples.zarr").inputs["era5"].stats
    assert stats.mean[0] == pytest.approx(values[:, 0].mean(), abs=0.01)
    cube = mdico.open_cube(recipe.output / "cube.zarr")
    series = cube.mdico.series(float(cube.x[3]), float(cube.y[90]))
    july = series[(series.modality == "era5") & (series.band == "tp") & (series.time == "2021-07-01")]
    assert july["value"].item() == pytest.approx(160.72, abs=0.01)
