"""A bundle's folder in, what a map asks of it out: its sensors, its classes and a scorer, kept once per process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mdico_cube.colearn.applicability import Reference
from mdico_cube.colearn.backends import KINDS
from mdico_cube.colearn.bundle import Bundle, load_bundle
from mdico_cube.colearn.bundle_config import BundleConfig
from mdico_cube.colearn.fast import fast_form
from mdico_cube.colearn.joint import JointBundle, JointConfig, is_joint, load_joint
from mdico_cube.colearn.tapped import Tapped
from mdico_cube.colearn.tasks import Scale
from mdico_cube.errors import MdicoError
from mdico_cube.maps.blend import ImageModel, Tiling, tiling_of
from mdico_cube.maps.block import Scorer
from mdico_cube.maps.feed import CPU, Room, torch_device
from mdico_cube.recipe import MapOptions, Precision
from mdico_cube.spec import InputSpec, LabelClass

CARD_PIXELS = 1 << 16
"""Pixels that go through a card at once where its memory allows: more make it no faster."""
CARD_WINDOWS = 64
"""The same of windows."""
IMAGE_TOLERANCE: dict[Precision, float] = {"32-true": 1e-2, "bf16": 0.5, "fp16": 0.1}
"""Largest difference of a logit from the plain model's, in standard deviations of the logits: of the largest of the
tens of thousands of pixels in a window."""


@dataclass(slots=True)
class Loaded:
    """A bundle of one sensor, or of several together, and the forms of its model that this process has made."""

    stamp: int
    """Time of the last change to its files."""
    bundle: Bundle | JointBundle
    _scorers: dict[tuple[object, ...], Scorer] = field(default_factory=dict)
    _rooms: dict[tuple[object, ...], Room] = field(default_factory=dict)

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

    @property
    def task(self) -> str:
        """What its outputs are."""
        return self.configs[0].task.kind

    @property
    def scale(self) -> Scale:
        """Of a value, its outputs' mean and standard deviation."""
        return self.configs[0].scale

    def check(self, options: MapOptions) -> None:
        """Raise MdicoError where it cannot serve an option."""
        self._check_task(options)
        if "applicability" in options.outputs and self.reference_digest is None:
            why = (
                "fuses sensors, and the distance to the training data is known for each sensor alone. Map with one "
                "sensor or with auto, or leave applicability out."
                if isinstance(self.bundle, JointBundle)
                else "knows nothing of its training data's reach, which the output applicability needs. Train it again "
                "with this version, or leave applicability out."
            )
            raise MdicoError(f"bundle {self.path}: {why}")
        plain = options.backend == "torch" and options.precision in KINDS
        if not plain and (isinstance(self.bundle, JointBundle) or self.tiling(options.window) is not None):
            what = "fuses sensors" if isinstance(self.bundle, JointBundle) else "looks at neighbouring pixels"
            raise MdicoError(
                f"bundle {self.path}: {what}, and such models run in torch, in fp32, bf16 or fp16. Leave maps.backend "
                f"and precision {options.precision} out."
            )

    def _check_task(self, options: MapOptions) -> None:
        if self.task != "regression":
            if options.step is not None:
                raise MdicoError(
                    f"maps.step: is for maps of a value, and bundle {self.path} gives classes. Leave it out."
                )
            return
        names: list[str] = [name for name in ("probabilities", "entropy") if name in options.outputs]
        names += ["abstain"] if options.abstain is not None else []
        if names:
            raise MdicoError(
                f"bundle {self.path}: gives a value, which has no probability, so that {', '.join(names)} cannot be "
                "told. Leave it out; observations and applicability go with values."
            )

    def prepare(self, options: MapOptions, device: str = "cpu") -> None:
        """Make the form that will be used: what is not installed or not equal is said before anything is written."""
        if self.tiling(options.window) is None:
            self.scorer(options, device)
        else:
            self.image_scorer(options, device)

    def scorer(self, options: MapOptions, device: str = "cpu") -> Scorer:
        """Scores of single pixels, taking their input on this device; see `mdico_cube.maps.block`."""
        return self._kept("pixels", options, device, self._make)

    def image_scorer(self, options: MapOptions, device: str = "cpu") -> ImageModel:
        """Scores of windows; see `mdico_cube.maps.blend`."""
        return self._kept("windows", options, device, self._make_image)

    def room(self, options: MapOptions, device: str = "cpu") -> Room:
        """How many pixels or windows go at once on this device: on a processor as the options say, on a card as fit."""
        windowed = self.tiling(options.window) is not None
        if device == "cpu":
            return Room(most=1 if windowed else options.at_once)
        key = ("room", windowed, options.precision, options.backend, "applicability" in options.outputs, device)
        with _lock:
            if key not in self._rooms:
                most, tried = (CARD_WINDOWS, 1) if windowed else (CARD_PIXELS, 1024)
                self._rooms[key] = Room(torch_device(device), most, tried)
            return self._rooms[key]

    def _kept(
        self, kind: str, options: MapOptions, device: str, make: Callable[[MapOptions, torch.device], Scorer]
    ) -> Scorer:
        """One form of each kind per process."""
        key = (kind, options.precision, options.backend, "applicability" in options.outputs, device)
        with _lock:
            if key not in self._scorers:
                self._scorers[key] = make(options, torch_device(device))
            return self._scorers[key]

    def _make(self, options: MapOptions, device: torch.device) -> Scorer:
        _exact(options, device)
        if isinstance(self.bundle, JointBundle):
            return _FusedSeries(_Fused(self.bundle, options.precision, device))
        judged, known = "applicability" in options.outputs, self.configs[0].int8
        ranges = None if known is None else known.ranges
        form = fast_form(
            self.bundle.model, options.precision, options.backend, ranges, options.at_once, device, embedding=judged
        )
        return _Judged(form, len(self.classes), self._reference.to(device)) if judged else form

    def _make_image(self, options: MapOptions, device: torch.device) -> ImageModel:
        _exact(options, device)
        if isinstance(self.bundle, JointBundle):
            return _Fused(self.bundle, options.precision, device)
        judged = "applicability" in options.outputs
        model = Tapped(self.bundle.model) if judged else self.bundle.model
        plain = ImageForm(model, options.precision, device)
        if device.type != "cpu" or options.precision != "32-true":
            check_image(plain, ImageForm(model), options.precision, self.configs[0].spec, options.window)
        return _Judged(plain, len(self.classes), self._reference.to(device)) if judged else plain

    @property
    def _reference(self) -> Reference:
        assert isinstance(self.bundle, Bundle)
        assert self.bundle.reference is not None
        return self.bundle.reference


def _exact(options: MapOptions, device: torch.device) -> None:
    """Float32 on a card means float32, not the shorter TF32 that convolutions take otherwise."""
    if device.type == "cuda" and options.precision == "32-true":
        torch.backends.cudnn.allow_tf32 = False


class ImageForm(nn.Module):
    """A model of images, at a precision and on a device of its own."""

    def __init__(self, model: nn.Module, precision: Precision = "32-true", device: torch.device = CPU) -> None:
        super().__init__()
        self.model = model if device.type == "cpu" else deepcopy(model).to(device)
        self.kind = KINDS[precision]

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C, H, W) and (B, T, H, W) to logits (B, K, H, W)."""
        with torch.autocast(images.device.type, self.kind, enabled=self.kind != torch.float32):
            scores: Tensor = self.model(images, valid)
        return scores.float()


def check_image(form: ImageForm, plain: ImageForm, precision: Precision, spec: InputSpec, side: int) -> None:
    """Raise MdicoError unless a form gives the plain model's logits on a random window, a quarter of it missing."""
    draw = torch.Generator().manual_seed(7)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (spec.stats.mean, spec.stats.std))
    images = mean + std * torch.randn(1, len(spec.steps), len(mean), side, side, generator=draw)
    valid = torch.rand(1, len(spec.steps), side, side, generator=draw) > 0.25
    device = next(form.parameters()).device
    with torch.inference_mode():
        expected, found = plain(images, valid), form(images.to(device), valid.to(device)).cpu()
    away = float((found - expected).abs().max()) / max(float(expected.std()), 1e-6)
    if not away <= IMAGE_TOLERANCE[precision]:
        raise MdicoError(
            f"precision {precision} on {device}: its logits lie up to {away:.2g} standard deviations from the plain "
            f"model's, at most {IMAGE_TOLERANCE[precision]:g} are allowed. Use precision fp32 or device cpu."
        )


class _Fused(nn.Module):
    """A model of several sensors: what was never observed at a pixel has no influence there."""

    def __init__(self, bundle: JointBundle, precision: Precision, device: torch.device = CPU) -> None:
        super().__init__()
        self.model = bundle.model if device.type == "cpu" else deepcopy(bundle.model).to(device)
        self.names, self.kind = tuple(bundle.config.members), KINDS[precision]

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, T, C, H, W) and (B, T, H, W) of each sensor in turn to logits (B, K, H, W)."""
        images, valid = (dict(zip(self.names, parts[first::2], strict=True)) for first in (0, 1))
        with torch.autocast(parts[0].device.type, self.kind, enabled=self.kind != torch.float32):
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
    """A scorer that gives the embedding too, with the distance to the training data in its place.

    The class does not depend on whether the distance is asked for.
    """

    def __init__(self, both: nn.Module, outputs: int, reference: Reference) -> None:
        super().__init__()
        self.both, self.outputs, self.reference = both, outputs, reference

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """(N, K + 1), or (B, K + 1, H, W) of images."""
        found: Tensor = self.both(values, valid).float()
        rows = found[:, self.outputs :].movedim(1, -1)  # (..., d)
        distance = self.reference.distance(rows.flatten(0, -2)).view(rows.shape[:-1])
        return torch.cat([found[:, : self.outputs], distance.unsqueeze(1)], dim=1)


_lock = threading.RLock()
_bundles: dict[Path, Loaded] = {}


def load(path: Path) -> Loaded:
    """A bundle from this process's cache, loaded where it is new or its files changed."""
    with _lock:
        stamp = max((file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()), default=0)
        if path not in _bundles or _bundles[path].stamp != stamp:
            _bundles[path] = Loaded(stamp, load_joint(path) if is_joint(path) else load_bundle(path))
        return _bundles[path]
