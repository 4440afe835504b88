"""Calibration: the error in a plain loop, the temperature that was put in comes out, and bundles that carry it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_loader, make_section

from mdico_cube.colearn.calibrate import best_temperature, calibrate, calibration_error, last_map, steady_temperature
from mdico_cube.colearn.registry import METHODS
from mdico_cube.errors import MdicoError


def test_calibration_error_in_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet([1, 1, 1], 200)
    truth = draw.integers(0, 3, 200)
    wanted = 0.0
    for low in range(15):
        here = [i for i in range(200) if low <= probabilities[i].max() * 15 < low + 1]
        if here:
            right = np.mean([probabilities[i].argmax() == truth[i] for i in here])
            wanted += len(here) / 200 * abs(right - np.mean([probabilities[i].max() for i in here]))
    assert calibration_error(probabilities, truth) == pytest.approx(wanted)
    assert calibration_error(np.eye(3)[truth], truth) == 0.0


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_comes_out(temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 4, generator=draw)
    truth = torch.multinomial(logits.softmax(1), 1, generator=draw).flatten()
    assert best_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)


def rows_of(blocks: int, temperature: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits of 30 pixels a block, too sure by `temperature`, each block harder or easier than the others."""
    draw = torch.Generator().manual_seed(seed)
    unit = np.arange(blocks).repeat(30)
    hard = torch.exp(0.7 * torch.randn(blocks, generator=draw))[torch.from_numpy(unit)]
    logits = 2 * torch.randn(len(unit), 4, generator=draw)
    truth = torch.multinomial((logits / hard[:, None]).softmax(1), 1, generator=draw).flatten()
    return logits * temperature, truth, unit


def test_a_temperature_is_taken_only_where_it_holds_in_other_blocks() -> None:
    few = [steady_temperature(*rows_of(3, 3.0, seed)) for seed in range(3)]
    assert few == [1.0] * 3, "three blocks cannot tell"
    sure = [steady_temperature(*rows_of(20, 3.0, seed)) for seed in range(5)]
    assert min(sure) > 1.5
    right = [steady_temperature(*rows_of(8, 1.0, seed)) for seed in range(12)]
    plain = [best_temperature(*rows_of(8, 1.0, seed)[:2]) for seed in range(12)]
    assert np.abs(np.log(right)).mean() < 0.5 * np.abs(np.log(plain)).mean()
    logits, truth, _ = rows_of(20, 3.0)
    found = [best_temperature(logits, truth, units) for units in (5, 20, None)]
    assert 1 < found[0] < found[1] < found[2]


def test_pixels_count_to_the_block_of_their_window() -> None:
    inputs = make_inputs()
    model = METHODS["independent"](inputs, len(LEGEND), make_section(), None).eval()
    batch = make_batch(inputs, 60, size=2, gaps=0.0)
    found = calibrate(model, make_loader(batch, 16, shuffle=False), np.arange(60) // 20)
    assert {(each.units, each.temperature) for each in found.values()} == {(3, 1.0)}


def test_every_modality_gets_its_own_and_is_better_for_it() -> None:
    inputs = make_inputs()
    torch.manual_seed(0)
    model = METHODS["mdico-plus"](inputs, len(LEGEND), make_section(), None).train()
    batch = make_batch(inputs, 240, noise=6.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):  # by heart: sure of itself and wrong elsewhere
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch).values())).sum().backward()
        optimizer.step()
    unseen = make_batch(inputs, 400, seed=1, noise=6.0)
    unseen.valid["radar"][200:] = False
    unseen.target[:, 0, 0][:40] = -1  # type: ignore[index]
    found = calibrate(model.eval(), make_loader(unseen, 64, shuffle=False))
    assert {m: c.pixels for m, c in found.items()} == {"radar": 160, "optical": 360}, "labelled and observed"
    for each in found.values():
        assert each.temperature > 1.2
        assert each.error_after < each.error
        assert each.scores == {
            **{"ece_as_trained": each.error, "ece": each.error_after, "pixels": float(each.pixels)},
            "blocks": float(each.pixels),
        }


def test_too_few_pixels_say_nothing() -> None:
    inputs = make_inputs()
    model = METHODS["independent"](inputs, len(LEGEND), make_section(), None).eval()
    assert calibrate(model, make_loader(make_batch(inputs, 12), 12)) == {}
    assert calibrate(model, make_loader(make_batch(inputs, 30), 12))
    values = make_section(task={"kind": "regression"})
    assert calibrate(METHODS["independent"](inputs, 1, values, None), make_loader(make_batch(inputs, 30), 12)) == {}


def test_the_last_map_of_every_path() -> None:
    wanted = {"dsensd": "head.5", "timmil-like": "mixer.head"}
    for name, method in METHODS.items():
        if method.maps_alone:
            path = method(make_inputs(), len(LEGEND), make_section(), None).single("radar")
            assert last_map(path) == wanted.get(name.removesuffix("-plus"), "head"), name
    with pytest.raises(MdicoError, match="no head to calibrate"):
        last_map(torch.nn.Linear(2, 2))
