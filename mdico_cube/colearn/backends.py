"""The branches of a folded model in, the same in torch, torch.compile, ONNX Runtime or OpenVINO out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdico_cube.colearn.engines import Branches, FloatBranches, RowModel, Taps, shared_reach
from mdico_cube.colearn.int8 import Int8Branches, Ranges
from mdico_cube.colearn.onnx_graph import INPUT, needed, onnx_model
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Engine, Precision

KINDS = {"32-true": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ABLE: dict[Engine, tuple[Precision, ...]] = {
    "torch": ("32-true", "bf16", "fp16", "int8"),
    "compile": ("32-true", "bf16", "fp16"),
    "onnx": ("32-true", "int8"),
    "openvino": ("32-true", "bf16", "int8"),
}
"""What each backend computes in."""
ON_CARDS: tuple[Engine, ...] = ("torch", "compile")
"""Backends that compute on a GPU too; they also give the embedding in the same pass."""
CPU = torch.device("cpu")


def row_model(
    branches: Branches,
    precision: Precision,
    backend: Engine,
    ranges: Ranges | None = None,
    taps: Taps | None = None,
    device: torch.device = CPU,
) -> RowModel:
    """The branches in this arithmetic, computed by this backend on this device.

    Raises:
        MdicoError: a package is missing, the backend does not know the precision or the device, or int8 without ranges.
    """
    if precision not in ABLE[backend]:
        able = ", ".join(name.replace("32-true", "fp32") for name in ABLE[backend])
        raise MdicoError(f"maps.backend {backend} computes in {able}, not in {precision}. Choose another of the two.")
    if precision == "int8" and ranges is None:
        raise MdicoError(
            "precision int8: this bundle was not calibrated. Run `mdico quantize` on its recipe, or use "
            "another precision."
        )
    if device.type != "cpu" and (backend not in ON_CARDS or precision == "int8"):
        raise MdicoError(
            f"maps.device {device.type}: maps.backend {backend} in {precision.replace('32-true', 'fp32')} computes on "
            "processors only. Use backend torch or compile in fp32, bf16 or fp16, or device cpu."
        )
    if backend == "onnx":
        return OnnxRuntime(branches, ranges if precision == "int8" else None)
    if backend == "openvino":
        return OpenVino(branches, precision, ranges if precision == "int8" else None)
    if precision == "int8":
        assert ranges is not None
        return Int8Branches(branches, ranges, taps)
    kind = KINDS[precision]
    reach = shared_reach(branches) if device.type == "cpu" and backend == "torch" else 0
    found = FloatBranches(branches, kind, backend == "compile", taps, reach).to(device)
    return found if backend == "torch" else compiled(found)


def compiled(module: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A module run by torch.compile; one whole graph per number of pixels."""
    found: Callable[..., Tensor] = torch.compile(module, fullgraph=True, dynamic=False)

    def run(*given: Tensor) -> Tensor:
        try:
            return found(*given)
        except torch._dynamo.exc.TorchDynamoException as error:  # no compiler, or a model it cannot follow
            reason = " ".join(str(error).split()[:20])
            raise MdicoError(
                f"maps.backend compile: torch.compile failed ({reason}). It needs a C++ compiler; or use torch."
            ) from error

    return run


class OnnxRuntime:
    """The branches in ONNX Runtime, on as many threads as torch has in the thread that calls."""

    def __init__(self, branches: Branches, ranges: Ranges | None = None) -> None:
        self._runtime = needed("onnxruntime")
        first = branches[0][0]
        self._branches, self._ranges, self._bands = branches, ranges, first.weight.shape[1]
        self._sessions: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, rows: Tensor) -> Tensor:
        """See RowModel."""
        threads, steps, bands = torch.get_num_threads(), *rows.shape[1:]
        with self._lock:
            session = self._sessions.get((threads, steps))
            if session is None:
                session = self._sessions[threads, steps] = self._session(threads, (0, steps, bands))
        return torch.from_numpy(session.run(None, {INPUT: rows.numpy()})[0])

    def _session(self, threads: int, shape: tuple[int, int, int]) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = onnx_model(self._branches, shape, self._ranges)
        return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OpenVino:
    """The branches in OpenVINO: several threads may call at once, each on as many threads as torch has in it."""

    def __init__(self, branches: Branches, precision: Precision, ranges: Ranges | None = None) -> None:
        self._core = needed("openvino").Core()
        self._hint = "bf16" if precision == "bf16" else "f32"
        self._branches, self._ranges = branches, ranges
        self._models: dict[tuple[int, ...], Any] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def __call__(self, rows: Tensor) -> Tensor:
        """See RowModel."""
        key = (torch.get_num_threads(), *rows.shape)
        requests = self._local.__dict__.setdefault("requests", {})
        if key not in requests:
            requests[key] = self._compiled(key).create_infer_request()
        found = requests[key].infer([rows.numpy()], share_inputs=True)[0]
        return torch.from_numpy(found.copy())

    def _compiled(self, key: tuple[int, ...]) -> Any:
        with self._lock:
            if key not in self._models:
                threads, *shape = key
                model = self._core.read_model(onnx_model(self._branches, tuple(shape), self._ranges))  # type: ignore[arg-type]
                streams = max(1, (os.cpu_count() or 1) // threads)
                options = {
                    "INFERENCE_NUM_THREADS": threads * streams,
                    "NUM_STREAMS": streams,
                    "INFERENCE_PRECISION_HINT": self._hint,
                    "ENABLE_CPU_PINNING": False,
                }
                self._models[key] = self._core.compile_model(model, "CPU", options)
            return self._models[key]
