"""How far a pixel lies from the training data: row by row, in units of what held-out pixels still have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section
from hypothesis import given
from hypothesis import strategies as st

from mdico_cube.colearn.applicability import Reference, beheaded, measure, references
from mdico_cube.colearn.fast import PlainForm, fast_form
from mdico_cube.colearn.registry import METHODS, get_method
from mdico_cube.errors import MdicoError


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    clusters = np.array([[0, 0, 0], [50, 0, 1], [0, 9, 2]])
    rows = (clusters[rng.integers(3, size=3000)] + rng.normal(0, 1, (3000, 3))).astype(np.float32)
    return rows[:2000], rows[2000:]


def test_held_out_pixels_are_within_and_strange_ones_beyond(known):
    reference = measure(*known, classes=3)
    inside = reference.distance(torch.from_numpy(known[1]))
    assert 0.9 < float((inside <= 1).float().mean()) < 1
    assert float(inside.max()) > 1  # outliers do not set the threshold
    strange = torch.tensor([[25.0, 30.0, 1.0], [500.0, 0, 0], [50.0, 9.0, 40.0]])
    assert (reference.distance(strange) > 2).all()


def test_the_distance_is_that_to_the_nearest_centre(known):
    reference = measure(*known, classes=3)
    rows = known[1][:50]
    scaled = (rows - reference.mean.numpy()) / reference.std.numpy()
    expected = np.linalg.norm(scaled[:, None] - reference.centres.numpy(), axis=2).min(axis=1) / reference.threshold
    assert reference.distance(torch.from_numpy(rows)).numpy() == pytest.approx(expected, rel=1e-5)
    assert len(reference.centres) == 48


@given(st.integers(1, 60), st.integers(0, 2**31))
def test_a_row_does_not_depend_on_the_others(count, seed):
    generator = torch.Generator().manual_seed(seed)
    reference = Reference(torch.zeros(8), torch.ones(8), torch.randn(40, 8, generator=generator), 1.5)
    rows = torch.randn(64, 8, generator=generator)
    whole = reference.distance(rows)
    assert torch.equal(reference.distance(rows[:count]), whole[:count])
    assert torch.equal(reference.distance(rows.flip(0)).flip(0), whole)


def test_it_survives_being_packed_and_damage_is_one_sentence(known):
    reference = measure(*known, classes=3)
    data = reference.pack()
    again = Reference.unpack(data)
    assert torch.equal(again.centres, reference.centres)
    assert again.threshold == reference.threshold
    assert measure(*known, classes=3).pack() == data  # the same data, the same bytes
    with pytest.raises(MdicoError, match="damaged"):
        Reference.unpack(data[:40])


@pytest.mark.parametrize("method", [name for name in METHODS if get_method(name).maps_alone])
def test_a_beheaded_model_gives_what_its_head_reads(method):
    inputs = make_inputs()
    model = get_method(method)(inputs, len(LEGEND), make_section(), None).eval()
    path = model.single("optical")
    body = beheaded(path)
    batch = make_batch(inputs, 5)
    before = path(batch.images["optical"], batch.valid["optical"])
    embedding = body(batch.images["optical"], batch.valid["optical"])
    assert embedding.shape[0] == 5
    head = next(module for name, module in path.named_modules() if name.rsplit(".", 1)[-1] == "head")
    assert torch.allclose(head(embedding), before, atol=1e-6)
    assert torch.equal(path(batch.images["optical"], batch.valid["optical"]), before)  # the model itself is as it was


@pytest.mark.parametrize("method", ["independent", "mdico", "fullco", "plus"])
@pytest.mark.parametrize("precision", ["32-true", "bf16"])
def test_one_pass_gives_the_same_logits_and_what_the_head_reads(method, precision):
    method = "mdico-plus" if method == "plus" else method
    inputs = make_inputs()
    path = get_method(method)(inputs, len(LEGEND), make_section(), None).eval().single("optical")
    batch = make_batch(inputs, 5)
    images, valid = batch.images["optical"], batch.valid["optical"]
    values, seen = images.permute(1, 2, 0, 3, 4).flatten(2), valid.transpose(0, 1).flatten(1)  # (T, C, N), (T, N)
    with torch.inference_mode():
        logits = fast_form(path, precision)(values, seen)
        both = fast_form(path, precision, embedding=True)(values, seen)
        embedding = PlainForm(beheaded(path))(values, seen)
    assert torch.equal(both[:, : logits.shape[1]], logits)
    close = 1e-4 if precision == "32-true" else 0.05
    torch.testing.assert_close(both[:, logits.shape[1] :], embedding, rtol=close, atol=close)


def test_references_look_at_labelled_and_observed_pixels_alone():
    inputs = make_inputs()
    model = get_method("mdico")(inputs, len(LEGEND), make_section(), None).eval()
    train, held_out = make_batch(inputs, 60, seed=1), make_batch(inputs, 40, seed=2)
    models = {name: model.single(name) for name in inputs}
    found = references(models, [train], [held_out], len(LEGEND))
    assert set(found) == set(inputs)
    blind = train.replace(
        images={name: torch.cat([image, image + 1000]) for name, image in train.images.items()},
        valid={name: torch.cat([mask, torch.zeros_like(mask)]) for name, mask in train.valid.items()},
        target=torch.cat([train.target, train.target]),
    )
    assert references(models, [blind], [held_out], len(LEGEND))["radar"].pack() == found["radar"].pack()
    assert references({"radar": torch.nn.Flatten()}, [train], [held_out], 3) == {}
