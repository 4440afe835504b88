"""Encoders that mask: what was not observed has no influence, what was does; formulas in plain steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from colearn_toys import LEGEND, MONTHS, make_batch, make_inputs, make_section, make_spec

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.convtran import ConvTran
from mdico_cube.colearn.encoders.gru import GRU
from mdico_cube.colearn.encoders.ltae import LTAE, date_encoding
from mdico_cube.colearn.encoders.registry import ENCODERS, get_encoder, halo_of, make_encoder, stride_of
from mdico_cube.colearn.encoders.tae import TAE
from mdico_cube.colearn.inputs import Normalise
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.registry import METHODS
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection

SECTION = EncoderSection(width=16, hidden=8, dense=24, heads=2)
MASKING = ["gru", "lstm", "ltae", "tae", "transformer", "convtran"]
DATED = ["gru", "lstm", "ltae", "tae", "transformer", "resnet", "unet"]
SPATIAL = ["resnet", "unet"]
masking = pytest.mark.parametrize("name", MASKING)
every_encoder = pytest.mark.parametrize("name", ENCODERS)


def series(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(5, len(MONTHS), 3, 2, 2, generator=draw)
    valid = torch.rand(5, len(MONTHS), 2, 2, generator=draw) < 0.6
    valid[0] = False
    return images, valid


@masking
def test_missing_steps_have_no_influence_and_observed_ones_do(name: str) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(3, MONTHS, SECTION.model_copy(update={"name": name})).eval()
    images, valid = series()
    seen = valid.unsqueeze(2)
    before = encoder(images, valid)[1:]
    assert before.isfinite().all()
    torch.testing.assert_close(encoder(torch.where(seen, images, 1e3), valid)[1:], before)
    assert not torch.allclose(encoder(torch.where(seen, images + 1, images), valid)[1:], before)


@masking
def test_a_missing_step_is_not_a_step_of_zeros(name: str) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(3, MONTHS, SECTION.model_copy(update={"name": name})).eval()
    images, valid = series()
    zeros = torch.where(valid.unsqueeze(2), images, 0.0)
    assert not torch.allclose(encoder(zeros, torch.ones_like(valid))[1:], encoder(images, valid)[1:], atol=1e-3)


@torch.no_grad()
def test_gru_reads_the_observed_steps_one_after_the_other() -> None:
    torch.manual_seed(0)
    encoder = GRU(3, MONTHS, SECTION).eval()
    images, valid = series()
    got = encoder(images, valid)
    cell = torch.nn.GRUCell(6, 8)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in encoder.recurrent.state_dict().items()})
    days = [0, 31, 59, 90, 120, 151]
    for b in range(1, 5):
        for y in range(2):
            for x in range(2):
                state, last = torch.zeros(8), None
                for t, day in enumerate(days):
                    if valid[b, t, y, x]:
                        gap = 0.0 if last is None else (day - last) / 365.25
                        angle = 2 * math.pi * day / 365.25
                        date = torch.tensor([math.sin(angle), math.cos(angle), gap])
                        state, last = cell(torch.cat([images[b, t, :, y, x], date]), state), day
                if last is not None:
                    torch.testing.assert_close(got[b, :, y, x], encoder.embed(state), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_ltae_attends_with_one_query_per_head() -> None:
    torch.manual_seed(0)
    encoder = LTAE(3, MONTHS, SECTION).eval()
    images, valid = series()
    got = encoder(images, valid)[1:]
    expected = torch.zeros_like(got)
    for b in range(1, 5):
        for y in range(2):
            for x in range(2):
                kept = [t for t in range(len(MONTHS)) if valid[b, t, y, x]] or list(range(len(MONTHS)))
                steps = [encoder.norm(encoder.enter(images[b, t, :, y, x])) + encoder.dates[t] for t in kept]
                heads = []
                for head in range(2):
                    scores = []
                    for step in steps:
                        key = encoder.keys(step)[8 * head : 8 * head + 8]
                        scores.append(float(key @ encoder.query[head]) / math.sqrt(8))
                    total = sum(math.exp(s) for s in scores)
                    parts = zip(scores, steps, strict=True)
                    heads.append(sum(math.exp(s) / total * step[4 * head : 4 * head + 4] for s, step in parts))
                expected[b - 1, :, y, x] = encoder.embed(encoder.dense(torch.cat(heads)[None]))[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_dates_are_waves_of_the_days() -> None:
    waves = date_encoding(torch.tensor([0.0, 10.0]), 4, 2)
    one = [math.sin(10.0), math.sin(10.0 / math.sqrt(1000)), math.cos(10.0), math.cos(10.0 / math.sqrt(1000))]
    assert waves[1].tolist() == pytest.approx(one * 2, abs=1e-5)
    assert waves[0].tolist() == [0.0, 0.0, 1.0, 1.0] * 2


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_learns(name: str) -> None:
    torch.manual_seed(0)
    inputs, batch = make_inputs(), make_batch(make_inputs(), 24)
    section = make_section(encoder={"name": name, "heads": 2, "dropout": 0.0})
    model = METHODS["independent"](inputs, 3, section, balanced_weights([1, 1, 1], [c.name for c in LEGEND]))
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        adam.zero_grad()
        model.losses(batch)["main"].backward()
        adam.step()
    logits = model.eval()(batch.images, batch.valid)
    assert all((z.argmax(1) == batch.target).all() for z in logits.values())


def test_unknown_encoders_and_impossible_sizes_are_named() -> None:
    with pytest.raises(MdicoError, match="unknown encoder 'L-TAE', did you mean 'ltae'"):
        get_encoder("L-TAE")
    with pytest.raises(MdicoError, match="use one of: tempcnn, ltae, tae, transformer"):
        get_encoder("xyz")
    with pytest.raises(MdicoError, match=r"hidden .10. must be a multiple of twice heads .2."):
        make_encoder(3, MONTHS, EncoderSection(name="ltae", hidden=10, heads=2))


@pytest.mark.parametrize("name", ENCODERS)
def test_windows_with_the_model_s_own_dates_change_nothing(name: str) -> None:
    """Training with dates and mapping without them is the same where the dates are the same."""
    model, batch = dated_model(name)
    days = torch.tensor([0.0, 31, 59, 90, 120, 151]).expand(len(batch), -1)
    with model.prepared(batch.replace(dates={"radar": days, "optical": days})) as ready:
        given = model(ready.images, ready.valid)
    for m, logits in model(batch.images, batch.valid).items():
        torch.testing.assert_close(given[m], logits)


@pytest.mark.parametrize("name", DATED)
def test_every_window_is_read_at_its_own_dates(name: str) -> None:
    model, batch = dated_model(name)
    later = torch.tensor([0.0, 31, 59, 90, 120, 151]) + torch.linspace(-20, 20, len(batch))[:, None]
    with model.prepared(batch.replace(dates={"optical": later})):
        together = model(batch.images, batch.valid)
    plain = model(batch.images, batch.valid)
    torch.testing.assert_close(together["radar"], plain["radar"])
    assert not torch.allclose(together["optical"], plain["optical"], atol=1e-4)
    for i in range(len(batch)):
        with model.prepared(batch.rows(i, i + 1).replace(dates={"optical": later[i : i + 1]})) as ready:
            alone = model(ready.images, ready.valid)["optical"]
        torch.testing.assert_close(alone[0], together["optical"][i], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_gaps_are_filled_at_a_window_s_own_dates(name: str) -> None:
    model, batch = dated_model(name)
    layer = model.single("optical").inputs
    uneven = torch.tensor([0.0, 50, 59, 90, 100, 151]).expand(len(batch), -1)
    with model.prepared(batch.replace(dates={"optical": uneven})):
        filled = layer(batch.images["optical"], batch.valid["optical"])
    layer.days.copy_(uneven[0])
    torch.testing.assert_close(layer(batch.images["optical"], batch.valid["optical"]), filled)


def dated_model(name: str) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    inputs = make_inputs()
    batch = make_batch(inputs, 6, size=2, gaps=0.4)
    section = make_section(encoder={"name": name, "heads": 2})
    return METHODS["independent"](inputs, len(LEGEND), section, None).eval(), batch


def path_of(name: str, bands: int = 3, steps: tuple[str, ...] = MONTHS, **changes: Any) -> torch.nn.Module:
    """Normalisation and one encoder: what a sensor's values meet first."""

    class Path(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = Normalise(make_spec("optical", bands, steps))
            self.encoder = make_encoder(bands, steps, SECTION.model_copy(update={"name": name, **changes}))

        def forward(self, images: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            return self.encoder(self.inputs(images, valid), valid)

    torch.manual_seed(0)
    return Path()


@every_encoder
@pytest.mark.parametrize("steps", [MONTHS, ("",)])
@pytest.mark.parametrize(("batch", "height", "width"), [(3, 1, 1), (2, 5, 6), (1, 4, 4)])
def test_every_pixel_gets_an_embedding_and_every_weight_a_gradient(
    name: str, steps: tuple[str, ...], batch: int, height: int, width: int
) -> None:
    path, draw = path_of(name, steps=steps, dropout=0.0), torch.Generator().manual_seed(0)
    images = torch.randn(batch, len(steps), 3, height, width, generator=draw) + 5
    valid = torch.rand(batch, len(steps), height, width, generator=draw) < 0.8
    embedding = path(images, valid)
    assert embedding.shape == (batch, SECTION.width, height, width)
    (embedding * torch.randn(embedding.shape, generator=draw)).sum().backward()
    for key, parameter in path.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        idle = key.endswith("bias") or len(steps) == 1 or (height == 1 and name in SPATIAL)
        assert idle or parameter.grad.any(), key


@every_encoder
@torch.no_grad()
def test_one_window_alone_is_that_window_of_a_batch(name: str) -> None:
    path = path_of(name).eval()
    images, valid = series()
    together = path(images, valid)
    for i in range(len(images)):
        torch.testing.assert_close(path(images[i : i + 1], valid[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-4)


@every_encoder
@torch.no_grad()
def test_what_stands_in_masked_steps_has_no_influence(name: str) -> None:
    path = path_of(name).eval()
    images, valid = series()
    seen = valid.unsqueeze(2)
    before = path(images, valid)
    assert before.isfinite().all()
    for filler in (0.0, 1e6, float("nan")):
        assert torch.equal(path(torch.where(seen, images, filler), valid), before)
    assert not torch.allclose(path(torch.where(seen, images + 1, images), valid)[1:], before[1:])
    zeros = path(torch.where(seen, images, 0.0), torch.ones_like(valid))
    assert not torch.allclose(zeros[1:], before[1:], atol=1e-3), "a missing step is no step of zeros"


@every_encoder
def test_same_seed_same_weights(name: str) -> None:
    first, second = path_of(name).state_dict(), path_of(name).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    torch.manual_seed(1)
    other = make_encoder(3, MONTHS, SECTION.model_copy(update={"name": name})).state_dict()
    assert not all(torch.equal(first[f"encoder.{k}"], other[k]) for k in other)


@every_encoder
@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_no_encoder_sees_beyond_its_halo(name: str, layers: int) -> None:
    """A change of one pixel reaches the halo and no further; a window cut with its halo gives the same values."""
    path = path_of(name, layers=layers).eval()
    halo, stride, side = halo_of(path), stride_of(path), 64
    assert (halo > 0) is (name in SPATIAL)
    draw = torch.Generator().manual_seed(0)
    images, valid = torch.randn(1, 6, 3, side, side, generator=draw), torch.ones(1, 6, side, side, dtype=torch.bool)
    changed = images.clone()
    changed[..., 32, 32] += 100
    whole = path(images, valid)
    moved = (path(changed, valid) != whole).any(dim=1)[0].nonzero() - 32
    reach = int(moved.abs().max())
    assert halo // 2 <= reach <= halo
    edge = -(-halo // stride) * stride
    assert 2 * edge < side
    part = path(images[..., 32 - edge :, : 32 + edge], valid[..., 32 - edge :, : 32 + edge])
    torch.testing.assert_close(part[..., edge:, :32][0, :, 0, 0], whole[0, :, 32, 0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_tae_in_plain_steps() -> None:
    torch.manual_seed(0)
    encoder = TAE(3, MONTHS, SECTION).eval()
    images, valid = series()
    got = encoder(images, valid)
    days = [0, 31, 59, 90, 120, 151]
    for b in range(1, 5):
        kept = [t for t in range(len(MONTHS)) if valid[b, t, 0, 1]] or list(range(len(MONTHS)))
        steps = [
            encoder.norm(encoder.enter(images[b, t, :, 0, 1])) + date_encoding(torch.tensor(float(days[t])), 8, 1)
            for t in kept
        ]
        heads = []
        for head in range(2):
            place = slice(32 * head, 32 * head + 32)
            query = sum(encoder.queries(step)[place] for step in steps) / len(steps)
            scores = torch.stack([encoder.keys(step)[place] @ query / math.sqrt(32) for step in steps]).exp()
            heads.append(sum(s / scores.sum() * step for s, step in zip(scores, steps, strict=True)))
        expected = encoder.embed(encoder.dense(torch.cat(heads)[None]))[0]
        torch.testing.assert_close(got[b, :, 0, 1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_convtran_counts_observed_steps_only() -> None:
    """A series with a step hidden is read as the series without that step where nothing depends on the place."""
    torch.manual_seed(0)
    encoder = ConvTran(2, MONTHS, SECTION.model_copy(update={"kernel": 1})).eval()
    encoder.waves.zero_()
    short = ConvTran(2, MONTHS[:5], SECTION.model_copy(update={"kernel": 1})).eval()
    state = {k: v for k, v in encoder.state_dict().items() if k not in ("waves", "distance")}
    short.load_state_dict({**short.state_dict(), **state, "waves": torch.zeros_like(short.waves)})
    images = torch.randn(4, 6, 2, 1, 1)
    valid = torch.ones(4, 6, 1, 1, dtype=torch.bool)
    valid[:, 3] = False
    kept = [0, 1, 2, 4, 5]
    torch.testing.assert_close(encoder(images, valid), short(images[:, kept], valid[:, kept]), atol=1e-5, rtol=1e-4)
