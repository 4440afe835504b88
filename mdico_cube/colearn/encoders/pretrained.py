"""A checkpoint of somebody's pretrained model in, its weights in a module of ours out, checked key by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mdico_cube.colearn.encoders.rows import pixel_image, pixel_rows
from mdico_cube.colearn.inputs import Dated
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import EncoderSection
from mdico_cube.spec import InputSpec

PretrainedFactory = Callable[[InputSpec, EncoderSection], nn.Module]
"""(what the model takes of one modality, section) to an encoder as EncoderFactory says; bands are known by name."""
_BEFORE, _AFTER = 400, 1500  # days around the first step that the calendar knows
_TOGETHER = 2048  # pixels that go through a backbone at once where no gradient is kept
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.", "encoder.")


class Pretrained(Dated, ABC):
    """A pretrained backbone over single pixels' series, and one Linear of ours from its width to the embedding's.

    Frozen, the backbone stays in eval mode and gets no gradient: only the Linear learns. Its weights are part of the
    module like any others, so that a bundle holds them and needs no file beside it.
    """

    calendar: Tensor
    """(days, 2) month 0..11 and day of the year 0..365 of each day around the first step."""
    backbone: nn.Module

    def __init__(self, spec: InputSpec, section: EncoderSection, width: int) -> None:
        super().__init__(spec.steps)
        self.frozen = section.frozen
        self.register_buffer("calendar", _calendar(spec.steps[0]))
        self.embed = nn.Linear(width, section.width)

    def settle(self, section: EncoderSection, families: tuple[str, ...], fixed: tuple[str, ...] = ()) -> None:
        """Fill the backbone from `section.weights`, but not in a model that is only laid out, and freeze it.

        Args:
            section: names the file.
            families: how the names of such a checkpoint begin.
            fixed: how the names of weights begin that never learn.

        Raises:
            MdicoError: a frozen encoder without weights, or weights that do not fit.
        """
        if section.weights is None and self.frozen:
            raise MdicoError(
                f"encoder {section.name}: frozen needs pretrained weights. Give encoder.weights the path of the "
                "checkpoint, or set encoder.frozen: false to learn from random ones."
            )
        laid_out = any(weight.is_meta for weight in self.backbone.parameters())
        if section.weights is not None and not laid_out:
            fill(self.backbone, section.name, section.weights, families)
        for name, weight in self.backbone.named_parameters():
            weight.requires_grad_(not (self.frozen or name.startswith(fixed)))
        self.train(self.training)

    def train(self, mode: bool = True) -> Pretrained:
        """A frozen backbone stays as it is when the model around it trains."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised, gaps filled, and (B, T, H, W) observed to the embedding (B, d, H, W).

        Steps that were not observed have no influence; a pixel never observed is read as if all its steps were.
        """
        series, seen = pixel_rows(images, valid)  # (N, T, C), (N, T)
        days = self.days_of(images.shape[-2] * images.shape[-1]).expand(len(series), -1)  # (N, T)
        at = (days.round().long() + _BEFORE).clamp(0, len(self.calendar) - 1)
        month, day = self.calendar[at].unbind(-1)  # (N, T) each
        size = len(series) if torch.is_grad_enabled() and not self.frozen else _TOGETHER
        pieces = (torch.split(part, size) for part in (series, seen, month, day))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            rows = torch.cat([self.read(*piece) for piece in zip(*pieces, strict=True)])  # (N, width)
        return pixel_image(self.embed(rows), images)

    @abstractmethod
    def read(self, series: Tensor, seen: Tensor, month: Tensor, day: Tensor) -> Tensor:
        """Rows (N, T, C) normalised, seen (N, T), month and day of the year (N, T) to (N, width)."""


def _calendar(first: str) -> Tensor:
    """(days, 2) month 0..11 and day of the year 0..365, from `_BEFORE` days before a date on."""
    start = date.fromisoformat(first or "2021-01-01") - timedelta(days=_BEFORE)
    days = [start + timedelta(days=n) for n in range(_BEFORE + _AFTER)]
    return torch.tensor([[day.month - 1, day.timetuple().tm_yday - 1] for day in days])


def band_key(name: str) -> str:
    """A band's name as the tables here write it: B02, b2 and B2 are one band."""
    key = name.lower()
    return f"b{key[1:].lstrip('0')}" if key.startswith("b") and key[1:2].isdigit() else key


def first_place(like: Tensor) -> Tensor:
    """The two-dimensional encoding of row 0 and column 0: sin 0 and cos 0, for each of them; as wide as `like`."""
    width = like.shape[-1] // 4
    return torch.cat([like.new_zeros(width), like.new_ones(width)]).repeat(2)


def fill(model: nn.Module, name: str, path: Path, families: tuple[str, ...]) -> None:
    """Put a checkpoint's tensors into a module that names its own alike; what it has no place for stays out.

    Raises:
        MdicoError: not readable, another model's, or a weight that is missing or of another shape.
    """
    found, wanted = read_checkpoint(name, path), model.state_dict()
    alien = [key for key in found if not key.startswith(families)]
    if alien:
        raise MdicoError(
            f"encoder.weights {path}: holds {alien[0]}, which {name} does not have. Give a checkpoint of {name}."
        )
    missing = [key for key in wanted if key not in found]
    if missing:
        raise MdicoError(
            f"encoder.weights {path}: lacks {missing[0]}{_more(missing)} of {name}. Give the whole checkpoint, of the "
            "size that encoder.size says."
        )
    odd = [key for key, tensor in wanted.items() if found[key].shape != tensor.shape]
    if odd:
        came, needs = (tuple(state[odd[0]].shape) for state in (found, wanted))
        raise MdicoError(
            f"encoder.weights {path}: {odd[0]} is {came}, {name} of this encoder.size needs {needs}{_more(odd)}. Set "
            "encoder.size to the checkpoint's."
        )
    deeper = _blocks(found) > _blocks(wanted)
    if deeper:
        raise MdicoError(
            f"encoder.weights {path}: has {_blocks(found)} blocks, {name} of this encoder.size has {_blocks(wanted)}. "
            "Set encoder.size to the checkpoint's."
        )
    model.load_state_dict({key: found[key].to(tensor.dtype) for key, tensor in wanted.items()})


def read_checkpoint(name: str, path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors or a torch file of tensors; nothing in it is executed.

    Raises:
        MdicoError: not there, not readable, or not a set of tensors.
    """
    if path.is_dir():
        path = next((path / file for file in ("encoder.safetensors", "encoder.pt") if (path / file).exists()), path)
    if not path.is_file():
        raise MdicoError(f"encoder.weights {path}: no such file. Give the path of a checkpoint of {name}.")
    try:
        state: Any = (
            safetensors.torch.load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(name, path) from error
    except Exception as error:  # pickle.UnpicklingError: the file holds more than tensors and plain values
        raise _unreadable(name, path) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise _unreadable(name, path)
    tensors = {str(key).replace(".backbone", ""): value for key, value in state.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _unreadable(name: str, path: Path) -> MdicoError:
    return MdicoError(
        f"encoder.weights {path}: is no set of tensors (safetensors, or a torch file without code in it). Give a "
        f"checkpoint of {name}."
    )


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _blocks(state: Mapping[str, Tensor]) -> int:
    """How many blocks a transformer's weights are of."""
    return max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1) + 1
