"""Every backend and arithmetic against the plain model, 8-bit ones against a naive simulation of the same integers."""

from __future__ import annotations

import importlib
import threading

import pytest
import torch
from test_fast import PIXELS, logits_of, single

from mdico_cube.colearn.backends import ABLE, row_model
from mdico_cube.colearn.fast import TOLERANCE, FoldedForm, fast_form, folded
from mdico_cube.colearn.inputs import fill_gaps, filled_rows
from mdico_cube.colearn.int8 import Scale, largest_weight, observe, quantise_weight, simulate
from mdico_cube.colearn.onnx_graph import onnx_model
from mdico_cube.errors import MdicoError

EVERYWHERE = [(b, p) for b, able in ABLE.items() for p in able if p != "fp16" and b != "compile"]


def openvino_has_bf16() -> bool:
    """Without bf16 instructions OpenVINO takes the hint and computes in float32."""
    core = importlib.import_module("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def case():
    model, values, valid = single("mdico", "optical", width=32)
    chain, branches = folded(model)
    rows = chain.inputs.rows(values, valid)
    return model, values, valid, branches, rows, observe(branches, rows)


@pytest.mark.parametrize(("backend", "precision"), EVERYWHERE)
def test_every_backend_gives_the_models_logits(case, backend, precision):
    model, values, valid, _, _, ranges = case
    form = fast_form(model, precision, backend, ranges, pixels=PIXELS)
    assert isinstance(form, FoldedForm)
    expected = logits_of(model, values, valid)
    with torch.inference_mode():
        found = form(values, valid)
        assert torch.equal(found, form(values, valid))
    away = float((found - expected).abs().max() / expected.std())
    assert found.dtype == torch.float32
    assert away < {"32-true": 1e-4, "bf16": 0.2, "int8": 0.4}[precision]
    computes = precision != "bf16" or backend != "openvino" or openvino_has_bf16()
    assert precision == "32-true" or not computes or away > 1e-5  # it really computes in something else


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("name", ["radar", "optical", "terrain"])
@pytest.mark.parametrize("method", ["mdico", "independent"])
def test_bytes_are_what_the_simulation_says(backend, name, method):
    model, values, valid = single(method, name, width=32)
    chain, branches = folded(model)
    rows = chain.inputs.rows(values, valid)
    ranges = observe(branches, rows)
    with torch.inference_mode():
        found = row_model(branches, "int8", backend, ranges)(rows).double()
    expected = simulate(branches, ranges, rows)
    assert (found - expected).abs().max() < 0.1 * expected.std()
    assert (found - expected).abs().mean() < 0.005 * expected.std()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("precision", ["32-true", "bf16"])
def test_compiled_equals_eager(case, precision):
    model, values, valid, *_ = case
    with torch.inference_mode():
        found = fast_form(model, precision, "compile", pixels=PIXELS)(values, valid)
        expected = fast_form(model, precision)(values, valid)
    assert torch.allclose(found, expected, atol=1e-5 if precision == "32-true" else 0.05)


@pytest.mark.parametrize("method", ["mdico"])
def test_int8_in_torch_does_not_depend_on_the_place_in_the_batch(method):
    model, values, valid = single(method, "optical", width=32)
    chain, branches = folded(model)
    ranges = observe(branches, chain.inputs.rows(values, valid))
    form, order = fast_form(model, "int8", "torch", ranges), torch.randperm(PIXELS)
    with torch.inference_mode():
        assert torch.equal(form(values[..., order], valid[:, order]), form(values, valid)[order])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_threads_share_a_form(case, backend):
    model, values, valid, *_ = case
    form, found = fast_form(model, "32-true", backend), {}

    def work(number: int) -> None:
        with torch.inference_mode():
            found[number] = [form(values.roll(number, 2), valid.roll(number, 1)) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = logits_of(model, values, valid)
    for number, runs in found.items():
        assert all(torch.allclose(each, expected.roll(number, 0), atol=1e-4) for each in runs)


def test_a_form_that_gives_other_logits_is_refused(case, monkeypatch):
    model = case[0]
    monkeypatch.setitem(TOLERANCE, "bf16", 1e-6)
    with pytest.raises(MdicoError, match="standard deviations from the plain model's"):
        fast_form(model, "bf16")


def test_what_a_backend_cannot_do_is_said(case):
    model = case[0]
    with pytest.raises(MdicoError, match="onnx computes in fp32, int8, not in bf16"):
        fast_form(model, "bf16", "onnx")
    with pytest.raises(MdicoError, match="not calibrated"):
        fast_form(model, "int8")
    with pytest.raises(MdicoError, match="another network"):
        fast_form(model, "int8", ranges=case[5][:1])
    other, _, _ = single("dsensd", "optical")
    if folded(other) is None:
        with pytest.raises(MdicoError, match="tempcnn and mlp"):
            fast_form(other, backend="onnx")


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("onnx", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_its_extra(case, backend, package, monkeypatch):
    real = importlib.import_module

    def without(name: str, *rest: object) -> object:
        if name == package:
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr("mdico_cube.colearn.onnx_graph.import_module", without)
    with pytest.raises(MdicoError, match=rf"needs {package}.*mdico-cube\[{backend}\]"):
        fast_form(case[0], backend=backend)


def test_gaps_are_filled_alike_in_both_layouts():
    draw = torch.Generator().manual_seed(0)
    for steps in (1, 2, 7):
        values = torch.randn(steps, 3, 200, generator=draw)
        valid = torch.rand(steps, 200, generator=draw) > 0.5
        days = torch.rand(steps, generator=draw).cumsum(0) * 20
        expected = fill_gaps(torch.where(valid.unsqueeze(1), values, 0.0), valid, days)
        values[~valid.unsqueeze(1).expand_as(values)] = torch.nan
        found = filled_rows(values.permute(2, 0, 1).contiguous(), valid, days)
        assert torch.equal(found, expected.permute(2, 0, 1))


def test_weights_lose_at_most_half_a_step():
    weight = torch.randn(7, 5, 3)
    coded, step = quantise_weight(weight)
    assert coded.abs().amax(dim=(1, 2)).eq(largest_weight()).all()
    assert ((coded * step.view(-1, 1, 1) - weight).abs() <= step.view(-1, 1, 1) / 2 + 1e-7).all()
    scale = Scale.of(-1.0, 3.0)
    assert (0 - scale.zero) * scale.step == pytest.approx(-1.0, abs=scale.step)
    assert (255 - scale.zero) * scale.step == pytest.approx(3.0, abs=scale.step)


def test_onnx_model_stands_alone(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, _, _, branches, rows, _ = case
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_model(branches, (0, *rows.shape[1:])))
    found = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"rows": rows.numpy()})[0]
    with torch.inference_mode():
        expected = row_model(branches, "32-true", "torch")(rows)
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("abilities", "most"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_vnni": False}, 64),
        ({"architecture": "x86_64", "avx512_vnni": True}, 127),
        ({"architecture": "x86_64", "avx_vnni": True}, 127),
        ({"architecture": "aarch64"}, 127),
        ({}, 64),
    ],
)
def test_weights_are_as_wide_as_the_processor_sums_them(abilities, most, monkeypatch):
    """Law: where pairs are added in 16 bits, no pair of products leaves them: 2 * 255 * 64 < 2 ** 15."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert largest_weight.__wrapped__() == most
    assert most == 127 or 2 * 255 * most < 2**15
