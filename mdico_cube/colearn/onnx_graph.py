"""The branches of a folded model in, an ONNX model out: float32, or 8-bit integers as quantise-dequantise pairs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch

from mdico_cube.colearn.chains import Affine
from mdico_cube.colearn.engines import Branches
from mdico_cube.colearn.int8 import Ranges, Scale, check_ranges, quantise_weight
from mdico_cube.errors import MdicoError

INPUT, OUTPUT = "rows", "logits"
_OPSET, _IR = 17, 9


def onnx_model(branches: Branches, shape: tuple[int, int, int], ranges: Ranges | None = None) -> bytes:
    """Rows (N, T, C) to logits (N, K) as a serialised ONNX model; it is checked before it is handed out.

    Args:
        branches: of a folded model.
        shape: N, T and C of the rows; an N of 0 leaves it open.
        ranges: of the values, for 8-bit integers; the last map of each branch and the sum stay in float32.

    Raises:
        MdicoError: onnx is not installed, or ranges of another network.
    """
    onnx = needed("onnx")
    if ranges is not None:
        check_ranges(branches, ranges)
    graph = _Graph(shape[1])
    graph.add("Transpose", [INPUT], "turned", perm=[0, 2, 1])  # (N, C, T)
    graph.add("Unsqueeze", ["turned", graph.constant("axis", np.array([2]))], "image")  # (N, C, 1, T)
    outs = [graph.branch(f"b{i}", maps, ranges and ranges[i]) for i, maps in enumerate(branches)]
    graph.add("Sum", outs, OUTPUT)
    first = shape[0] or "pixels"
    kind = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info(INPUT, kind, [first, *shape[1:]])]
    outputs = [onnx.helper.make_tensor_value_info(OUTPUT, kind, [first, len(branches[0][-1].bias)])]
    whole = onnx.helper.make_graph(graph.nodes, "mdico", inputs, outputs, graph.constants)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model, full_check=True)
    found: bytes = model.SerializeToString()
    return found


def needed(package: str) -> Any:
    """An optional package.

    Raises:
        MdicoError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        extra = "openvino" if package == "openvino" else "onnx"
        raise MdicoError(
            f"maps.backend {extra} needs {package}, which is not installed: pip install 'mdico-cube[{extra}]', "
            "or use torch."
        ) from error


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.onnx = needed("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def branch(self, name: str, maps: Any, ranges: Any) -> str:
        """One branch, from the image (N, C, 1, T) to (N, K)."""
        now, flat = "image", False
        for i, each in enumerate(maps):
            scale = None if ranges is None or i == len(maps) - 1 else Scale.of(*ranges[i])
            here = f"{name}m{i}"
            if scale is not None:
                now = self._coded(now, f"{here}x", scale)
            if not each.over_time and not flat:
                now, flat = self.add("Flatten", [now], f"{here}flat"), True
                each = Affine(self._bands_first(each), each.bias, each.relu)
                if scale is not None:
                    now = self._coded(now, f"{here}y", scale)
            now = self._map(here, each, now, scale)
            now = self.add("Relu", [now], f"{here}relu") if each.relu else now
        return now

    def _map(self, name: str, affine: Affine, now: str, scale: Scale | None) -> str:
        weight, bias = self._weight(name, affine, scale), self._bias(name, affine, scale)
        if affine.over_time:
            width = affine.weight.shape[2] // 2
            return self.add("Conv", [now, weight, bias], name, pads=[0, width, 0, width])
        return self.add("Gemm", [now, weight, bias], name, transB=1)

    def _weight(self, name: str, affine: Affine, scale: Scale | None) -> str:
        weight = affine.weight.unsqueeze(2) if affine.over_time else affine.weight
        if scale is None:
            return self.constant(f"{name}w", weight.float().numpy())
        coded, step = quantise_weight(weight)
        zeros = np.zeros(len(step), np.int8)
        parts = [(f"{name}wq", coded.numpy()), (f"{name}ws", step.numpy()), (f"{name}wz", zeros)]
        return self.add("DequantizeLinear", [self.constant(*part) for part in parts], f"{name}w", axis=0)

    def _bias(self, name: str, affine: Affine, scale: Scale | None) -> str:
        if scale is None:
            return self.constant(f"{name}b", affine.bias.float().numpy())
        step = quantise_weight(affine.weight)[1].double() * scale.step
        coded = (affine.bias.double() / step).round().clamp(-(2**31), 2**31 - 1).to(torch.int32)
        parts = [(f"{name}bq", coded.numpy()), (f"{name}bs", step.float().numpy())]
        parts.append((f"{name}bz", np.zeros(len(step), np.int32)))
        return self.add("DequantizeLinear", [self.constant(*part) for part in parts], f"{name}b", axis=0)

    def _coded(self, now: str, name: str, scale: Scale) -> str:
        """A tensor as bytes and back: what the backends turn into 8-bit arithmetic."""
        about = [
            self.constant(f"{name}s", np.array(scale.step, np.float32)),
            self.constant(f"{name}z", np.array(scale.zero, np.uint8)),
        ]
        coded = self.add("QuantizeLinear", [now, *about], f"{name}q")
        return self.add("DequantizeLinear", [coded, *about], f"{name}d")

    def _bands_first(self, affine: Affine) -> torch.Tensor:
        """A weight over rows with time first, (out, T*C), for rows with bands first."""
        weight = affine.weight
        return weight.view(len(weight), self.steps, -1).transpose(1, 2).flatten(1)
