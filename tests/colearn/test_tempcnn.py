"""TempCNN: the layers of the specification, pixels that do not see each other."""

from __future__ import annotations

import pytest
import torch
from colearn_toys import make_spec
from torch import nn

from mdico_cube.colearn.encoders.registry import ENCODERS, build_encoder
from mdico_cube.colearn.encoders.tempcnn import TempCNN
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection


def test_has_the_layers_of_the_paper() -> None:
    encoder = TempCNN(10, ("2021-01-01",) * 12, EncoderSection())
    layers = [m for m in encoder.modules() if not list(m.children())]
    kinds = [nn.Conv1d, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert [type(m) for m in layers] == [*kinds, *kinds, nn.Flatten, nn.Linear, *kinds[1:], nn.Linear]
    shapes = [tuple(p.shape) for name, p in encoder.named_parameters() if p.ndim > 1]
    assert shapes == [(128, 10, 5), (128, 128, 5), (512, 128 * 12), (128, 512)]
    assert all(m.p == 0.2 for m in layers if isinstance(m, nn.Dropout))


@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in ("resnet", "unet")])
@pytest.mark.parametrize("steps", [("",), tuple(f"2021-{m:02d}-01" for m in range(1, 8))])
def test_every_pixel_is_its_own_series(name: str, steps: tuple[str, ...]) -> None:
    section = EncoderSection(name=name, width=16, hidden=8, dense=24, heads=2)
    encoder = build_encoder(make_spec("radar", 3, steps), section).eval()
    images = torch.randn(2, len(steps), 3, 4, 5)
    valid = torch.ones(2, len(steps), 4, 5, dtype=torch.bool)
    whole = encoder(images, valid)
    assert whole.shape == (2, 16, 4, 5)
    pixel = encoder(images[1:, :, :, 2:3, 3:4], valid[1:, :, 2:3, 3:4])
    torch.testing.assert_close(whole[1:, :, 2:3, 3:4], pixel)


def test_even_kernel_is_refused() -> None:
    with pytest.raises(MdicoError, match=r"kernel must be odd .* came 4"):
        TempCNN(2, ("",), EncoderSection(kernel=4))
