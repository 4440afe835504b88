"""A bundle's folder in, what a map asks of it out: its sensors, its classes and a scorer, kept once per process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mdico_cube.colearn.bundle import Bundle, load_bundle
from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.colearn.fast import fast_form
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import ImageModel, Tiling, tiling_of
from mdico_cube.maps.block import Scorer
from mdico_cube.recipe import MapOptions
from mdico_cube.spec import LabelClass


@dataclass(slots=True)
class Loaded:
    """A bundle and the forms of its model that this process has made."""

    stamp: int
    """Time of the last change to its files."""
    bundle: Bundle
    _scorers: dict[tuple[str, bool], Scorer] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.bundle.folder

    @property
    def digest(self) -> str:
        """What determines its predictions."""
        return self.bundle.config.digest

    @property
    def configs(self) -> tuple[BundleConfig, ...]:
        """Of each sensor it reads."""
        return (self.bundle.config,)

    @property
    def sensors(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(config.modality for config in self.configs)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """In the order of the logits."""
        return self.configs[0].classes

    @property
    def reference_digest(self) -> str | None:
        """Of what distances to the training data are measured from; None where it holds no such thing."""
        return None

    def tiling(self, side: int) -> Tiling | None:
        """The windows its model runs in; None for a model of single pixels."""
        return tiling_of(self.bundle.model, side)

    def check(self, options: MapOptions) -> None:
        """Raise MdicoError where it cannot serve an option."""
        if "applicability" in options.outputs and self.reference_digest is None:
            raise MdicoError(
                f"bundle {self.path}: knows nothing of its training data's reach, which the output applicability "
                "needs. Train it again with this version, or leave applicability out."
            )

    def scorer(self, options: MapOptions) -> Scorer:
        """Scores of single pixels; see `mdico_cube.maps.block`."""
        key = (options.precision, "applicability" in options.outputs)
        with _lock:
            if key not in self._scorers:
                self._scorers[key] = fast_form(self.bundle.model, options.precision)
            return self._scorers[key]

    def image_scorer(self, options: MapOptions) -> ImageModel:
        """Scores of one window; see `mdico_cube.maps.blend`."""
        return _ImageForm(self.bundle.model, options.precision == "bf16")


class _ImageForm(nn.Module):
    def __init__(self, model: nn.Module, low: bool) -> None:
        super().__init__()
        self.model, self.low = model, low

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low):
            scores: Tensor = self.model(images, valid)
        return scores


_lock = threading.RLock()
_bundles: dict[Path, Loaded] = {}


def load(path: Path) -> Loaded:
    """A bundle from this process's cache, loaded where it is new or its files changed."""
    with _lock:
        stamp = max((file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()), default=0)
        if path not in _bundles or _bundles[path].stamp != stamp:
            _bundles[path] = Loaded(stamp, load_bundle(path))
        return _bundles[path]
