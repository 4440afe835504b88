"""A bundle's folder in, what a map asks of it out: its sensors, its classes and a scorer, kept once per process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mdico_cube.colearn.applicability import Reference, beheaded
from mdico_cube.colearn.bundle import Bundle, load_bundle
from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.colearn.fast import PlainForm, fast_form
from mdico_cube.colearn.joint import JointBundle, JointConfig, is_joint, load_joint
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import ImageModel, Tiling, tiling_of
from mdico_cube.maps.block import Scorer
from mdico_cube.recipe import MapOptions
from mdico_cube.spec import LabelClass


@dataclass(slots=True)
class Loaded:
    """A bundle of one sensor, or of several together, and the forms of its model that this process has made."""

    stamp: int
    """Time of the last change to its files."""
    bundle: Bundle | JointBundle
    _scorers: dict[tuple[object, ...], Scorer] = field(default_factory=dict)

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
        config = self.bundle.config
        return tuple(config.members.values()) if isinstance(config, JointConfig) else (config,)

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
        known = self.configs[0].applicability
        return known.sha256 if known and isinstance(self.bundle, Bundle) else None

    def tiling(self, side: int) -> Tiling | None:
        """The windows its model runs in; None for a model of single pixels."""
        return tiling_of(self.bundle.model, side)

    def check(self, options: MapOptions) -> None:
        """Raise MdicoError where it cannot serve an option."""
        if "applicability" in options.outputs and self.reference_digest is None:
            why = (
                "fuses sensors, and the distance to the training data is known for each sensor alone. Map with one "
                "sensor or with auto, or leave applicability out."
                if isinstance(self.bundle, JointBundle)
                else "knows nothing of its training data's reach, which the output applicability needs. Train it again "
                "with this version, or leave applicability out."
            )
            raise MdicoError(f"bundle {self.path}: {why}")
        plain = options.backend == "torch" and options.precision in ("32-true", "bf16")
        if not plain and (isinstance(self.bundle, JointBundle) or self.tiling(options.window) is not None):
            what = "fuses sensors" if isinstance(self.bundle, JointBundle) else "looks at neighbouring pixels"
            raise MdicoError(
                f"bundle {self.path}: {what}, and such models run in torch, in fp32 or bf16. Leave maps.backend and "
                f"precision {options.precision} out."
            )

    def prepare(self, options: MapOptions) -> None:
        """Make the form that will be used: what is not installed or not equal is said before anything is written."""
        if self.tiling(options.window) is None:
            self.scorer(options)

    def scorer(self, options: MapOptions) -> Scorer:
        """Scores of single pixels; see `mdico_cube.maps.block`."""
        judged = "applicability" in options.outputs
        with _lock:
            key = (options.precision, options.backend, judged)
            if key not in self._scorers:
                self._scorers[key] = self._make(options, judged)
            return self._scorers[key]

    def _series_form(self, options: MapOptions) -> nn.Module:
        """The fast form of a model of single pixels."""
        known = self.configs[0].int8
        ranges = None if known is None else known.ranges
        return fast_form(self.bundle.model, options.precision, options.backend, ranges, options.pixels)

    def image_scorer(self, options: MapOptions) -> ImageModel:
        """Scores of one window; see `mdico_cube.maps.blend`."""
        model, low = self.bundle.model, options.precision == "bf16"
        if isinstance(self.bundle, JointBundle):
            return _Fused(self.bundle, low)
        plain = _Image(model, low)
        return _Judged(plain, self._body(), self._reference) if "applicability" in options.outputs else plain

    def _make(self, options: MapOptions, judged: bool) -> Scorer:
        if isinstance(self.bundle, JointBundle):
            return _FusedSeries(_Fused(self.bundle, options.precision == "bf16"))
        form = self._series_form(options)
        return _Judged(form, PlainForm(self._body()), self._reference) if judged else form

    def _body(self) -> nn.Module:
        body = beheaded(self.bundle.model)
        assert body is not None  # it was when the reference was measured
        return body

    @property
    def _reference(self) -> Reference:
        assert isinstance(self.bundle, Bundle)
        assert self.bundle.reference is not None
        return self.bundle.reference


class _Image(nn.Module):
    """A model of images, at a precision."""

    def __init__(self, model: nn.Module, low: bool) -> None:
        super().__init__()
        self.model, self.low = model, low

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) and (B, T, H, W) to logits (B, K, H, W)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low):
            scores: Tensor = self.model(images, valid)
        return scores.float()


class _Fused(nn.Module):
    """A model of several sensors: what was never observed at a pixel has no influence there."""

    def __init__(self, bundle: JointBundle, low: bool) -> None:
        super().__init__()
        self.model, self.names, self.low = bundle.model, tuple(bundle.config.members), low

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, T, C, H, W) and (B, T, H, W) of each sensor in turn to logits (B, K, H, W)."""
        images, valid = (dict(zip(self.names, parts[first::2], strict=True)) for first in (0, 1))
        with torch.autocast(parts[0].device.type, torch.bfloat16, enabled=self.low):
            scores = self.model.fused(images, valid)
        return scores.float()


class _FusedSeries(nn.Module):
    """The same for pixel series."""

    def __init__(self, model: _Fused) -> None:
        super().__init__()
        self.model = model

    def forward(self, *parts: Tensor) -> Tensor:
        """(T, C, N) and (T, N) of each sensor in turn to logits (N, K)."""
        images = [part.movedim(-1, 0)[..., None, None].contiguous() for part in parts]
        scores: Tensor = self.model(*images)  # (N, K, 1, 1)
        return scores[:, :, 0, 0]


class _Judged(nn.Module):
    """A scorer with the distance to the training data as one score more, from a second pass to the embedding.

    The class does not depend on whether the distance is asked for.
    """

    def __init__(self, scorer: nn.Module, body: nn.Module, reference: Reference) -> None:
        super().__init__()
        self.scorer, self.body, self.reference = scorer, body, reference

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """As the scorer: (N, K + 1), or (B, K + 1, H, W) of images."""
        scores: Tensor = self.scorer(values, valid)
        embedding: Tensor = self.body(values, valid)
        rows = embedding.movedim(1, -1)  # (..., d)
        distance = self.reference.distance(rows.flatten(0, -2)).view(rows.shape[:-1])
        return torch.cat([scores.float(), distance.unsqueeze(1)], dim=1)


_lock = threading.RLock()
_bundles: dict[Path, Loaded] = {}


def load(path: Path) -> Loaded:
    """A bundle from this process's cache, loaded where it is new or its files changed."""
    with _lock:
        stamp = max((file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()), default=0)
        if path not in _bundles or _bundles[path].stamp != stamp:
            _bundles[path] = Loaded(stamp, load_joint(path) if is_joint(path) else load_bundle(path))
        return _bundles[path]
