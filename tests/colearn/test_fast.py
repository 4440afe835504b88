"""The fast form against the model itself: the same logits and classes, for every method, sensor and odd pixel."""

from __future__ import annotations

import pytest
import torch
from colearn_toys import LEGEND, make_batch, make_inputs, make_section
from torch import Tensor, nn

from mdico_cube.colearn import engines
from mdico_cube.colearn.chains import Affine, UnfoldableError, fold, joined
from mdico_cube.colearn.fast import FoldedForm, PlainForm, fast_form
from mdico_cube.colearn.registry import METHODS, get_method
from mdico_cube.errors import MdicoError

PIXELS = 300
ALONE = [name for name, method in METHODS.items() if method.maps_alone]
FOLDED = ["independent", "mdico", "fullco", "dsensd-plus"]


def single(method: str, name: str, width: int = 16) -> tuple[nn.Module, Tensor, Tensor]:
    """A model whose batch norms have seen data, and (T, C, N) values with (T, N) observed, some pixels never."""
    inputs = make_inputs(three=True)
    torch.manual_seed(3)
    section = make_section(modalities=tuple(inputs), encoder={"width": width})
    model = get_method(method)(inputs, len(LEGEND), section, None)
    for seed in range(5):
        model.losses(make_batch(inputs, 40, seed=seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.abs().mean() * torch.randn_like(parameter))
    batch = make_batch(inputs, PIXELS, seed=9, gaps=0.5)
    values = batch.images[name][..., 0, 0].permute(1, 2, 0).contiguous()
    valid = batch.valid[name][..., 0, 0].t().contiguous()
    valid[:, :5] = False
    return model.eval().single(name), values, valid


def logits_of(model: nn.Module, values: Tensor, valid: Tensor) -> Tensor:
    images = values.permute(2, 0, 1)[..., None, None]
    with torch.inference_mode():
        return model(images, valid.t()[..., None, None])[:, :, 0, 0]


@pytest.mark.parametrize("name", ["radar", "optical", "terrain"])
@pytest.mark.parametrize("method", ALONE)
def test_equals_the_model(method, name):
    model, values, valid = single(method, name)
    assert isinstance(fast_form(model), FoldedForm) or method not in FOLDED
    check_equal(model, values, valid)


@pytest.mark.parametrize("method", FOLDED)
def test_equals_the_model_without_one_dnn(method, monkeypatch):
    monkeypatch.setattr(engines, "fused", lambda rows: False)
    check_equal(*single(method, "optical"))


def check_equal(model: nn.Module, values: Tensor, valid: Tensor) -> None:
    expected = logits_of(model, values, valid)
    with torch.inference_mode():
        found = fast_form(model)(values, valid)
    assert found.shape == expected.shape == (PIXELS, len(LEGEND))
    assert (found - expected).abs().max() < 1e-4
    balance = expected.mean(dim=0)  # an untrained model says one class everywhere
    classes = (expected - balance).argmax(dim=1)
    assert len(classes.unique()) > 1
    best = (expected - balance).topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 2e-4
    assert torch.equal((found - balance).argmax(dim=1)[clear], classes[clear])
    assert clear.float().mean() > 0.9


@pytest.mark.parametrize("method", FOLDED)
def test_folds_everything_that_only_training_needs(method):
    model, _, _ = single(method, "optical")
    form = fast_form(model)
    assert isinstance(form, FoldedForm)
    assert not [m for m in form.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.Dropout)]
    assert (
        sum(1 for m in form.modules() if isinstance(m, engines.Dense))
        == {"independent": 3, "mdico": 7, "fullco": 7, "dsensd-plus": 4}[method]
    )


def first_convolutions(*shapes: tuple[int, int, int], last: bool = False) -> list[list[Affine]]:
    """Branches whose first maps have these weights (out, in, k)."""
    rest = [] if last else [Affine(torch.randn(3, 8), torch.randn(3))]
    return [[Affine(torch.randn(*shape), torch.randn(shape[0]), True), *rest] for shape in shapes]


@pytest.mark.parametrize(("channels", "width"), [(2, 5), (12, 5), (10, 3), (3, 7)])
def test_windows_give_what_the_convolution_gives(channels, width):
    branches = first_convolutions((8, channels, width), (8, channels, width))
    reach = engines.shared_reach(branches)
    assert reach == width // 2
    rows = torch.randn(50, 6, channels)
    for first, _ in branches:
        by_windows = engines.affine_module(first, torch.float32, of_windows=True)(engines.as_windows(rows, reach))
        assert torch.allclose(by_windows, engines.affine_module(first, torch.float32)(rows), atol=1e-5)


def test_windows_stand_on_their_edge_outside_the_series():
    assert engines.as_windows(torch.tensor([[[1], [2], [3]]]), 1, 9).tolist() == [[[9, 1, 2], [1, 2, 3], [2, 3, 9]]]


@pytest.mark.parametrize(
    "branches",
    [
        first_convolutions((8, 48, 5)),  # many numbers under the kernel
        first_convolutions((8, 4, 5), (8, 4, 3)),
        first_convolutions((8, 4, 5), last=True),
        [[Affine(torch.randn(8, 24), torch.randn(8)), Affine(torch.randn(3, 8), torch.randn(3))]],
    ],
)
def test_other_first_maps_are_computed_as_they_are(branches):
    assert engines.shared_reach(branches) == 0


@pytest.mark.parametrize("method", ALONE)
def test_bf16_is_close(method):
    model, values, valid = single(method, "optical")
    with torch.inference_mode():
        exact, rough = (fast_form(model, precision)(values, valid) for precision in ("32-true", "bf16"))
    assert rough.dtype == torch.float32
    spread = exact.std()
    assert 0 < (rough - exact).abs().max() < 0.2 * spread


@pytest.mark.parametrize("precision", ["32-true", "bf16"])
def test_a_pixel_does_not_depend_on_its_place_in_the_batch(precision):
    model, values, valid = single("mdico", "optical", width=128)
    form = fast_form(model, precision)
    order = torch.randperm(PIXELS)
    with torch.inference_mode():
        there, here = form(values[..., order], valid[:, order]), form(values, valid)
    assert torch.equal(there, here[order])


def test_a_path_that_does_not_say_what_it_computes_runs_as_it_is():
    class Mean(nn.Module):
        def forward(self, images: Tensor, valid: Tensor) -> Tensor:
            return images.mean(dim=1) * valid.any(dim=1, keepdim=True)

    form = fast_form(Mean())
    assert isinstance(form, PlainForm)
    values, valid = torch.randn(6, 3, 10), torch.rand(6, 10) < 0.2
    assert torch.allclose(form(values, valid), (values.mean(dim=0) * valid.any(dim=0)).t())


def filled(module: nn.Module) -> nn.Module:
    """With running statistics that are not 0 and 1."""
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0)
    return module.eval()


def run(maps: list[Affine], rows: Tensor) -> Tensor:
    for each in maps:
        rows = engines.affine_module(each, torch.float32)(rows)
    return rows


def test_fold_takes_batch_norm_after_a_relu_into_the_next_linear_map():
    layers = filled(nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    series = torch.randn(20, 3, 4)  # (N, C, T)
    maps = fold(layers, 4)
    assert len(maps) == 2
    assert torch.allclose(run(maps, series.transpose(1, 2).contiguous()), layers(series), atol=1e-5)


def test_linear_maps_join_only_where_that_saves_work():
    narrow = [Affine(torch.randn(2, 30), torch.randn(2)), Affine(torch.randn(40, 2), torch.randn(40))]
    assert len(joined(narrow)) == 2
    wide = [Affine(torch.randn(40, 30), torch.randn(40)), Affine(torch.randn(2, 40), torch.randn(2))]
    rows = torch.randn(5, 30)
    (one,) = joined(wide)
    assert torch.allclose(run([one], rows), run(wide, rows), atol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv1d(3, 4, 5, stride=2, padding=2)],
        [nn.Conv1d(3, 4, 5)],
        [nn.Conv1d(3, 4, 4, padding=2)],
        [nn.Conv1d(3, 4, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(4)],
        [nn.Flatten(), nn.Linear(12, 4), nn.Tanh()],
    ],
)
def test_what_is_no_chain_of_affine_maps_is_refused(layers):
    with pytest.raises(UnfoldableError):
        fold(layers, 4)


def test_a_model_that_looks_around_is_not_read_as_series() -> None:
    section = make_section(encoder={"name": "resnet", "heads": 2, "layers": 1})
    model = METHODS["independent"](make_inputs(), len(LEGEND), section, None).eval()
    with pytest.raises(MdicoError, match="looks 3 pixels around each pixel"):
        fast_form(model.single("optical"))
