"""A card where there is none: its tensors say that they lie on cuda:0, compute on the processor and mix with no others.

So a machine without a card tells what a card would refuse: a tensor left behind on the processor, or an array made of
one that lies on the card. It does not tell how fast or how exactly a card computes. Gradients ask torch for an
accelerator, which it looks for once per process: `colearn/train_on_card.py` trains in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from card_driver import register
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("cuda", 0)
HERE = torch.device("cpu")
MEMORY = 1 << 30


class OnCard(torch.Tensor):
    """A tensor of the card; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnCard:
        facts = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=THERE, **facts)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnCard({self.inner})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    def __format__(self, how: str) -> str:
        return format(self.inner, how)

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(op, *args, **(kwargs or {}))


def computed(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator as a card does: all its tensors lie there, except single numbers and the indices of a choice."""
    name, device = op._schema.name, kwargs.get("device")
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    free = [*(tree_leaves(args[1:2]) if "index" in name and "index_select" not in name else ()), *_sides(name, args)]
    left = [
        each for each in tensors if not isinstance(each, OnCard) and each.dim() and all(each is not f for f in free)
    ]
    if left and len(left) < len(tensors):
        raise RuntimeError(f"{name}: tensors on {THERE} and on {HERE}")
    if device is not None:
        kwargs = {**kwargs, "device": HERE}
    kwargs.pop("pin_memory", None)
    given, options = tree_map(_inner, (args, kwargs))
    if name in ("aten::_softmax", "aten::_log_softmax") and given[2]:  # a processor has none from half to float
        given = (given[0].float(), given[1], False)
    with torch.inference_mode(False):  # else what a view is made of may not be what it is made in
        found = op(*given, **options)
        if device is not None and device.type == "cpu":
            return found
        outer = {id(_inner(each)): each for each in tensors} if op._schema.is_mutable else {}
        return tree_map(
            lambda each: outer.get(id(each), OnCard(each)) if isinstance(each, torch.Tensor) else each, found
        )


def _sides(name: str, args: Any) -> Any:
    """Copies lead from one side to the other."""
    return args[:2] if name == "aten::copy_" else ()


def _inner(each: Any) -> Any:
    return each.inner if isinstance(each, OnCard) else each


class _Stream:
    """Of a device that computes at once."""

    def __init__(self, device: torch.device | None = None) -> None:
        assert device is None or device == THERE


class _Event:
    def __init__(self) -> None:
        self.recorded = False

    def record(self, stream: _Stream) -> None:
        assert isinstance(stream, _Stream)
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded


@contextmanager
def pretended(patch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The card that is not there, for as long as the block runs."""
    register()
    stand_ins = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_: True,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device: None,
        "memory_allocated": lambda device: 0,
        "max_memory_allocated": lambda device: MEMORY >> 2,
        "mem_get_info": lambda device: (MEMORY, MEMORY),
        "get_device_properties": lambda index: SimpleNamespace(name="none", total_memory=MEMORY),
        "get_device_capability": lambda *_: (9, 0),
        "set_device": lambda device: None,
        "Stream": _Stream,
        "Event": _Event,
        "stream": lambda stream: nullcontext(),
        "_lazy_init": lambda: None,
    }
    for name, stand_in in stand_ins.items():
        patch.setattr(torch.cuda, name, stand_in)
    for name in ("zeros", "empty"):
        patch.setattr(torch, name, _unpinned(getattr(torch, name)))
    patch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
    patch.setattr(torch, "tensor", _carried(torch.tensor))
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with torch.library._scoped_library("_", "IMPL") as library:
            library.fallback(computed, "CUDA")
            yield THERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _unpinned(make: Any) -> Any:
    """Memory cannot be pinned for what is not there."""

    def run(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        found: torch.Tensor = make(*args, **kwargs)
        return found

    return run


def _carried(make: Any) -> Any:
    """A tensor of Python numbers is made here and carried over: what makes it there asks for a kernel."""

    def run(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        found: torch.Tensor = make(data, **kwargs)
        return found if device is None else found.to(device)

    return run


def dask_setup(worker: Any) -> None:
    """The same in a Dask worker, for as long as it lives: Dask calls it in each that preloads this file."""
    worker.card = pretended(pytest.MonkeyPatch())
    worker.card.__enter__()
