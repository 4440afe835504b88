"""Spaces with known contents, and what the probes say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section

from mdico_cube.colearn.registry import METHODS
from mdico_cube.colearn.spaces import WHOLE, embed_centres, score_space
from mdico_cube.errors import MdicoError
from mdico_cube.spec import Floats

N = 120
LABELS = np.arange(N) % 3


def vectors(sensor: float, label: float, place: float) -> dict[str, Floats]:
    """Two sensors' embeddings with so much of the sensor, of the class and of the place in them."""
    draw = np.random.default_rng(0)
    kinds, places = draw.normal(size=(3, 8)), draw.normal(size=(N, 8))
    return {
        name: (
            0.5 * draw.normal(size=(N, 8)) + sensor * sign * np.eye(8)[0] + label * kinds[LABELS] + place * places
        ).astype(np.float32)
        for name, sign in (("radar", 1), ("optical", -1))
    }


def test_probes_find_what_was_put_in_and_nothing_else() -> None:
    of_sensor = score_space(vectors(3, 0, 0), LABELS)
    assert of_sensor.modality > 0.97
    assert abs(of_sensor.label - 1 / 3) < 0.12
    of_class = score_space(vectors(0, 2, 0), LABELS)
    assert abs(of_class.modality - 1 / 2) < 0.12
    assert of_class.label > 0.97
    of_place = score_space(vectors(0, 0, 2), LABELS)
    assert abs(of_place.modality - 1 / 2) < 0.12, "a place of one sensor must not give away the other's"
    assert of_place.agreement > 0.8
    assert abs(score_space(vectors(0, 0, 0), LABELS).agreement) < 0.05


def test_agreement_in_plain_loops() -> None:
    found = {name: z[:12] for name, z in vectors(1, 1, 1).items()}
    radar, optical = found.values()

    def cosine(i: int, j: int) -> float:
        return float(radar[i] @ optical[j] / np.linalg.norm(radar[i]) / np.linalg.norm(optical[j]))

    same = np.mean([cosine(i, i) for i in range(12)])
    other = np.mean([cosine(i, j) for i in range(12) for j in range(12) if i != j])
    assert score_space(found, LABELS[:12]).agreement == pytest.approx(same - other, abs=1e-5)


def test_too_little_to_compare_is_named() -> None:
    with pytest.raises(MdicoError, match="came 1 sensors, 120 places and 3 classes"):
        score_space({"radar": vectors(1, 1, 1)["radar"]}, LABELS)


def test_embeddings_are_the_centre_pixels() -> None:
    inputs = make_inputs()
    batch = make_batch(inputs, 4, 5)
    model = METHODS["mdico"](inputs, len(LEGEND), make_section(), None).eval()
    path = model.single("radar")
    found = embed_centres(path, batch.images["radar"], batch.valid["radar"])
    assert list(found) == ["specific", "unused", "shared"]
    with torch.no_grad():
        wanted = path.embed(batch.images["radar"], batch.valid["radar"])  # type: ignore[operator]
    np.testing.assert_allclose(found["unused"], wanted.unused[:, :, 2, 2].numpy(), rtol=1e-6)
    plain = METHODS["independent"](inputs, len(LEGEND), make_section(), None).eval().single("radar")
    assert list(embed_centres(plain, batch.images["radar"], batch.valid["radar"])) == [WHOLE]
    with pytest.raises(MdicoError, match="no embedding"):
        embed_centres(torch.nn.Linear(2, 2), batch.images["radar"], batch.valid["radar"])
