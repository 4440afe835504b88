"""Bundles: exported equals single, whole or not at all, no pickle, refuses what does not fit and says why."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pystac
import pystac.validation
import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section
from pystac.extensions.mlm import AssetGeneralMLMExtension, MLMExtension
from safetensors.torch import load_file

from mdico_cube.batch import Batch
from mdico_cube.colearn.bundle import BundleConfig, add_scores, check_fit, load_bundle, save_bundle
from mdico_cube.colearn.encoders.registry import ENCODERS
from mdico_cube.colearn.fast import fast_form
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.trained import TrainedModel
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Band

INPUTS = make_inputs(three=True)
BOX = (4.0, 50.5, 4.5, 51.0)


def make_trained(method: str = "mdico", **changes: object) -> TrainedModel:
    """As after a training: moved batch statistics, eval mode."""
    torch.manual_seed(0)
    section = make_section(**changes)
    model = METHODS[method](INPUTS, len(LEGEND), section, balanced_weights([5, 4, 3], [c.name for c in LEGEND]))
    for seed in range(3):
        model.losses(make_batch(INPUTS, 12, seed=seed))
    row = {"epoch": 0, "val_loss": 1.5, "val_f1": 0.7, **{f"val_f1_{m}": 0.7 for m in INPUTS}}
    return TrainedModel(model.eval(), method, INPUTS, LEGEND, section, [row], 0, 12, (5, 4, 3), 3.2, 7)


ALONE = [name for name, method in METHODS.items() if method.maps_alone]
TRAINED = {method: make_trained(method) for method in ALONE}


@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("modality", INPUTS)
@pytest.mark.parametrize("size", [1, 3])
def test_exported_equals_single(method: str, modality: str, size: int, tmp_path: Path) -> None:
    trained = TRAINED[method]
    bundle = load_bundle(save_bundle(tmp_path / "b", trained, modality))
    batch = make_batch(INPUTS, 6, size, seed=9)
    x, valid = batch.images[modality], batch.valid[modality]
    exported, single = bundle.model(x, valid), trained.model.single(modality)(x, valid)
    if method == "timmil-like":  # attention sums in another order when no gradient is wanted
        torch.testing.assert_close(exported, single, rtol=0, atol=1e-6)
    else:
        assert torch.equal(exported, single)
    assert not bundle.model.training
    assert not any(p.requires_grad for p in bundle.model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_comes_back(encoder: str, tmp_path: Path) -> None:
    trained = make_trained("mdico", encoder={"name": encoder, "heads": 2})
    bundle = load_bundle(save_bundle(tmp_path / "b", trained, "optical"))
    batch = make_batch(INPUTS, 6, 2, seed=9)
    x, valid = batch.images["optical"], batch.valid["optical"]
    torch.testing.assert_close(bundle.model(x, valid), trained.model.single("optical")(x, valid), rtol=0, atol=1e-6)


def test_a_method_that_cannot_map_alone_has_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="cannot map with radar alone"):
        save_bundle(tmp_path / "b", make_trained("fusion-concat"), "radar")
    assert not list(tmp_path.iterdir())


def test_config_says_what_the_model_is(tmp_path: Path) -> None:
    config = load_bundle(save_bundle(tmp_path / "b", TRAINED["mdico"], "optical", bbox=BOX)).config
    assert (config.name, config.method, config.modality) == ("mdico-optical-seed7", "mdico", "optical")
    assert config.spec.stats == INPUTS["optical"].stats
    assert config.spec.steps == INPUTS["optical"].steps
    assert config.spec.modality.band_names == INPUTS["optical"].modality.band_names
    assert config.spec.modality.units == INPUTS["optical"].modality.units
    assert config.classes == LEGEND
    assert config.protocol == "honest"
    assert config.bbox == BOX
    assert config.training.samples == 12
    assert config.parameters == sum(p.numel() for p in TRAINED["mdico"].model.single("optical").parameters())


def test_terrain_with_a_missing_value_of_nan_comes_back(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "b", TRAINED["mdico"], "terrain")
    assert json.loads((folder / "bundle.json").read_text())["storage"]["missing"] is None
    storage = load_bundle(folder).config.storage
    assert storage.missing != storage.missing
    assert load_bundle(folder).config.steps == ("",)


@pytest.mark.parametrize("modality", INPUTS)
@pytest.mark.parametrize("bbox", [BOX, None])
def test_item_is_stac_with_the_mlm_extension(modality: str, bbox: tuple[float, ...] | None, tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "b", TRAINED["mdico"], modality, bbox=bbox)  # type: ignore[arg-type]
    data = json.loads((folder / "item.json").read_text())
    pystac.validation.validate_dict({**data, "stac_extensions": []})  # the core schema, without the network
    item = pystac.Item.from_dict(data)
    mlm = MLMExtension.ext(item)
    spec = INPUTS[modality]
    assert mlm.mlm_name == item.id
    assert mlm.architecture == "TempCNN"
    assert mlm.tasks == ["semantic-segmentation"]
    assert mlm.framework == "PyTorch"
    assert mlm.total_parameters == sum(p.numel() for p in TRAINED["mdico"].model.single(modality).parameters())
    (model_input,), (model_output,) = mlm.input, mlm.output
    assert tuple(model_input.bands) == spec.modality.band_names
    assert model_input.input.shape == [-1, len(spec.steps), len(spec.modality.bands), -1, -1]
    scaling = data["properties"]["mlm:input"][0]["value_scaling"]  # a list in the extension's schema
    assert [(s["type"], s["mean"], s["stddev"]) for s in scaling] == [
        ("z-score", mean, std) for mean, std in zip(spec.stats.mean, spec.stats.std, strict=True)
    ]
    assert model_output.result.shape == [-1, len(LEGEND), -1, -1]
    classes = data["properties"]["mlm:output"][0]["classification:classes"]
    assert [(c["value"], c["title"], c["color_hint"]) for c in classes] == [
        (c.value, c.name, c.color[1:].upper()) for c in LEGEND
    ]
    assert [band["name"] for band in data["properties"]["bands"]] == list(spec.modality.band_names)
    asset = item.assets["model"]
    assert "mlm:model" in (asset.roles or [])
    assert AssetGeneralMLMExtension.ext(asset).artifact_type == "safetensors"
    assert (folder / asset.href).is_file()
    assert (item.geometry is None) == (bbox is None)


def test_scores_reach_config_and_card_and_keep_the_digest(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "b", TRAINED["mdico"], "radar", scores={"test": {"macro_f1": 0.5}})
    before = load_bundle(folder).config
    after = add_scores(folder, {"test": {"macro_f1": 0.61234, "per_class": {"wheat": 0.9}}, "note": "held-out blocks"})
    assert load_bundle(folder).config == after
    assert after.scores["test"]["macro_f1"] == 0.61234
    assert after.digest == before.digest
    card = (folder / "README.md").read_text()
    assert "| test.macro_f1 | 0.6123 |" in card
    assert "| test.per_class.wheat | 0.9 |" in card
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("method", ALONE)
def test_a_temperature_divides_the_logits_and_nothing_else(method: str, tmp_path: Path) -> None:
    """Whatever form the model takes on its way to a map, its confidence is calibrated and its classes stay."""
    trained = TRAINED[method]
    bundle = load_bundle(save_bundle(tmp_path / "b", trained, "optical", temperature=2.5))
    batch = make_batch(INPUTS, 6, seed=9)
    x, valid = batch.images["optical"], batch.valid["optical"]
    plain = trained.model.single("optical")(x, valid)
    torch.testing.assert_close(bundle.model(x, valid) * 2.5, plain, rtol=1e-4, atol=1e-5)
    series = fast_form(bundle.model)(x[..., 0, 0].permute(1, 2, 0), valid[..., 0, 0].t())
    torch.testing.assert_close(series * 2.5, plain[..., 0, 0], rtol=1e-3, atol=1e-4)
    assert bundle.config.temperature == 2.5
    assert "(temperature 2.5, already in the weights)" in (tmp_path / "b" / "README.md").read_text()
    assert torch.equal(trained.model.single("optical")(x, valid), plain), "the trained model stays as it is"


def test_a_temperature_is_above_zero(tmp_path: Path) -> None:
    with pytest.raises(MdicoError, match="must be above 0"):
        save_bundle(tmp_path / "b", TRAINED["mdico"], "radar", temperature=0.0)
    assert not (tmp_path / "b").exists()


def test_card_names_sensor_classes_and_protocol(tmp_path: Path) -> None:
    card = (save_bundle(tmp_path / "b", TRAINED["mdico"], "radar") / "README.md").read_text()
    for text in (
        "# mdico-radar-seed7",
        "winter rape & turnip",
        "| b1 | dB | -12 | 3 |",
        "inner validation",
        "Not evaluated",
    ):
        assert text in card


def test_exists_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_bundle(tmp_path / "b", TRAINED["mdico"], "radar")
    kept = load_bundle(folder).config
    with pytest.raises(MdicoError, match="exists already"):
        save_bundle(folder, TRAINED["mdico"], "radar")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        for target, overwrite in ((folder, True), (tmp_path / "new", False)):
            with pytest.raises(MdicoError, match=r"cannot be written .No space left"):
                save_bundle(target, TRAINED["mdico"], "optical", overwrite=overwrite)
        with pytest.raises(MdicoError, match=r"cannot be written .No space left"):
            add_scores(folder, {"f1": 1.0})
    assert load_bundle(folder).config == kept
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert load_bundle(save_bundle(folder, TRAINED["mdico"], "optical", overwrite=True)).config.modality == "optical"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damage_is_named(tmp_path: Path) -> None:
    def fresh() -> Path:
        return save_bundle(tmp_path / "b", TRAINED["mdico"], "radar", overwrite=True)

    with pytest.raises(MdicoError, match=r"bundle .*nowhere: bundle.json cannot be read"):
        load_bundle(tmp_path / "nowhere")
    (fresh() / "bundle.json").write_text("{")
    with pytest.raises(MdicoError, match=r"bundle.json is damaged"):
        load_bundle(tmp_path / "b")
    edit(fresh(), format=2)
    with pytest.raises(MdicoError, match="has layout 2, this version of mdico_cube reads 1"):
        load_bundle(tmp_path / "b")
    edit(fresh(), colour="red")
    with pytest.raises(MdicoError, match=r"is damaged .colour"):
        load_bundle(tmp_path / "b")
    edit(fresh(), method="magic")
    with pytest.raises(MdicoError, match="unknown method 'magic'"):
        load_bundle(tmp_path / "b")
    (fresh() / "weights.safetensors").unlink()
    with pytest.raises(MdicoError, match=r"weights.safetensors cannot be read"):
        load_bundle(tmp_path / "b")
    weights = fresh() / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(MdicoError, match="checksum differs"):
        load_bundle(tmp_path / "b")
    edit(fresh(), colearn=make_section(encoder={"width": 32}).model_dump(mode="json"))
    with pytest.raises(MdicoError, match=r"the weights do not fit the config .size mismatch"):
        load_bundle(tmp_path / "b")
    edit(fresh(), method="independent")
    with pytest.raises(MdicoError, match="the weights do not fit the config"):
        load_bundle(tmp_path / "b")


def test_weights_are_plain_tensors_of_one_sensor_only(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "b", TRAINED["mdico"], "radar")
    assert set(load_file(folder / "weights.safetensors")) == set(TRAINED["mdico"].model.single("radar").state_dict())
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "bundle.json",
        "item.json",
        "weights.safetensors",
    ]


def test_a_batch_of_another_shape_is_refused_by_the_model(tmp_path: Path) -> None:
    model = load_bundle(save_bundle(tmp_path / "b", TRAINED["mdico"], "radar")).model
    batch: Batch = make_batch(INPUTS, 2)
    with pytest.raises(MdicoError, match="radar: the model takes 6 steps x 2 bands, came 6 x 4"):
        model(batch.images["optical"], batch.valid["optical"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BundleConfig:
    return load_bundle(save_bundle(tmp_path_factory.mktemp("fit") / "b", TRAINED["mdico"], "optical")).config


def test_fits_another_year_and_a_leap_year(config: BundleConfig) -> None:
    spec = INPUTS["optical"]
    check_fit(config, spec.modality, spec.steps)
    check_fit(config, spec.modality, tuple(step.replace("2021", "2019") for step in spec.steps))
    shifted = ("2024-01-01", "2024-02-01", "2024-02-29", "2024-03-31", "2024-04-30", "2024-06-01")
    check_fit(config, spec.modality, shifted)  # a step counted in days falls one day earlier in a leap year
    turn = config.model_copy(update={"steps": ("2021-12-31",)})
    check_fit(turn, spec.modality, ("2023-01-01",))


def test_each_difference_is_named(config: BundleConfig) -> None:
    spec = INPUTS["optical"]
    modality, bands = spec.modality, spec.modality.bands
    unit = (replace(bands[0], unit="dB"), *bands[1:])
    cases = [
        (replace(modality, bands=bands[:3]), spec.steps, "missing band b3"),
        (replace(modality, bands=(*bands, Band("b9", "reflectance"))), spec.steps, "extra band b9"),
        (replace(modality, bands=bands[::-1]), spec.steps, "another order, needs b0, b1, b2, b3, came b3, b2, b1, b0"),
        (replace(modality, bands=unit), spec.steps, "b0 needs unit reflectance, came dB"),
        (modality, spec.steps[1:], "needs 6 time steps, came 5"),
        (modality, ("2021-01-04", *spec.steps[1:]), r"other days of the year: 2021-01-01 .came 2021-01-04"),
        (replace(modality, name="landsat"), spec.steps, "it maps with optical"),
    ]
    for other, steps, message in cases:
        with pytest.raises(MdicoError, match=f"bundle mdico-optical-seed7 does not fit .*{message}"):
            check_fit(config, other, steps)
    both = replace(modality, bands=unit[:3])
    with pytest.raises(
        MdicoError, match=r"missing band b3; band b0 needs unit reflectance, came dB; needs 6 time steps"
    ):
        check_fit(config, both, ("",))


def test_loading_a_bundle_needs_no_training_library() -> None:
    """A map worker must not pay for Lightning."""
    code = (
        "import sys, mdico_cube.colearn.bundle; print([m for m in ('lightning', 'torchmetrics') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_notebook_shows_what_the_model_is(tmp_path: Path) -> None:
    scores = {"kappa": 0.5, "pixels": 12345}
    bundle = load_bundle(save_bundle(tmp_path / "b", TRAINED["mdico"], "optical", scores=scores))
    card, config = bundle._repr_html_(), bundle.config
    for text in (f"{config.parameters:,} weights", config.digest[:12], "pixels scored", "0.5", "12,345", *config.bands):
        assert text in card
