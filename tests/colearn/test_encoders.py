"""Encoders that mask: what was not observed has no influence, what was does; formulas in plain steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from colearn_toys import LEGEND, MONTHS, make_batch, make_inputs, make_section

from mdico_cube.batch import Batch
from mdico_cube.colearn.encoders.gru import GRU
from mdico_cube.colearn.encoders.ltae import LTAE, date_encoding
from mdico_cube.colearn.encoders.registry import ENCODERS, get_encoder, make_encoder
from mdico_cube.colearn.losses import balanced_weights
from mdico_cube.colearn.registry import METHODS
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection

SECTION = EncoderSection(width=16, hidden=8, dense=24, heads=2)
masking = pytest.mark.parametrize("name", ["gru", "ltae"])


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
    with pytest.raises(MdicoError, match="use one of: tempcnn, ltae, gru"):
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


@masking
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
