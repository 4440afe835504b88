"""Adapters of pretrained encoders: names, shapes and arithmetic of their checkpoints, on random weights."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from colearn_toys import LEGEND, counts, make_batch, make_loader, make_section
from torch import Tensor

from mdico_cube.colearn.bundle import load_bundle, read_config, save_bundle
from mdico_cube.colearn.encoders.galileo import SCALINGS
from mdico_cube.colearn.encoders.registry import build_encoder, halo_of, make_encoder
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.trainer import fit
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ColearnSection, EncoderSection
from mdico_cube.sensors import dem, era5, landsat, sentinel1, sentinel2
from mdico_cube.spec import BandStats, InputSpec, Modality

MONTHS = tuple(f"2021-{month:02d}-01" for month in range(3, 9))
MODALITIES = {
    "sentinel1": sentinel1.MODALITY,
    "sentinel2": sentinel2.MODALITY,
    "landsat": landsat.MODALITY,
    "era5": era5.MODALITY.select(("t2m", "tp")),
    "dem": dem.MODALITY,
}
LEVELS = {"dB": (-12, 4), "reflectance": (0.2, 0.1), "K": (285, 8), "mm": (70, 30), "m": (300, 100), "degree": (5, 3)}
GALILEO = {"S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2, "NDVI": 1}
ANYSAT = {"s2": 10, "s1": 3, "l7": 6, "l8": 11}


def spec_of(modality: Modality) -> InputSpec:
    levels = [LEVELS.get(unit, (0, 1)) for unit in modality.units]
    stats = BandStats(tuple(float(m) for m, _ in levels), tuple(float(s) for _, s in levels), 100)
    return InputSpec(modality, MONTHS if modality.temporal else ("",), stats)


def values_of(spec: InputSpec, pixels: int = 4) -> tuple[Tensor, Tensor]:
    """Physical values (N, T, C, 1, 1) and what was observed (N, T, 1, 1)."""
    draw = torch.Generator().manual_seed(1)
    bands = (1, 1, -1, 1, 1)
    z = torch.randn(pixels, len(spec.steps), len(spec.modality.bands), 1, 1, generator=draw)
    valid = torch.rand(pixels, len(spec.steps), 1, 1, generator=draw) < 0.7
    valid[:, 0] = True
    return z * torch.tensor(spec.stats.std).view(bands) + torch.tensor(spec.stats.mean).view(bands), valid


def galileo_checkpoint(width: int = 128, depth: int = 4) -> dict[str, Tensor]:
    """Names and shapes of a Galileo encoder's weights, as its public code makes them; random values."""
    quarter, shapes = width // 4, dict[str, tuple[int, ...]]()
    for name, bands in GALILEO.items():
        shapes[f"space_time_embed.{name}.proj.weight"] = (width, bands, 8, 8)
        shapes[f"space_time_embed.{name}.proj.bias"] = (width,)
    for name, bands in {"SRTM": 2, "DW": 9, "WC": 5}.items():
        shapes[f"space_embed.{name}.proj.weight"] = (width, bands, 8, 8)
        shapes[f"space_embed.{name}.proj.bias"] = (width,)
    for kind, groups in {
        "time": {"ERA5": 2, "TC": 3, "VIIRS": 1},
        "static": {"LS": 1, "location": 3, "DW_static": 9, "WC_static": 5},
    }.items():
        for name, bands in groups.items():
            shapes[f"{kind}_embed.{name}.weight"] = (width, bands)
            shapes[f"{kind}_embed.{name}.bias"] = (width,)
    for i in range(depth):
        for name in ("q", "k", "v", "proj"):
            shapes[f"blocks.{i}.attn.{name}.weight"], shapes[f"blocks.{i}.attn.{name}.bias"] = (width, width), (width,)
        shapes[f"blocks.{i}.mlp.fc1.weight"], shapes[f"blocks.{i}.mlp.fc1.bias"] = (4 * width, width), (4 * width,)
        shapes[f"blocks.{i}.mlp.fc2.weight"], shapes[f"blocks.{i}.mlp.fc2.bias"] = (width, 4 * width), (width,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (width,)
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "pos_embed": (24, quarter)}
    shapes |= {"month_embed.weight": (12, quarter), "s_t_channel_embed": (7, quarter)}
    shapes |= {"sp_channel_embed": (3, quarter), "t_channel_embed": (3, quarter), "st_channel_embed": (4, quarter)}
    return drawn(shapes)


def anysat_checkpoint(width: int = 256, depth: int = 2, heads: int = 4) -> dict[str, Tensor]:
    """Names and shapes of AnySat's weights, as its public code makes them; random values."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "spatial_encoder.cls_token": (1, 1, width)}

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def linear(name: str, a: int, b: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (b, a), (b,)

    for name, bands in ANYSAT.items():
        at = f"projector_{name}.patch_embed"
        sizes = [bands, width // 8, width // 2, width, 2 * width, width]
        for i, (a, b) in enumerate(pairwise(sizes)):
            linear(f"{at}.inconv.{4 * i}", a, b)
            shapes[f"{at}.inconv.{4 * i + 1}.weight"] = shapes[f"{at}.inconv.{4 * i + 1}.bias"] = (b,)
        shapes[f"{at}.attention_heads.Q"] = (16, 8)
        linear(f"{at}.attention_heads.fc1_k", width, 128)
        linear(f"{at}.mlp.0", width, width)
        norm(f"{at}.mlp.1")
        norm(f"{at}.out_norm")
        if name == "s2":
            norm(f"{at}.in_norm")
        shapes[f"projector_{name}.pad_parameter"] = ()
    shapes["projector_aerial.patch_embed.weight"] = (width, 4, 10, 10)
    for i in range(depth):
        for at in (f"spatial_encoder.predictor_blocks.{i}", f"blocks.{i}"):
            linear(f"{at}.attn.qkv", width, 3 * width)
            linear(f"{at}.attn.proj", width, width)
        shapes[f"spatial_encoder.predictor_blocks.{i}.attn.rpe_k.lookup_table_weight"] = (1, width // heads, 8)
    for name in ("wk", "wv", "proj"):
        linear(f"blocks.{depth}.attn.{name}", width, width)
    shapes[f"blocks.{depth}.attn.q_learned"] = (1, 1, width)
    shapes[f"blocks.{depth}.attn.rpe_k.lookup_table_weight"] = (1, width // heads, 8)
    blocks = [f"spatial_encoder.predictor_blocks.{i}" for i in range(depth)] + [f"blocks.{i}" for i in range(depth + 1)]
    for at in blocks:
        linear(f"{at}.mlp.fc1", width, 4 * width)
        linear(f"{at}.mlp.fc2", 4 * width, width)
        norm(f"{at}.norm1")
        norm(f"{at}.norm2")
    norm("spatial_encoder.predictor_norm")
    return drawn(shapes)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=draw) * 0.06 + ("norm" in name and name.endswith("weight"))
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(galileo_checkpoint(), folder / "encoder.pt")
    torch.save({"state_dict": anysat_checkpoint(), "epoch": 3}, folder / "AnySat.pth")
    return {"galileo": folder / "encoder.pt", "anysat": folder / "AnySat.pth"}


def section_of(name: str, path: Path, **changes: object) -> EncoderSection:
    size = {"galileo": "nano", "anysat": "tiny"}[name]
    return EncoderSection(**{"name": name, "weights": path, "size": size, "width": 16, **changes})  # type: ignore[arg-type]


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def normed(state: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def grouped(state: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"])


def fed(state: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    return linear(state, f"{at}.mlp.fc2", F.gelu(linear(state, f"{at}.mlp.fc1", x)))


def galileo_of_pixel(state: dict[str, Tensor], spec: InputSpec, pixel: Tensor, kept: list[int]) -> Tensor:
    """Galileo's mean token of one pixel (T, C), physical, from the observed steps alone."""
    groups = {
        "sentinel1": {"S1": ("vv", "vh")},
        "sentinel2": {
            **{"S2_RGB": ("B02", "B03", "B04"), "S2_Red_Edge": ("B05", "B06", "B07"), "S2_NIR_10m": ("B08",)},
            **{"S2_NIR_20m": ("B8A",), "S2_SWIR": ("B11", "B12"), "NDVI": ()},
        },
        "era5": {"ERA5": ("t2m", "tp")},
        "dem": {"SRTM": ("elevation", "slope")},
    }[spec.modality.name]
    shrink = F.interpolate(torch.eye(64).view(64, 1, 8, 8), size=(1, 1), mode="bicubic", antialias=True).flatten()
    kernel = shrink / (shrink @ shrink)  # the pseudo-inverse of a column
    names, tokens = list(spec.modality.band_names), []
    here = torch.cat([torch.zeros(8), torch.ones(8)]).repeat(2)  # sin 0 ..., cos 0 ..., of row and of column
    for place, (group, bands) in enumerate(groups.items()):
        row = place + (1 if spec.modality.name == "sentinel2" else 0)
        for t in kept:
            if group == "NDVI":
                near, red = pixel[t, names.index("B08")], pixel[t, names.index("B04")]
                x = ((near - red) / (near + red)).view(1)
            else:
                key = [name.lower().replace("b0", "b") for name in bands]
                x = torch.stack(
                    [
                        (SCALINGS[k].factor * pixel[t, names.index(name)] - (SCALINGS[k].mean - 2 * SCALINGS[k].std))
                        / (4 * SCALINGS[k].std)
                        for k, name in zip(key, bands, strict=True)
                    ]
                )
            order, season = state["pos_embed"][t], state["month_embed.weight"][int(spec.steps[t][5:7] or 1) - 1]
            if spec.modality.name == "era5":
                token = F.linear(x, state["time_embed.ERA5.weight"], state["time_embed.ERA5.bias"])
                token = token + torch.cat([state["t_channel_embed"][0], order, season, torch.zeros(32)])
            else:
                kind = "space" if spec.modality.name == "dem" else "space_time"
                weight = (state[f"{kind}_embed.{group}.proj.weight"].flatten(2) * kernel).sum(2)
                token = F.linear(x, weight, state[f"{kind}_embed.{group}.proj.bias"])
                channel = state["sp_channel_embed"][0] if kind == "space" else state["s_t_channel_embed"][row]
                middle = [torch.zeros(64)] if kind == "space" else [order, season]
                token = token + torch.cat([channel, *middle, here])
            tokens.append(token)
    x = torch.stack(tokens)
    for i in range(4):
        inner = normed(state, f"blocks.{i}.norm1", x)
        q, k, v = (linear(state, f"blocks.{i}.attn.{name}", inner).view(-1, 8, 16) for name in "qkv")
        heads = [((q[:, h] @ k[:, h].T) / 4).softmax(-1) @ v[:, h] for h in range(8)]
        x = x + linear(state, f"blocks.{i}.attn.proj", torch.cat(heads, -1))
        x = x + fed(state, f"blocks.{i}", normed(state, f"blocks.{i}.norm2", x))
    return normed(state, "norm", x).mean(0)


def anysat_of_pixel(state: dict[str, Tensor], spec: InputSpec, pixel: Tensor, kept: list[int]) -> Tensor:
    """AnySat's patch token of one pixel (T, C), z-scored, from the observed steps alone."""
    width, heads, depth = 256, 4, 2
    name = {"sentinel1": "s1", "sentinel2": "s2", "landsat": "l7"}[spec.modality.name]
    if name == "s1":
        (vv, vh), spread = spec.stats.std, (4**2 + 4**2 - 2 * 0.8 * 16) ** 0.5
        pixel = torch.cat([pixel, ((vv * pixel[:, 0] - vh * pixel[:, 1]) / spread)[:, None]], dim=1)
    at, x = f"projector_{name}.patch_embed", pixel[kept]
    for i in range(5):
        x = F.relu(grouped(state, f"{at}.inconv.{4 * i + 1}", linear(state, f"{at}.inconv.{4 * i}", x), 4))
    if name == "s2":
        x = grouped(state, f"{at}.in_norm", x.T[None], 16)[0].T
    days = [(int(spec.steps[t][5:7]), t) for t in kept]
    starts = [0, 31, 59, 90, 120, 151, 181, 212]
    waves = torch.tensor(
        [
            [
                (math.sin if i % 2 == 0 else math.cos)(starts[month - 1] / 367 ** (2 * (i // 2) / (width // 16)))
                for i in range(width // 16)
            ]
            * 16
            for month, _ in days
        ]
    )
    x = x + waves
    keys = linear(state, f"{at}.attention_heads.fc1_k", x).view(-1, 16, 8)
    parts = []
    for h in range(16):
        share = (keys[:, h] @ state[f"{at}.attention_heads.Q"][h] / math.sqrt(8)).softmax(0)
        parts.append(share @ x[:, 16 * h : 16 * h + 16])
    token = F.relu(grouped(state, f"{at}.mlp.1", linear(state, f"{at}.mlp.0", torch.cat(parts)[None]), 4))
    token = grouped(state, f"{at}.out_norm", token, 16)  # (1, width)
    place = torch.cat([torch.zeros(width // 4), torch.ones(width // 4)]).repeat(2)
    x = torch.cat([state["spatial_encoder.cls_token"][0], token + place])

    def attend(at: str, q: Tensor, k: Tensor, v: Tensor, relative: bool, scaled: bool) -> Tensor:
        size, out = width // heads, []
        for h in range(heads):
            own = slice(h * size, h * size + size)
            scores = q[:, own] @ k[:, own].T / math.sqrt(size)
            if relative:
                table = q[:, own] @ state[f"{at}.rpe_k.lookup_table_weight"][0] / (math.sqrt(size) if scaled else 1)
                scores = scores + torch.stack([table[0, [7, 7]], table[1, [7, 3]]])
            out.append(scores.softmax(-1) @ v[:, own])
        return linear(state, f"{at}.proj", torch.cat(out, -1))

    for i in range(depth):
        at = f"spatial_encoder.predictor_blocks.{i}"
        q, k, v = linear(state, f"{at}.attn.qkv", normed(state, f"{at}.norm1", x)).chunk(3, -1)
        x = x + attend(f"{at}.attn", q, k, v, relative=True, scaled=True)
        x = x + fed(state, at, normed(state, f"{at}.norm2", x))
    x = torch.cat([state["cls_token"][0], normed(state, "spatial_encoder.predictor_norm", x)[:1] + place])
    for i in range(depth):
        at = f"blocks.{i}"
        q, k, v = linear(state, f"{at}.attn.qkv", normed(state, f"{at}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + attend(f"{at}.attn", q, k, v, relative=False, scaled=True)
        x = x + fed(state, at, normed(state, f"{at}.norm2", x, 1e-6))
    at = f"blocks.{depth}"
    inner = normed(state, f"{at}.norm1", x, 1e-6)
    q = state[f"{at}.attn.q_learned"][0] + torch.stack([torch.zeros(width), place])
    k, v = (linear(state, f"{at}.attn.{name}", inner) for name in ("wk", "wv"))
    x = attend(f"{at}.attn", q, k, v, relative=True, scaled=False)
    return (x + fed(state, at, normed(state, f"{at}.norm2", x, 1e-6)))[1]


every_sensor = pytest.mark.parametrize(
    ("name", "modality"),
    [
        *(("galileo", modality) for modality in ("sentinel1", "sentinel2", "era5", "dem")),
        *(("anysat", modality) for modality in ("sentinel1", "sentinel2", "landsat")),
    ],
)


@every_sensor
@torch.no_grad()
def test_each_pixel_gets_what_its_observed_steps_alone_give(
    name: str, modality: str, checkpoints: dict[str, Path]
) -> None:
    """Against plain arithmetic over the checkpoint's own names, one pixel at a time."""
    spec = spec_of(MODALITIES[modality])
    images, valid = values_of(spec)
    encoder = build_encoder(spec, section_of(name, checkpoints[name])).eval()
    encoder.embed = torch.nn.Identity()
    series = Normalise(spec)(images, valid)
    got = encoder(torch.where(valid.unsqueeze(2), series, 1e3), valid)[:, :, 0, 0]
    state, oracle = {
        "galileo": (galileo_checkpoint(), galileo_of_pixel),
        "anysat": (anysat_checkpoint(), anysat_of_pixel),
    }[name]
    rows = (images if name == "galileo" else series)[..., 0, 0]
    for n in range(len(images)):
        kept = [t for t in range(len(spec.steps)) if valid[n, t, 0, 0]]
        torch.testing.assert_close(got[n], oracle(state, spec, rows[n], kept), atol=2e-5, rtol=1e-4)


@every_sensor
@torch.no_grad()
def test_on_a_card_they_give_what_they_give_on_a_processor(
    name: str, modality: str, checkpoints: dict[str, Path], card: torch.device
) -> None:
    """At the model's own dates, then at those of each window."""
    spec = spec_of(MODALITIES[modality])
    images, valid = values_of(spec)
    encoder = build_encoder(spec, section_of(name, checkpoints[name])).eval()
    series = Normalise(spec)(images, valid)
    for moved in (0.0, 40.0) if modality != "dem" else (0.0,):
        encoder.given = encoder.days.expand(len(images), -1) + moved if moved else None
        near = encoder(series, valid)
        far = copy.deepcopy(encoder).to(card)
        far.given = encoder.given.to(card) if moved else None
        torch.testing.assert_close(far(series.to(card), valid.to(card)).cpu(), near, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["galileo", "anysat"])
def test_frozen_weights_stay_and_the_rest_learns(name: str, checkpoints: dict[str, Path]) -> None:
    spec = spec_of(MODALITIES["sentinel1"])
    images, valid = values_of(spec)
    series = Normalise(spec)(images, valid)
    for frozen in (True, False):
        encoder = build_encoder(spec, section_of(name, checkpoints[name], frozen=frozen)).train()
        encoder(series, valid).square().sum().backward()
        learns = {key for key, weight in encoder.named_parameters() if weight.grad is not None and weight.grad.any()}
        assert {"embed.weight", "embed.bias"} <= learns
        assert (learns == {"embed.weight", "embed.bias"}) == frozen
        assert encoder.backbone.training != frozen
        if not frozen:
            fixed = ("pos_embed", "month_embed", "pad_parameter")
            idle = {key for key, weight in encoder.named_parameters() if not weight.requires_grad}
            assert all(any(word in key for word in fixed) for key in idle)
    assert halo_of(encoder) == 0


def test_bands_are_found_by_name_and_missing_ones_masked_or_refused(checkpoints: dict[str, Path]) -> None:
    galileo, anysat = (section_of(name, checkpoints[name]) for name in ("galileo", "anysat"))
    turned = MODALITIES["sentinel2"].select(("B12", "B11", "B8A", "B08", "B07", "B06", "B05", "B04", "B03", "B02"))
    images, valid = values_of(spec_of(MODALITIES["sentinel2"]))
    for section in (galileo, anysat):
        encoders = []
        for modality in (MODALITIES["sentinel2"], turned):
            torch.manual_seed(0)
            encoders.append(build_encoder(spec_of(modality), section).eval())
        with torch.no_grad():
            torch.testing.assert_close(encoders[1](images.flip(2), valid), encoders[0](images, valid))
    few = spec_of(MODALITIES["sentinel2"].select(("B02", "B03", "B08")))
    assert set(build_encoder(few, galileo).groups) == {"S2_NIR_10m"}  # type: ignore[arg-type]
    assert build_encoder(few, anysat).input == "s2"
    with pytest.raises(MdicoError, match=r"galileo: of landsat .* no group of bands is whole. It reads vv and vh"):
        build_encoder(spec_of(MODALITIES["landsat"]), galileo)
    with pytest.raises(MdicoError, match=r"anysat has no input for band elevation of dem"):
        build_encoder(spec_of(MODALITIES["dem"]), anysat)
    with pytest.raises(MdicoError, match=r"anysat: sentinel1 lacks band vv"):
        build_encoder(spec_of(MODALITIES["sentinel1"].select(("vh",))), anysat)
    linear_power = replace(
        MODALITIES["sentinel1"], bands=tuple(replace(band, unit="1") for band in MODALITIES["sentinel1"].bands)
    )
    with pytest.raises(MdicoError, match=r"band vv of sentinel1 must be in dB, is in '1'"):
        build_encoder(spec_of(linear_power), galileo)
    with pytest.raises(MdicoError, match=r"reads the bands of one sensor, not several joined"):
        make_encoder(4, MONTHS, galileo)


def test_weights_that_do_not_fit_are_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    spec = spec_of(MODALITIES["sentinel1"])

    def build(path: Path | None, name: str = "galileo", **changes: object) -> None:
        section = EncoderSection(**{"name": name, "weights": path, "width": 16, **changes})  # type: ignore[arg-type]
        build_encoder(spec, section)

    build(checkpoints["galileo"].parent)  # a folder that holds encoder.pt
    safetensors.torch.save_file(galileo_checkpoint(), tmp_path / "g.safetensors")
    build(tmp_path / "g.safetensors")
    build(None, frozen=False)
    with pytest.raises(MdicoError, match=r"frozen needs pretrained weights"):
        build(None)
    with pytest.raises(MdicoError, match=r"nowhere.pt: no such file"):
        build(tmp_path / "nowhere.pt")
    with pytest.raises(MdicoError, match=r"holds cls_token, which galileo does not have"):
        build(checkpoints["anysat"])
    torch.save(galileo_checkpoint(width=192), tmp_path / "wide.pt")
    with pytest.raises(MdicoError, match=r"is \(7, 48\), galileo of this encoder.size needs \(7, 32\) and .* more"):
        build(tmp_path / "wide.pt")
    with pytest.raises(MdicoError, match=r"lacks spatial_encoder.predictor_blocks.2.* of anysat"):
        build(checkpoints["anysat"], "anysat", size="small")
    with pytest.raises(MdicoError, match=r"encoder.size of galileo is one of nano, tiny, base"):
        build(checkpoints["galileo"], size="huge")
    state = galileo_checkpoint()
    del state["blocks.1.attn.q.weight"], state["norm.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(MdicoError, match=r"lacks blocks.1.attn.q.weight and 1 more of galileo"):
        build(tmp_path / "less.pt")
    torch.save(galileo_checkpoint(depth=5), tmp_path / "deep.pt")
    with pytest.raises(MdicoError, match=r"has 5 blocks, galileo of this encoder.size has 4"):
        build(tmp_path / "deep.pt")
    torch.save({"weights": Path("/tmp")}, tmp_path / "code.pt")
    (tmp_path / "text.safetensors").write_text("no")
    for file in ("code.pt", "text.safetensors"):
        with pytest.raises(MdicoError, match=r"is no set of tensors"):
            build(tmp_path / file)
    long = replace(spec, steps=tuple(f"20{y}-{m:02d}-01" for y in (20, 21, 22) for m in range(1, 13)))
    with pytest.raises(MdicoError, match=r"at most 24 steps, sentinel1 has 36"):
        build_encoder(long, section_of("galileo", checkpoints["galileo"]))
    with pytest.raises(ValueError, match=r"weights and size go with anysat and galileo, not ltae"):
        EncoderSection(name="ltae", weights=tmp_path / "g.safetensors")


@pytest.mark.parametrize("name", ["galileo", "anysat"])
def test_a_bundle_holds_the_weights_itself(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    inputs = {key: spec_of(MODALITIES[key]) for key in ("sentinel1", "sentinel2")}
    weights = tmp_path / "away" / checkpoints[name].name
    weights.parent.mkdir()
    weights.write_bytes(checkpoints[name].read_bytes())
    section = make_section(
        modalities=("sentinel1", "sentinel2"),
        encoder=section_of(name, weights, pool=1).model_dump(),
        train={"epochs": 1},
    )
    batch = make_batch(inputs, 32)
    trained = fit(
        *("mdico", inputs, LEGEND, section, make_loader(batch), make_loader(batch, shuffle=False), counts(batch)),
        *(tmp_path / "run", 0),
    )
    folder = save_bundle(tmp_path / "bundle", trained, "sentinel2")
    weights.unlink()
    bundle = load_bundle(folder)
    assert str(tmp_path) not in (folder / "bundle.json").read_text()
    assert read_config(folder / "bundle.json").encoder.weights == Path(weights.name)
    expected = trained.model.single("sentinel2")(batch.images["sentinel2"], batch.valid["sentinel2"])
    got = bundle.model(batch.images["sentinel2"], batch.valid["sentinel2"])
    torch.testing.assert_close(got, expected)
    fresh = checkpoints[name].read_bytes() and torch.load(checkpoints[name], weights_only=True)
    state = fresh.get("state_dict", fresh)
    kept = trained.model.single("sentinel2").encoder_unique.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in kept.items())


def test_dates_of_a_window_move_month_and_day(checkpoints: dict[str, Path]) -> None:
    spec = spec_of(MODALITIES["sentinel1"])
    images, valid = values_of(spec)
    for name in ("galileo", "anysat"):
        section = ColearnSection(modalities=("sentinel1", "sentinel2"), encoder=section_of(name, checkpoints[name]))
        model = METHODS["independent"](
            {"sentinel1": spec, "sentinel2": spec_of(MODALITIES["sentinel2"])}, 3, section, None
        ).eval()
        path = model.paths["sentinel1"]
        with torch.no_grad():
            plain = path(images, valid)
            path.encoder.given = path.encoder.days.expand(len(images), -1)
            torch.testing.assert_close(path(images, valid), plain)
            path.encoder.given = path.encoder.given + 40
            assert not torch.allclose(path(images, valid), plain, atol=1e-4)
