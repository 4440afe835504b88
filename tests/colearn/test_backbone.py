"""timm's backbones as encoders: the wiring against a stand-in, timm itself where it is installed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from colearn_toys import MONTHS
from torch import nn

from mdico_cube.colearn.encoders.backbone import Backbone
from mdico_cube.colearn.encoders.registry import get_encoder, halo_of, make_encoder, stride_of
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection

SECTION = EncoderSection(name="timm:small", width=16, hidden=8, dense=24, heads=2, layers=2)


class SqueezeExcite(nn.Module):
    """Its name says that it looks at the whole image."""


class Body(nn.Module):
    """Two floors, each half as large as the one before."""

    def __init__(self, bands: int, floors: tuple[int, ...]) -> None:
        super().__init__()
        if len(floors) > 2:
            raise IndexError("no such floor")
        self.first, self.second = (nn.Conv2d(a, b, 3, 2, 1) for a, b in ((bands, 4), (4, 6)))
        self.feature_info = SimpleNamespace(channels=lambda: [4, 6], reduction=lambda: [2, 4])

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        one = self.first(images)
        return [one, self.second(one)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool, features_only: bool, in_chans: int, out_indices: Any) -> nn.Module:
        assert not pretrained
        assert features_only
        body = Body(in_chans, out_indices)
        if name == "excited":
            body.add_module("squeeze", SqueezeExcite())
        return body

    module = ModuleType("timm")
    vars(module).update(list_models=lambda: ["small", "excited"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7), (1, 1)])
def test_a_backbone_gives_an_embedding_per_pixel(height: int, width: int) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(3, MONTHS, SECTION)
    images, valid = torch.randn(2, 6, 3, height, width), torch.rand(2, 6, height, width) < 0.8
    found = encoder(images, valid)
    assert found.shape == (2, 16, height, width)
    (found * torch.randn(found.shape)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert (halo_of(encoder), stride_of(encoder)) == (32, 4)


@pytest.mark.usefixtures("stand_in")
@torch.no_grad()
def test_a_window_cut_with_its_halo_gives_the_same_values() -> None:
    torch.manual_seed(0)
    encoder = make_encoder(3, MONTHS, SECTION).eval()
    images, valid = torch.randn(1, 6, 3, 80, 80), torch.rand(1, 6, 80, 80) < 0.8
    part = encoder(images[..., 8:, 8:], valid[..., 8:, 8:])
    torch.testing.assert_close(part[..., 32:, 32:], encoder(images, valid)[..., 40:, 40:], atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("stand_in")
def test_what_is_not_there_or_sees_everything_is_named() -> None:
    with pytest.raises(MdicoError, match=r"timm has no backbone 'smal'. Did you mean 'small'"):
        get_encoder("timm:smal")
    with pytest.raises(MdicoError, match=r"excited looks at the whole image \(SqueezeExcite\)"):
        make_encoder(3, MONTHS, SECTION.model_copy(update={"name": "timm:excited"}))
    with pytest.raises(MdicoError, match="small does not give 5 floors"):
        make_encoder(3, MONTHS, SECTION.model_copy(update={"layers": 5}))


def test_timm_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MdicoError, match=r"need timm .* pip install 'mdico-cube\[timm\]'"):
        get_encoder("timm:resnet18")


def test_timm_itself() -> None:
    pytest.importorskip("timm", exc_type=ImportError)  # its torchvision must fit torch: not everywhere to be had
    encoder = make_encoder(3, MONTHS, SECTION.model_copy(update={"name": "timm:resnet18"})).eval()
    assert isinstance(encoder, Backbone)
    assert encoder(torch.randn(1, 6, 3, 16, 16), torch.ones(1, 6, 16, 16, dtype=torch.bool)).shape == (1, 16, 16, 16)


def test_a_torchvision_of_another_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("mdico_cube.colearn.encoders.backbone.import_module", broken)
    with pytest.raises(MdicoError, match="need timm and a torchvision that fits torch"):
        get_encoder("timm:small")
